"""The nouns of retrieval: documents go in, passages come out, a retriever finds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable
from urllib.parse import quote

MetadataValue: TypeAlias = str | int | float | bool
"""A metadata value that every retriever can filter on."""

FilterValue: TypeAlias = MetadataValue | Sequence[MetadataValue]
Filters: TypeAlias = Mapping[str, FilterValue]
"""Conditions that all must hold, in the dictionary syntax of Databricks Vector Search.

`{"lang": "ja"}` is equality, `{"lang": ["en", "ja"]}` one of, `{"lang NOT": "ja"}` inequality, and
`{"year >=": 2024}` (also `>`, `<`, `<=`) a comparison of numbers. Besides a document's metadata,
`doc_uri`, `title` and `lang` can be filtered on. A document without the field matches no condition
but `NOT`.
"""


_IN_FRAGMENTS = "!$&*+,;=:@/?~"
"""What RFC 3986 allows in a fragment as it is, but for the marks that end a link in Markdown."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """From the offset `start` of a document's text on, `#fragment` of the document opens there."""

    start: int
    fragment: str


@dataclass(frozen=True, slots=True)
class Document:
    """A source that answers can link to. `doc_uri` is its identity everywhere; `anchors` are in their order."""

    doc_uri: str
    text: str
    title: str = ""
    lang: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that is indexed and retrieved.

    `document.text[start:end] == text` holds for every passage that our chunking makes; `start` and
    `end` count characters. `headings` is the path of section titles that the passage stands under.
    `score` is the retriever's own (higher is better) and comparable within one result list only.
    `fragment` is that of the document's last anchor at or before the passage; "" where there is none.
    """

    chunk_id: str
    doc_uri: str
    text: str
    title: str = ""
    lang: str = ""
    start: int = 0
    end: int = 0
    headings: tuple[str, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    score: float = 0.0
    fragment: str = ""

    @property
    def url(self) -> str:
        """What a person opens: the `doc_uri`, at the passage's section where it is known."""
        if not self.fragment or "#" in self.doc_uri:
            return self.doc_uri
        return f"{self.doc_uri}#{quote(self.fragment, safe=_IN_FRAGMENTS, errors='replace')}"


@runtime_checkable
class Retriever(Protocol):
    """Finds passages. Implementations are safe to call from several threads at once."""

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` best passages, best first; fewer when fewer match, none for a query without terms.

        Raises:
            retrieval.errors.FilterError: if `filters` is not valid.
            retrieval.errors.RetrievalError: if the search cannot be done.
        """
        ...


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What a person may know of what is searched; `trouble` is why nothing can be found in it, if so."""

    documents: int | None = None
    passages: int | None = None
    languages: tuple[str, ...] = ()
    trouble: str = ""


@runtime_checkable
class CorpusRetriever(Retriever, Protocol):
    """A retriever that tells what it searches: what evaluation, caches and the page of a document need of it."""

    @property
    def content_hash(self) -> str:
        """Equal for equal corpora that are indexed alike, as far as the place where they are can tell."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that a search depends on but query, k and filters; equal ones find the same."""
        ...

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The weights of terms: how rare each is in the corpus; all alike where it does not tell."""
        ...

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """The passages of a document in their order; none when it is not there.

        Raises:
            retrieval.errors.RetrievalError: if they cannot be looked up.
        """
        ...

    def doc_uris(self) -> Collection[str] | None:
        """The identities of all documents; None where they cannot be listed."""
        ...

    def facts(self) -> CorpusFacts:
        """How much there is, as far as it is known; raises nothing."""
        ...

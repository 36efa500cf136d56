"""The documents that gold can be looked up in: those of an index, or of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from eval.curation.conversion import document_reader
from eval.formats.choice import Format
from retrieval.errors import IndexMissingError
from retrieval.local_index import LocalIndex
from retrieval.types import Document

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class KnownDocuments:
    """Documents that can be found. `source` says which; `describe` gives a document's `title` and first `text`.

    `doc_uris` is None where there is nothing to look them up in, and `source` says what to name.
    """

    doc_uris: Collection[str] | None
    source: str
    describe: Callable[[str], Mapping[str, str]] = lambda _: {}


def find_documents(
    dataset: str, format: Format, *, corpus: str | None, index: str | None, default_index: str
) -> KnownDocuments:
    """The documents of `index`, else of `corpus`, else those that the dataset brings, else of `default_index`.

    Raises:
        RetrievalError: if an index that was named cannot be opened.
        CorpusError: if the corpus cannot be read.
    """
    if index is not None:
        return _of_index(index)
    if read := document_reader(dataset, format, corpus):
        return _of_documents(read(), f"'{corpus or dataset}'")
    try:
        return _of_index(default_index)
    except IndexMissingError:
        return KnownDocuments(
            None,
            f"as there is no index at '{default_index}'. Name one with --index, or documents with --corpus",
        )


def _of_index(path: str) -> KnownDocuments:
    index = LocalIndex.open(path)

    def describe(doc_uri: str) -> Mapping[str, str]:
        passages = index.passages_of(doc_uri)
        return {"title": passages[0].title, "text": passages[0].text[:_LONGEST]} if passages else {}

    return KnownDocuments(index.doc_uris(), f"the index '{path}'", describe)


def _of_documents(documents: Iterable[Document], source: str) -> KnownDocuments:
    about = {
        document.doc_uri: {"title": document.title, "text": document.text[:_LONGEST]}
        for document in documents
    }
    return KnownDocuments(about.keys(), source, lambda doc_uri: about.get(doc_uri, {}))

"""The embedded index on disk: built, kept in step with its documents, opened and searched."""

from __future__ import annotations

import json
import mmap
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from retrieval import generations, indexing
from retrieval.analysis import content_terms
from retrieval.chunking import ChunkingSettings
from retrieval.embedders import Embedder
from retrieval.errors import ConfigurationError, IndexUnusableError
from retrieval.filters import FACETS, facet, filter_query
from retrieval.generations import Manifest
from retrieval.indexing import Corpus, IndexReport, Progress, RefusedDocument
from retrieval.lexical import (
    ROW,
    inverse_document_frequency,
    register_tokenizers,
    terms_query,
    to_passage,
    weighted_terms_query,
)
from retrieval.passage_index import Hit
from retrieval.registry import read_uris
from retrieval.types import CorpusFacts, Document, Filters, Passage
from retrieval.vectors import Allowed, Vectors, to_address

__all__ = ["Hit", "IndexReport", "LocalIndex", "Progress", "RefusedDocument"]

_DEFAULT_CHUNKING = ChunkingSettings()
_SCORE_DIGITS = 4
_MOST_FILTERS = 32


class LocalIndex:
    """A snapshot of an index on disk; a `Retriever`.

    It sees the index as it was when it was opened, whatever is written meanwhile: open it again to see
    more. Many threads may use one at once. Pickled, it is its path, and opens again where it is loaded.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Use `LocalIndex.open`."""
        directory = path / manifest.generation
        self.path = path
        self.manifest = manifest
        self._documents = _map_file(directory / indexing.DOCUMENTS)
        index = tantivy.Index.open(str(directory))
        # A generation never changes, so nothing has to watch for that.
        index.config_reader("manual")
        register_tokenizers(index)
        self._schema = index.schema
        self._searcher = index.searcher()
        self._no_vectors: Exception = IndexUnusableError(
            f"The index at '{path}' has no vectors. Name an embedding model (embedder.model) and bring it up to "
            "date: citeqa index --config …"
        )
        self._vectors = self._open_vectors(directory) if manifest.embedder else None
        self._allowed: dict[str, Allowed] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path) -> LocalIndex:
        """The index at `path`.

        Raises:
            IndexMissingError: if there is none.
            IndexUnusableError: if it is foreign, of another version, or damaged.
        """
        path = Path(path)
        manifest = generations.read_manifest(path)
        while True:
            try:
                generations.check_files(path, manifest)
                index = cls(path, manifest)
                # Again: tantivy opens what is left of a generation that is being removed, without a word.
                generations.check_files(path, manifest)
                return index
            except (IndexUnusableError, OSError, ValueError) as error:
                # A writer may have replaced the generation between reading the manifest and opening it.
                current = generations.read_manifest(path)
                if current.generation == manifest.generation:
                    raise _unusable(path, error) from error
                manifest = current

    @staticmethod
    def build(
        path: str | Path,
        corpus: Corpus,
        *,
        chunking: ChunkingSettings = _DEFAULT_CHUNKING,
        on_progress: Progress | None = None,
        strict: bool = False,
        embedder: Embedder | None = None,
    ) -> IndexReport:
        """Make the index at `path` of `corpus` alone. Until it is complete, an index that was there stays.

        Documents or sources are read as a stream and not kept. A source that is bad, or has a document with
        the `doc_uri` of one before it, is reported and the rest goes on; `strict` makes that an error. With
        an `embedder`, the index has vectors of its model.

        Raises:
            ConfigurationError: if there is an `embedder` and the extra `dense` is missing.
            EmbeddingError: if the model fails; what it made stays in its cache, where it has one.
            CorpusError: if there is no document, none that can be read, none with text, or two that were not
                read from sources have the same `doc_uri`.
            IndexUnusableError: if `path` is somebody else's; it is not touched.
            StorageError: if the disk refuses, or another process is writing there.
        """
        return indexing.build(Path(path), corpus, chunking, on_progress, strict=strict, embedder=embedder)

    @staticmethod
    def sync(
        path: str | Path,
        corpus: Corpus,
        *,
        chunking: ChunkingSettings = _DEFAULT_CHUNKING,
        on_progress: Progress | None = None,
        strict: bool = False,
        embedder: Embedder | None = None,
    ) -> IndexReport:
        """As `build`, but only documents that differ from those in the index are chunked and written.

        Sources with the fingerprint of one that the index was made of are not even loaded. Documents that
        are no longer given are deleted, but where a source turned bad, what was there before stays. Where
        nothing can be kept (no index yet, another version, other settings or model, damage) it builds. Without a
        difference nothing is written.
        """
        return indexing.sync(Path(path), corpus, chunking, on_progress, strict=strict, embedder=embedder)

    @staticmethod
    def update(
        path: str | Path,
        *,
        add_or_replace: Iterable[Document] = (),
        delete: Iterable[str] = (),
        embedder: Embedder | None = None,
    ) -> IndexReport:
        """Delete documents by `doc_uri`, then add or replace others, with the chunking of the index.

        Deleting what is not there is not an error. Raises as `build` and `open` do, and IndexUnusableError
        if the index was built with another embedding model, or without one.
        """
        return indexing.update(Path(path), add_or_replace, delete, embedder)

    @property
    def content_hash(self) -> str:
        """Equal for indexes with the same documents, chunking, analysis and embedding model."""
        return self.manifest.content_hash

    @property
    def identity(self) -> dict[str, Any]:
        """All that a search of words alone depends on."""
        return {"index": self.content_hash, "mode": "lexical"}

    @property
    def has_vectors(self) -> bool:
        """Whether passages can be found by their vectors."""
        return self.manifest.embedder is not None

    @property
    def embedder_fingerprint(self) -> str:
        """Of the model that the vectors are of; empty where there are none."""
        return self.manifest.embedder.fingerprint if self.manifest.embedder else ""

    @property
    def embedder_name(self) -> str:
        """What people call that model."""
        return self.manifest.embedder.name if self.manifest.embedder else ""

    def __len__(self) -> int:
        return self.manifest.passages

    def __repr__(self) -> str:
        return f"LocalIndex('{self.path}', {self.manifest.documents} documents, {len(self)} passages)"

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalIndex.open, (self.path,)

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalIndex:
        """Itself: a snapshot never changes, and DSPy's optimizers copy programs by the dozen."""
        return self

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` passages that share most with `query` (BM25), best first.

        Any text is a query: nothing in it is an operator. Scores are BM25's, rounded to four digits;
        equal ones are ordered by `doc_uri` and position. After updates, the weights of terms count
        deleted passages until tantivy merges them away.

        Raises:
            ValueError: if k < 1.
            FilterError: if `filters` is not valid.
            IndexUnusableError: if the files turn out to be damaged.
        """
        hits = self._find(terms_query(self._schema, self._searcher, query), k, filters)
        return sorted(self.passages(hits), key=_rank)[:k]

    def lexical_hits(self, query: str, n: int, filters: Filters | None = None) -> list[Hit]:
        """What `search` would find, in its order and without reading the passages."""
        return self._ordered(self._find(terms_query(self._schema, self._searcher, query), n, filters), n)

    def lexical_hits_of(
        self, weights: Mapping[str, float], n: int, filters: Filters | None = None
    ) -> list[Hit]:
        """As `lexical_hits`, for terms of `analyze` and the factors by which they count."""
        return self._ordered(self._find(weighted_terms_query(self._schema, weights), n, filters), n)

    def dense_hits(self, vector: NDArray[np.float32], n: int, filters: Filters | None = None) -> list[Hit]:
        """The at most n passages that are nearest to `vector`, best first, with their cosines.

        `vector` is of the model that the index was built with, and of length one. Of up to 20,000 passages,
        and where filters leave so few, they are the nearest; of more, nearly always. Equal scores are
        ordered as `search` orders them.

        Raises:
            ValueError: if n < 1, or the vector is of another dimension.
            FilterError: if `filters` is not valid.
            IndexUnusableError: if the index has no vectors, or its files turn out to be damaged.
            ConfigurationError: if the extra `dense` is missing.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        vectors = self._need_vectors()
        if vector.shape != (vectors.dimension,):
            raise ValueError(
                f"The vectors of the index have the shape {(vectors.dimension,)}, not {vector.shape}"
            )
        with self._reading():
            allowed = self._allow(vectors, filters) if filters else None
            query = np.ascontiguousarray(vector, np.float32)
            positions, scores = vectors.nearest(query, min(n, max(len(vectors), 1)), allowed)
            hits = list(map(Hit, vectors.addresses[positions].tolist(), map(_to_score, scores.tolist())))
        return self._ordered(hits, n)

    def vectors_of(self, hits: Sequence[Hit]) -> NDArray[np.float32]:
        """The vectors of passages of this snapshot, of shape (hits, dimension). Raises as `dense_hits`."""
        vectors = self._need_vectors()
        return vectors.at(vectors.positions_at(np.array([hit.address for hit in hits], np.uint64)))

    def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        """The passages of hits of this snapshot, in their order and with their scores."""
        with self._reading():
            return [to_passage(self._searcher.doc(_to_address(hit.address)), hit.score) for hit in hits]

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The weight that a search gives each of the `terms` of a question, as `analyze` makes them.

        It is BM25's inverse document frequency over passages, and 0 for the function words among other
        terms, which a search leaves out.
        """
        asked = frozenset(content_terms(terms))
        return [inverse_document_frequency(self._searcher, term) if term in asked else 0.0 for term in terms]

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """The passages of a document in their order; none when it is not in the index."""
        query = Query.term_query(self._schema, FACETS, facet("doc_uri", doc_uri), "basic")
        with self._reading():
            hits = self._searcher.search(query, max(len(self), 1), count=False).hits
            passages = [to_passage(self._searcher.doc(address), 0.0) for _, address in hits]
        return sorted(passages, key=lambda passage: passage.start)

    def has_document(self, doc_uri: str) -> bool:
        """Whether the index holds passages of the document."""
        return bool(self.passages_of(doc_uri))

    def doc_uris(self) -> set[str]:
        """The identities of all documents, those without text included."""
        with self._reading():
            return set(read_uris(bytes(self._documents)))

    def facts(self) -> CorpusFacts:
        """How much there is."""
        trouble = "" if len(self) else f"The index at '{self.path}' holds no passage."
        return CorpusFacts(self.manifest.documents, len(self), tuple(self.languages()), trouble)

    def count(self, filters: Filters) -> int:
        """The number of passages that fulfil `filters`."""
        with self._reading():
            query = filter_query(self._schema, filters) or Query.all_query()
            # The package's type stubs do not know of the count.
            result: Any = self._searcher.search(query, 1, count=True)
            return int(result.count)

    def sample(self, most: int) -> list[Passage]:
        """All passages, or `most` of them evenly spread over the index, the same each time."""
        with self._reading():
            hits = self._searcher.search(Query.all_query(), max(len(self), 1), count=False).hits
            step = max(1, -(-len(hits) // most))
            return [to_passage(self._searcher.doc(address), 0.0) for _, address in hits[::step]]

    def languages(self) -> list[str]:
        """The languages that documents say they are in, of those with a two-letter code, in order."""
        codes = (first + second for first in ascii_lowercase for second in ascii_lowercase)
        return [code for code in codes if self._searcher.doc_freq(FACETS, facet("lang", code))]

    def _find(self, query: Query | None, k: int, filters: Filters | None) -> list[Hit]:
        """The k best hits, and all that tie with the last of them; those of equal scores in no order."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        restriction = filter_query(self._schema, filters or {})
        if query is None or not len(self):
            return []
        with self._reading():
            return self._best(_restrict(query, restriction) if restriction else query, min(k, len(self)))

    def _best(self, query: Query, k: int) -> list[Hit]:
        limit = k + 1
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            rounded = [round(score, _SCORE_DIGITS) for score, _ in hits]
            if len(hits) < limit or rounded[-1] < rounded[k - 1]:
                last = rounded[min(k, len(hits)) - 1] if hits else 0.0
                found = zip(rounded, hits, strict=True)
                return [Hit(to_address(address), score) for score, (_, address) in found if score >= last]
            limit *= 4

    def _ordered(self, hits: Sequence[Hit], n: int) -> list[Hit]:
        """The first n of hits that come best first: equal scores are ordered as `search` orders them."""
        ordered: list[Hit] = []
        for _, group in groupby(hits, key=attrgetter("score")):
            ties = list(group)
            if len(ties) > 1 and len(ordered) < n:
                ranks = [_rank(passage) for passage in self.passages(ties)]
                ties = [ties[i] for i in sorted(range(len(ties)), key=ranks.__getitem__)]
            ordered += ties
        return ordered[:n]

    def _open_vectors(self, directory: Path) -> Vectors | None:
        try:
            return Vectors(directory)
        except ConfigurationError as error:  # the words of the index can be searched all the same
            self._no_vectors = error
            return None

    def _need_vectors(self) -> Vectors:
        if self._vectors is None:
            raise self._no_vectors
        return self._vectors

    def _allow(self, vectors: Vectors, filters: Filters) -> Allowed:
        """The vectors that filters leave, found out once: the passages of the snapshot never change."""
        restriction = filter_query(self._schema, filters)
        key = json.dumps(list(filters.items()), default=list)
        with self._lock:
            known = self._allowed.get(key)
        if known is None:
            restriction = restriction or Query.all_query()
            found = self._searcher.search(
                restriction, max(len(self), 1), count=False, order_by_field=ROW
            ).hits
            rows = np.fromiter((row for row, _ in found), np.uint64, len(found))
            known = Allowed.of(vectors.positions_of_rows(rows), len(vectors))
        with self._lock:
            self._allowed[key] = known
            while len(self._allowed) > _MOST_FILTERS:
                del self._allowed[next(iter(self._allowed))]
        return known

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            raise _unusable(self.path, error) from error


def _unusable(path: Path, error: Exception) -> IndexUnusableError:
    return error if isinstance(error, IndexUnusableError) else generations.unusable(path, error)


def _rank(passage: Passage) -> tuple[float, str, int]:
    return -passage.score, passage.doc_uri, passage.start


def _to_address(address: int) -> tantivy.DocAddress:
    return tantivy.DocAddress(address >> 32, address & 0xFFFFFFFF)


def _to_score(cosine: float) -> float:
    # From 32 bits, with the digits that it was rounded to.
    return round(cosine, 6)


def _restrict(query: Query, restriction: Query) -> Query:
    """`query` where `restriction` holds, with the scores of `query`."""
    return Query.boolean_query([(Occur.Must, query), (Occur.Must, Query.const_score_query(restriction, 0.0))])


def _map_file(file: Path) -> bytes | mmap.mmap:
    """The content of `file`, kept even when the file is removed, and in memory only while it is read."""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""

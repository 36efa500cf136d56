"""A corpus in PostgreSQL, searched by words and vectors: what the embedded index does, over a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import analyze, content_terms
from retrieval.errors import CiteqaError, IndexUnusableError
from retrieval.passage_index import Hit
from retrieval.postgres.address import Address
from retrieval.postgres.conditions_sql import Clause, where
from retrieval.postgres.corpus_row import CorpusRow, check_corpus, read_corpus
from retrieval.postgres.database import Database
from retrieval.postgres.lexemes import any_of
from retrieval.postgres.schema import MOST_EXACT, Tables, has_vector_index
from retrieval.postgres.storable import storable
from retrieval.postgres.weights import SATURATION, dimension_of, rarity, sparse_text
from retrieval.resilience import Limits
from retrieval.types import CorpusFacts, Filters, Passage

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection

T = TypeVar("T")

_MOST_TERMS = 256
_SCORE_DIGITS = 6
_SHOWN = 'chunk_id, doc_uri, text, title, lang, start, "end", headings, metadata, fragment'
_ALWAYS_ALL = 5_000
"""Among so few passages, looking for the common terms first costs nothing."""
_PER_HIT = 50
_MOST_EF_SEARCH = 1000
_ROUNDING = 1e-4


@dataclass(slots=True)
class _Snapshot:
    """One moment of the database, for the queries of a search; what was read of it is not read twice."""

    connection: Connection
    corpus: CorpusRow | None = None
    holding: dict[str, int] = field(default_factory=dict)


class PostgresIndex:
    """A corpus in PostgreSQL; a `Retriever` by words alone. It is searched as it is at the time of each search.

    Many threads may use one at once. Pickled, it is the address, and opens again where it is loaded.
    """

    def __init__(self, database: Database, tables: Tables) -> None:
        """Use `PostgresIndex.open`."""
        self._database = database
        self._tables = tables
        self._is_checked = False
        self._snapshot: ContextVar[_Snapshot | None] = ContextVar("postgres_snapshot", default=None)

    @classmethod
    def open(cls, database: Database, table: str) -> PostgresIndex:
        """The corpus in `table`, which is `name` or `schema.name`.

        Raises:
            ConfigurationError: if the name is none.
            IndexMissingError, IndexUnusableError: if there is none, or not of this program.
            RetrievalError: if the database refuses; ServiceUnavailableError if it cannot be reached.
        """
        index = cls(database, Tables.of(table))
        index.corpus()
        return index

    def __repr__(self) -> str:
        return f"PostgresIndex('{self.path}')"

    def __len__(self) -> int:
        return self.corpus().passages

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self._database.address, self._database.limits, str(self._tables))

    def __deepcopy__(self, memo: dict[int, Any]) -> PostgresIndex:
        """Itself: it holds connections, and DSPy's optimizers copy programs by the dozen."""
        return self

    @property
    def path(self) -> str:
        """What people call it."""
        return f"{self._tables} of {self._database.name}"

    def corpus(self) -> CorpusRow:
        """What the corpus was made with, and how much it is, now. Raises as `open`."""
        return self.together(lambda: self._corpus(self._moment))

    @property
    def content_hash(self) -> str:
        """Equal for corpora with the same documents, chunking, analysis and embedding model in such tables."""
        return self.corpus().content_hash

    @property
    def has_vectors(self) -> bool:
        """Whether passages can be found by their vectors."""
        return bool(self.corpus().embedder)

    @property
    def embedder_fingerprint(self) -> str:
        """Of the model that the vectors are of; empty where there are none."""
        return self.corpus().embedder

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns: all that it asks of this index is of one moment, on one connection.

        It is called again where the connection breaks. Raises what `work` does, and as `Database.read`.
        """
        if self._snapshot.get() is not None:
            return work()

        def within(connection: Connection) -> T:
            token = self._snapshot.set(_Snapshot(connection))
            try:
                return work()
            finally:
                self._snapshot.reset(token)

        return self._database.read(within)

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` passages that share most with `query` (BM25), best first.

        Any text is a query: nothing in it is an operator. Equal scores are ordered by `doc_uri` and position.

        Raises:
            ValueError: if k < 1.
            FilterError: if `filters` is not valid.
            RetrievalError: as `open`.
        """
        rows = self._find(_count(query), k, filters, f"id, distance, {_SHOWN}")
        return [_to_passage(row[2:], _rounded(-row[1])) for row in rows]

    def lexical_hits(self, query: str, n: int, filters: Filters | None = None) -> list[Hit]:
        """What `search` would find, in its order and without reading the passages."""
        return self.lexical_hits_of(_count(query), n, filters)

    def lexical_hits_of(
        self, weights: Mapping[str, float], n: int, filters: Filters | None = None
    ) -> list[Hit]:
        """As `lexical_hits`, for terms of `analyze` and the factors by which they count."""
        return [Hit(row[0], _rounded(-row[1])) for row in self._find(weights, n, filters, "id, distance")]

    def dense_hits(self, vector: NDArray[np.float32], n: int, filters: Filters | None = None) -> list[Hit]:
        """The at most n passages that are nearest to `vector`, best first, with their cosines.

        `vector` is of the model that the corpus has vectors of, and of length one. Of up to 20,000 passages, and
        where filters leave so few, they are the nearest; of more, nearly always.

        Raises:
            ValueError: if n < 1.
            IndexUnusableError: if the vectors in the table are of another dimension, or there are none.
            FilterError, RetrievalError: as `search`.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        restriction = where(filters)
        return self.together(lambda: self._nearest(vector, n, restriction))

    def vectors_of(self, hits: Sequence[Hit]) -> NDArray[np.float32]:
        """The vectors of passages, of shape (hits, dimension)."""
        query = f"SELECT id, embedding::real[] FROM {self._tables.passages} WHERE id = ANY(%s)"
        found = dict(self._rows(query, [[hit.address for hit in hits]]))
        dimension = self.corpus().dimension
        return np.array([found[hit.address] for hit in hits], np.float32).reshape(len(hits), dimension)

    def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        """The passages of hits, in their order and with their scores."""
        query = f"SELECT id, {_SHOWN} FROM {self._tables.passages} WHERE id = ANY(%s)"
        found = (
            {row[0]: row[1:] for row in self._rows(query, [[hit.address for hit in hits]])} if hits else {}
        )
        return [_to_passage(found[hit.address], hit.score) for hit in hits if hit.address in found]

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The weight that a search gives each of the `terms` of a question, as `LocalIndex.idf` tells it."""
        asked = set(content_terms(terms))

        def weigh() -> list[float]:
            moment = self._moment
            self._count_holding(moment, asked)
            passages = self._corpus(moment).passages
            return [rarity(passages, moment.holding[term]) if term in asked else 0.0 for term in terms]

        return self.together(weigh)

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """The passages of a document in their order; none when it is not there."""
        query = f"SELECT {_SHOWN} FROM {self._tables.passages} WHERE doc_uri = %s ORDER BY start, id"
        return [_to_passage(row, 0.0) for row in self._rows(query, [storable(doc_uri)])]

    def doc_uris(self) -> set[str]:
        """The identities of all documents, those without text included."""
        return {row[0] for row in self._rows(f"SELECT doc_uri FROM {self._tables.documents}", [])}

    def facts(self) -> CorpusFacts:
        """How much there is; where it cannot be told, why."""
        try:
            corpus = self.corpus()
        except CiteqaError as error:
            return CorpusFacts(trouble=str(error))
        trouble = "" if corpus.passages else f"The corpus in {self.path} holds no passage."
        return CorpusFacts(corpus.documents, corpus.passages, tuple(corpus.languages), trouble)

    def _find(
        self, factors: Mapping[str, float], k: int, filters: Filters | None, columns: str
    ) -> list[tuple[Any, ...]]:
        """The rows of the k passages with the greatest sum of their terms' weights."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        restriction = where(filters)
        factors = {storable(term): factor for term, factor in factors.items() if factor > 0}
        return self.together(lambda: self._best(factors, k, restriction, columns)) if factors else []

    def _best(
        self, factors: Mapping[str, float], k: int, restriction: Clause, columns: str
    ) -> list[tuple[Any, ...]]:
        moment = self._moment
        self._count_holding(moment, set(factors))
        passages = self._corpus(moment).passages
        held = sorted((moment.holding[term], term) for term in factors if moment.holding[term])
        held = held[:_MOST_TERMS]
        weights = {term: factors[term] * rarity(passages, holding) for holding, term in held}
        if not weights:
            return []
        first = len(held) if passages <= _ALWAYS_ALL else _rare(held, _PER_HIT * k)
        rows = self._matching(moment, weights, list(weights)[:first], k, restriction, columns)
        # A passage without any of the terms looked for so far cannot have more than those left add up to.
        enough = -rows[-1][1] if len(rows) == k else 0.0
        needed = _needed(list(weights.values()), enough)
        if needed > first:
            rows = self._matching(moment, weights, list(weights)[:needed], k, restriction, columns)
        return rows

    def _matching(
        self,
        moment: _Snapshot,
        weights: Mapping[str, float],
        terms: list[str],
        k: int,
        restriction: Clause,
        columns: str,
    ) -> list[tuple[Any, ...]]:
        """The k best of the passages that hold one of `terms`, with their scores for all of them in `weights`."""
        places: dict[int, float] = {}
        for term, weight in weights.items():
            places[dimension_of(term)] = places.get(dimension_of(term), 0.0) + weight
        sql, values = restriction
        query = (
            f"SELECT {columns} FROM (SELECT *, weights <#> %s::sparsevec AS distance FROM {self._tables.passages} "
            f"WHERE terms @@ %s::tsquery{f' AND {sql}' if sql else ''}) AS found "
            "ORDER BY distance, doc_uri, start LIMIT %s"
        )
        parameters = [sparse_text(places), any_of(terms), *values, k]
        return _rows(moment.connection, query, parameters)

    def _nearest(self, vector: NDArray[np.float32], n: int, restriction: Clause) -> list[Hit]:
        moment = self._moment
        corpus = self._corpus(moment)
        if vector.shape != (corpus.dimension,):
            raise IndexUnusableError(
                f"The vectors in {self.path} have {corpus.dimension or 'no'} dimensions, and the question's has "
                f"{len(vector)}: they were made with {corpus.embedder_name or 'no model'}. Configure the same "
                "embedder.model, or make the corpus anew: citeqa index"
            )
        asked = json.dumps(vector.tolist())
        sql, values = restriction
        candidates = f"{self._tables.passages} {f'WHERE {sql}' if sql else ''}"
        if self._is_approximate(moment, corpus, restriction):
            moment.connection.execute(
                f"SET LOCAL hnsw.ef_search = {min(max(2 * n, 100), _MOST_EF_SEARCH)}; "
                "SET LOCAL hnsw.iterative_scan = relaxed_order"
            )
            # Ordered as the index is, by which alone it is found; and then exactly.
            half = f"halfvec({corpus.dimension})"
            candidates = (
                f"(SELECT id, doc_uri, start, embedding FROM {candidates} "
                f"ORDER BY embedding::{half} <#> %s::{half} LIMIT %s OFFSET 0) AS nearest"
            )
            values = [*values, asked, n]
        query = (
            f"SELECT id, embedding <#> %s::vector AS distance FROM {candidates} "
            "ORDER BY distance, doc_uri, start LIMIT %s"
        )
        rows = _rows(moment.connection, query, [asked, *values, n])
        return [Hit(row[0], _rounded(-row[1])) for row in rows]

    def _is_approximate(self, moment: _Snapshot, corpus: CorpusRow, restriction: Clause) -> bool:
        if not has_vector_index(corpus.dimension, corpus.passages):
            return False
        sql, values = restriction
        if not sql:
            return True
        query = (
            f"SELECT count(*) > {MOST_EXACT} FROM "
            f"(SELECT FROM {self._tables.passages} WHERE {sql} LIMIT {MOST_EXACT + 1}) AS allowed"
        )
        return bool(_rows(moment.connection, query, values)[0][0])

    def _rows(self, query: str, values: list[Any]) -> list[Any]:
        moment = self._snapshot.get()
        if moment is not None:
            return _rows(moment.connection, query, values)
        return self._database.read_rows(query, values)

    @property
    def _moment(self) -> _Snapshot:
        """What is being read: inside `together` alone."""
        moment = self._snapshot.get()
        if moment is None:
            raise RuntimeError("the index is asked outside of together()")
        return moment

    def _corpus(self, moment: _Snapshot) -> CorpusRow:
        if moment.corpus is None:
            self._look(moment, [])
        assert moment.corpus is not None
        return moment.corpus

    def _count_holding(self, moment: _Snapshot, terms: set[str]) -> None:
        """Find out how many passages hold each term."""
        if unknown := [term for term in terms if term not in moment.holding]:
            self._look(moment, unknown)

    def _look(self, moment: _Snapshot, terms: list[str]) -> None:
        """Read what the corpus was made with, and how many passages hold the terms: one question for both."""
        if not self._is_checked:
            check_corpus(moment.connection, self._tables, self._database.name)
            self._is_checked = True
        moment.corpus, holding = read_corpus(moment.connection, self._tables, self._database.name, terms)
        moment.holding.update({term: holding.get(term, 0) for term in terms})


def _open_again(address: Address, limits: Limits, table: str) -> PostgresIndex:
    return PostgresIndex.open(Database(address, limits), table)


def _rows(connection: Connection, query: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(query.encode(), values).fetchall()


def _count(query: str) -> dict[str, float]:
    """The content terms of a query, each with how often it is there."""
    return dict(Counter(content_terms(analyze(query))))


def _rare(held: Sequence[tuple[int, str]], most: int) -> int:
    """How many of the terms, rarest first, are held by about so many passages; one at the least."""
    total = 0
    for place, (holding, _) in enumerate(held):
        total += holding
        if total > most:
            return max(place, 1)
    return len(held)


def _needed(weights: Sequence[float], enough: float) -> int:
    """How many of the terms, rarest first, one must hold to score `enough`: the rest together cannot."""
    left, needed = 0.0, len(weights)
    while needed and left + weights[needed - 1] * (SATURATION + 1) < enough * (1 - _ROUNDING):
        needed -= 1
        left += weights[needed] * (SATURATION + 1)
    return needed


def _rounded(score: float) -> float:
    return round(score, _SCORE_DIGITS)


def _to_passage(row: Sequence[Any], score: float) -> Passage:
    chunk_id, doc_uri, text, title, lang, start, end, headings, metadata, fragment = row
    return Passage(
        chunk_id, doc_uri, text, title, lang, start, end, tuple(headings), metadata, score, fragment
    )

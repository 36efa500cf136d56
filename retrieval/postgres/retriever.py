"""The retriever over a corpus in PostgreSQL: ranked as the embedded index is, each search at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import analyze
from retrieval.local_retriever import Explanation, RankedRetriever, RankingSettings, check_vectors
from retrieval.passage_index import Hit
from retrieval.postgres.index import PostgresIndex
from retrieval.types import Filters, Passage

if TYPE_CHECKING:
    from retrieval.embedders import Embedder
    from retrieval.ranking.cross_encoder import Reranker

T = TypeVar("T")

_embedded: ContextVar[Mapping[str, NDArray[np.float32]]] = ContextVar("embedded_queries")
"""The vectors of the queries of the search that is being made."""


class PostgresRetriever(RankedRetriever):
    """A `RankedRetriever` over a `PostgresIndex`: what is written during a search does not show in it."""

    index: PostgresIndex

    def __init__(
        self,
        index: PostgresIndex,
        settings: RankingSettings | None = None,
        *,
        embedder: Embedder | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """`embedder` is the one that the corpus has vectors of. Raises as `RankedRetriever`."""
        super().__init__(index, settings, embedder=embedder, reranker=reranker)

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """As `RankedRetriever.search`.

        Raises:
            ServiceUnavailableError: if the database stays away or too slow; and as `RankedRetriever.search`.
        """
        return self._at_one_moment([query], lambda: super(PostgresRetriever, self).search(query, k, filters))

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As `RankedRetriever.search_many`."""
        return self._at_one_moment(
            queries, lambda: super(PostgresRetriever, self).search_many(queries, k, filters)
        )

    def explain(self, query: str, k: int, filters: Filters | None = None) -> list[Explanation]:
        """As `RankedRetriever.explain`."""
        return self._at_one_moment([query], lambda: super(PostgresRetriever, self).explain(query, k, filters))

    def _at_one_moment(self, queries: Sequence[str], work: Callable[[], T]) -> T:
        # Before the database is asked: a model elsewhere keeps no connection waiting, and is not asked twice.
        known = _embedded.get({})  # a search of several stages comes here again
        vectors = {q: known[q] if q in known else self._embed(q) for q in queries if analyze(q)}
        token = _embedded.set(vectors)
        try:
            return self.index.together(work)
        finally:
            _embedded.reset(token)

    def _embed(self, query: str) -> NDArray[np.float32]:
        if self.mode == "lexical" or self.embedder is None:
            return np.empty(0, np.float32)
        return self.embedder.embed_query(query)

    def _dense(self, query: str, n: int, filters: Filters | None) -> Sequence[Hit]:
        check_vectors(self.index, self.embedder)  # the corpus may have been made anew since this was opened
        vector = _embedded.get().get(query)
        return [] if vector is None else self.index.dense_hits(vector, n, filters)

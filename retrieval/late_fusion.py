"""Several ways to ask the same thing, searched for as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from retrieval.fusion import fuse_reciprocal_rank
from retrieval.types import Filters, Passage, Retriever


@runtime_checkable
class ManyQueries(Protocol):
    """A retriever that fuses several queries itself."""

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` best passages for all of the queries, best first."""
        ...


def search_many(
    retriever: Retriever, queries: Sequence[str], k: int, filters: Filters | None = None
) -> list[Passage]:
    """The at most `k` best passages for all of the queries: as the retriever fuses them, else by their ranks.

    One query is a search as any other. Raises as `Retriever.search`, and ValueError if there is no query.
    """
    if not queries:
        raise ValueError("there is no query to search for")
    if len(queries) == 1:
        return retriever.search(queries[0], k, filters)
    if isinstance(retriever, ManyQueries):
        return retriever.search_many(queries, k, filters)
    return merge([retriever.search(query, k, filters) for query in queries], k)


def merge(found: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """The at most `k` best of several rankings by their ranks, each counting alike; scores are those of the fusion."""
    passages = {passage.chunk_id: passage for ranking in reversed(found) for passage in ranking}
    rankings = [[(passage.chunk_id, passage.score) for passage in ranking] for ranking in found]
    merged = fuse_reciprocal_rank(rankings, [1.0] * len(rankings))
    return [replace(passages[chunk_id], score=score) for chunk_id, score in merged[:k]]

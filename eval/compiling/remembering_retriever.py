"""Searches of one process, each made once: what changes between candidates is mostly not what is searched for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

from retrieval.late_fusion import search_many
from retrieval.types import Filters, Passage, Retriever

REMEMBERED = 5_000
"""More than the questions of most training sets: one that is larger by one would forget each before it comes again."""

_LOCKS = 64
_Key: TypeAlias = tuple[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class _Search:
    depth: int
    passages: tuple[Passage, ...]

    def covers(self, k: int) -> bool:
        """Whether it shows the first `k`: it went as deep, or found no more."""
        return self.depth >= k or len(self.passages) < self.depth


class RememberingRetriever:
    """A `Retriever` in front of another: a search that was made, as deep or deeper, is not made again.

    A smaller k is the beginning of a larger one. Safe to use from many threads at once: who asks the same at the
    same time waits for the one search. Failures are not remembered.
    """

    def __init__(self, retriever: Retriever, at_most: int = REMEMBERED) -> None:
        """`at_most`: searches remembered; the one that was not used for longest goes first."""
        self._retriever = retriever
        self._at_most = at_most
        self._remembered: OrderedDict[_Key, _Search] = OrderedDict()
        self._lock = Lock()
        self._searching = [Lock() for _ in range(_LOCKS)]
        self._made = 0

    def __deepcopy__(self, memo: Mapping[int, Any]) -> RememberingRetriever:
        """Itself: DSPy's optimizers copy programs, and copies share what they found."""
        return self

    @property
    def searches_made(self) -> int:
        """How many searches the retriever behind was asked for."""
        return self._made

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """As the retriever behind; raises what it raises."""
        return self.search_many([query], k, filters)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As the retriever behind (`retrieval.late_fusion`); raises what it raises."""
        key = (tuple(queries), repr(sorted((filters or {}).items())))
        if (found := self._recall(key, k)) is not None:
            return found
        # Two searches that share a lock wait for one another, which costs less than making one twice.
        with self._searching[hash(key) % _LOCKS]:
            if (found := self._recall(key, k)) is not None:
                return found
            passages = tuple(search_many(self._retriever, queries, k, filters))
            self._remember(key, _Search(k, passages))
        return list(passages)

    def _recall(self, key: _Key, k: int) -> list[Passage] | None:
        with self._lock:
            search = self._remembered.get(key)
            if search is None or k < 1 or not search.covers(k):
                return None
            self._remembered.move_to_end(key)
        return list(search.passages[:k])

    def _remember(self, key: _Key, search: _Search) -> None:
        with self._lock:
            self._made += 1
            self._remembered[key] = search
            self._remembered.move_to_end(key)
            if len(self._remembered) > self._at_most:
                self._remembered.popitem(last=False)

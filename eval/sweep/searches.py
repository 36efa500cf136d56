"""Searches that are made once: what each found, and what its RETRIEVER span showed of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import mlflow

from eval.evidence import retrieved_documents
from eval.observations import RetrievedDocument
from eval.traces import TraceCollector
from program.call_notes import note_calls
from program.content_store import ContentStore, content_key
from retrieval.late_fusion import search_many
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage, Retriever

_KIND = "search"
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, best first, with the evidence for it in the same order, at most `depth` of each.

    `took_ms` is how long the retriever itself took when it was asked.
    """

    depth: int
    took_ms: float
    passages: Sequence[Passage]
    evidence: Sequence[RetrievedDocument]

    def covers(self, k: int) -> bool:
        """Whether it shows the first `k`: it went as deep, or found no more."""
        return self.depth >= k or len(self.passages) < self.depth


_made: ContextVar[list[RetrievedDocument] | None] = ContextVar("citeqa_searches_made", default=None)


@contextmanager
def noting_evidence() -> Iterator[list[RetrievedDocument]]:
    """Within, in this thread and context, what searches show is added to the list that is given."""
    found: list[RetrievedDocument] = []
    token = _made.set(found)
    try:
        yield found
    finally:
        _made.reset(token)


class RecentSearches:
    """The searches that were used last, by key, in memory: configurations that share them come one after another."""

    def __init__(self, at_most: int = _REMEMBERED) -> None:
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._at_most = at_most
        self._lock = Lock()

    def get(self, key: str) -> Search | None:
        """The search, if it is still remembered."""
        with self._lock:
            return self._searches.get(key)

    def put(self, key: str, search: Search) -> None:
        """Remember a search, and forget the one that was not used for longest where there are too many."""
        with self._lock:
            self._searches[key] = search
            self._searches.move_to_end(key)
            if len(self._searches) > self._at_most:
                self._searches.popitem(last=False)


class RecordedRetriever:
    """A `Retriever` that makes each search once, as deep as any configuration will want, and keeps it.

    A smaller k is the beginning of a larger one. Each search is really made under a RETRIEVER span, and what is
    noted as evidence is read from that span, as a run of its own would: once, and not for each configuration.
    """

    def __init__(
        self,
        retriever: Retriever,
        identity: Mapping[str, Any],
        store: ContentStore,
        collector: TraceCollector,
        depth: int,
        recent: RecentSearches | None = None,
    ) -> None:
        """`identity` is everything but query, k and filters that a search depends on."""
        self._retriever = retriever
        self._identity = dict(identity)
        self._store = store
        self._collector = collector
        self._depth = depth
        self._recent = recent or RecentSearches()

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedRetriever:
        """Itself: copies of a program share what they found."""
        return self

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """As the retriever that is recorded; raises what it raises, and keeps nothing of it then."""
        return self.search_many([query], k, filters)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As the retriever that is recorded (`retrieval.late_fusion`).

        Whoever notes calls (`program.call_notes`) is told to count what the search took when it was made, in place
        of what it takes to make and record it, or to find it: else the first configuration would be the slowest.
        """
        started = time.perf_counter()
        key = content_key(self._identity, list(queries), dict(filters or {}))
        search = self._recent.get(key) or self._kept(key)
        if search is None or not search.covers(k):
            search = self._make(queries, max(k, self._depth), filters)
            self._store.put(_KIND, key, _to_json(search))
        self._recent.put(key, search)
        if (noted := _made.get()) is not None:
            noted.extend(search.evidence[:k])
        elapsed_ms = 1000 * (time.perf_counter() - started)
        note_calls(waited_ms=elapsed_ms, replayed_ms=search.took_ms)
        return list(search.passages[:k])

    def _make(self, queries: Sequence[str], depth: int, filters: Filters | None) -> Search:
        timed = _Timed(self._retriever)

        def traced() -> list[Passage]:
            with mlflow.tracing.context(enabled=True):
                return traced_search(timed, queries, depth, filters)

        call = self._collector.call(traced)
        passages = call.value()
        return Search(depth, timed.took_ms, passages, retrieved_documents(*call.traces))

    def _kept(self, key: str) -> Search | None:
        value = self._store.get(_KIND, key)
        return None if value is None else _from_json(value)


class _Timed:
    """A retriever that is asked once, and remembers how long it took."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self.took_ms = 0.0

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return self.search_many([query], k, filters)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        started = time.perf_counter()
        passages = search_many(self._retriever, queries, k, filters)
        self.took_ms = round(1000 * (time.perf_counter() - started), 3)
        return passages


def _to_json(search: Search) -> dict[str, Any]:
    return {
        "depth": search.depth,
        "took_ms": search.took_ms,
        "passages": [asdict(passage) for passage in search.passages],
        "evidence": [[e.doc_uri, e.chunk_id, e.score] for e in search.evidence],
    }


def _from_json(value: Mapping[str, Any]) -> Search:
    return Search(
        value["depth"],
        value["took_ms"],
        [Passage(**{**passage, "headings": tuple(passage["headings"])}) for passage in value["passages"]],
        [RetrievedDocument(*row) for row in value["evidence"]],
    )

"""A search is made once, as deep as any configuration wants it, and shows what a search of its own would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.evidence import retrieved_documents
from eval.sweep.searches import RecentSearches, RecordedRetriever, Search, noting_evidence
from eval.traces import TraceCollector, collect_traces
from program.call_notes import noting_calls
from program.content_store import ContentStore
from retrieval.errors import RetrievalError
from retrieval.local_index import LocalIndex
from retrieval.tracing import traced_search

pytestmark = pytest.mark.usefixtures("mlflow_as_found")

QUERIES = ["At how many degrees does water boil?", "富士山の高さ", "iron and ice", "zzz qqq", "the"]


@pytest.fixture
def index(library: Path) -> LocalIndex:
    return LocalIndex.open(library)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(tmp_path / "stages.db") as opened:
        yield opened


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    with collect_traces() as opened:
        yield opened


@pytest.fixture
def recorded(index: LocalIndex, store: ContentStore, collector: TraceCollector) -> Any:
    """A retriever of a depth that remembers nothing but what is in the store."""

    def make(depth: int = 10, identity: str = "a") -> RecordedRetriever:
        return RecordedRetriever(index, {"index": identity}, store, collector, depth)

    return make


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("filters", [None, {"lang": "en"}, {"lang": "xx"}])
def test_what_is_found_and_shown_is_that_of_a_search_of_ones_own(
    recorded: Any, index: LocalIndex, collector: TraceCollector, query: str, filters: Any
) -> None:
    for k in (1, 3, 10):
        alone = collector.call(lambda k=k: traced_search(index, query, k, filters))
        for retriever in (recorded(), recorded()):
            with noting_evidence() as evidence:
                assert retriever.search(query, k, filters) == alone.value()
            assert evidence == list(retrieved_documents(*alone.traces))


def test_a_smaller_k_is_the_beginning_of_a_larger_one_and_costs_nothing(recorded: Any, searches: Any) -> None:
    found = [[p.chunk_id for p in recorded(depth=5).search("water degrees", k)] for k in (1, 2, 5)]
    assert found[2][:1] == found[0]
    assert found[2][:2] == found[1]
    assert searches == [("water degrees", 5)]


def test_a_larger_k_than_was_foreseen_searches_deeper_once(recorded: Any, searches: Any) -> None:
    recorded(depth=1).search("degrees", 1)
    for _ in range(2):
        assert len(recorded(depth=1).search("degrees", 3)) == 3
    assert searches == [("degrees", 1), ("degrees", 3)]


def test_a_search_that_found_less_than_it_was_asked_for_needs_no_deeper_one(
    recorded: Any, searches: Any
) -> None:
    few = len(recorded(depth=5).search("pendulum", 5))
    assert few < 5
    assert len(recorded(depth=9).search("pendulum", 9)) == few
    assert len(searches) == 1


def test_another_query_filter_or_index_is_another_search(recorded: Any, searches: Any) -> None:
    recorded().search("water", 3)
    recorded().search("water ", 3)
    recorded().search("water", 3, {"lang": "en"})
    recorded(identity="b").search("water", 3)
    recorded().search("water", 3, {})
    assert len(searches) == 4, "no filter is no filter, however it is said"


def test_a_damaged_search_is_made_again(recorded: Any, store: ContentStore, searches: Any) -> None:
    first = recorded().search("water", 3)
    store._connection.execute("UPDATE contents SET value = substr(value, 2)")
    assert recorded().search("water", 3) == first
    assert store.damaged == 1
    assert recorded().search("water", 3) == first
    assert len(searches) == 2


def test_a_search_that_fails_is_raised_and_not_kept(
    recorded: Any, searches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RetrievalError("The index is away.")

    with monkeypatch.context() as broken:
        broken.setattr(LocalIndex, "search", refuse)
        with pytest.raises(RetrievalError, match="away"):
            recorded().search("water", 3)
    assert recorded().search("water", 3)


def test_evidence_is_noted_for_the_question_that_searches_and_for_no_other(recorded: Any) -> None:
    retriever = recorded()
    seen: dict[str, list[Any]] = {}
    barrier = threading.Barrier(2)

    def ask(query: str) -> None:
        with noting_evidence() as evidence:
            barrier.wait()
            for _ in range(20):
                retriever.search(query, 1)
        seen[query] = [(e.doc_uri) for e in evidence]

    threads = [threading.Thread(target=ask, args=(query,)) for query in ("bread", "clocks pendulum")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen["bread"]) == {"https://library.example/bread"}
    assert set(seen["clocks pendulum"]) == {"https://library.example/clocks"}
    assert [len(documents) for documents in seen.values()] == [20, 20]


def test_a_search_that_is_found_counts_as_long_as_it_took_when_it_was_made(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_search = LocalIndex.search

    def slowly(self: LocalIndex, *asked: Any) -> Any:
        threading.Event().wait(0.05)
        return really_search(self, *asked)

    monkeypatch.setattr(LocalIndex, "search", slowly)
    took = []
    for _ in range(2):
        with noting_calls() as noted:
            recorded().search("water", 3)
        took.append(noted.would_take_ms(noted.waited_ms))
    assert took[0] == took[1] >= 50


def test_memory_forgets_what_was_not_used_for_longest() -> None:
    recent = RecentSearches(at_most=2)
    for key in ("a", "b", "c"):
        recent.put(key, Search(1, 0.0, [], []))
    assert recent.get("a") is None
    assert recent.get("b") is not None
    assert recent.get("c") is not None


def test_agents_that_share_their_memory_read_no_search_twice(
    index: LocalIndex, store: ContentStore, collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = RecentSearches()
    first = RecordedRetriever(index, {}, store, collector, 5, recent).search("water", 5)
    monkeypatch.setattr(store, "get", lambda *_: pytest.fail("it was remembered"))
    assert RecordedRetriever(index, {}, store, collector, 5, recent).search("water", 3) == first[:3]

"""Searches are made once, as deep as anybody asked, whoever asks and however many at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.compiling.remembering_retriever import RememberingRetriever
from program.extractive import ExtractiveReader
from program.qa import CitedQA
from retrieval.errors import FilterError
from retrieval.local_index import LocalIndex
from retrieval.types import Filters, Passage


class Numbered:
    """Finds as many passages as there are in all, numbered, and counts how often it is asked."""

    def __init__(self, there_are: int) -> None:
        self.there_are = there_are
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        self.asked += 1
        self.may_answer.wait(5)
        return [Passage(f"c{n}", f"d{n}", query) for n in range(min(k, self.there_are))]


@pytest.fixture
def index(library: Path) -> LocalIndex:
    return LocalIndex.open(library)


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 15)), min_size=1))
def test_it_finds_what_the_retriever_behind_finds_and_asks_it_only_to_go_deeper(
    there_are: int, searches: list[tuple[str, int]]
) -> None:
    behind, plain = Numbered(there_are), Numbered(there_are)
    remembering = RememberingRetriever(behind)
    known: dict[str, int] = {}
    for query, k in searches:
        assert remembering.search(query, k) == plain.search(query, k)
        if query not in known or (k > known[query] and known[query] <= there_are):
            known[query] = k
    assert remembering.searches_made == behind.asked
    again = [remembering.search(query, k) for query, k in searches]
    assert again == [plain.search(query, k) for query, k in searches]
    # Deeper than everything that there is, nobody looks twice.
    assert behind.asked == remembering.searches_made <= len(searches)


def test_a_deeper_search_serves_every_shallower_one(index: LocalIndex) -> None:
    remembering = RememberingRetriever(index)
    deep = remembering.search("water boils at degrees", 4)
    assert (
        remembering.search("water boils at degrees", 2)
        == deep[:2]
        == index.search("water boils at degrees", 2)
    )
    assert remembering.searches_made == 1
    assert len(remembering.search("water boils at degrees", 1)) == 1


def test_filters_make_another_search(index: LocalIndex) -> None:
    remembering = RememberingRetriever(index)
    assert remembering.search("水 water", 5, {"lang": "ja"}) == []
    assert remembering.search("水 water", 5, {"lang": "en"})
    assert remembering.search("水 water", 5) == remembering.search("水 water", 5, {})
    assert remembering.searches_made == 3


def test_a_caller_may_change_the_list_that_it_got(index: LocalIndex) -> None:
    remembering = RememberingRetriever(index)
    remembering.search("water boils", 3).clear()
    assert remembering.search("water boils", 3)


def test_what_fails_is_not_remembered_and_fails_as_it_did(index: LocalIndex) -> None:
    remembering = RememberingRetriever(index)
    for _ in range(2):
        with pytest.raises(FilterError):
            remembering.search("water", 3, {"lang ~": "en"})
    remembering.search("water", 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        remembering.search("water", 0)


def test_the_search_that_was_not_used_for_longest_is_forgotten_first() -> None:
    behind = Numbered(3)
    remembering = RememberingRetriever(behind, at_most=2)
    for query in ("a", "b", "a", "c", "a"):
        remembering.search(query, 3)
    assert behind.asked == 3
    remembering.search("b", 3)
    assert behind.asked == 4


def test_many_threads_that_ask_the_same_make_one_search() -> None:
    behind = Numbered(5)
    behind.may_answer.clear()
    remembering = RememberingRetriever(behind)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(remembering.search, "same", 3) for _ in range(8)]
        behind.may_answer.set()
        assert all(len(future.result()) == 3 for future in found)
    assert behind.asked == 1


def test_copies_of_a_program_share_what_was_found(index: LocalIndex) -> None:
    program = CitedQA(index, ExtractiveReader(), k=2)
    program.retriever = remembering = RememberingRetriever(index)
    copies = [program.deepcopy(), deepcopy(program), program.reset_copy()]
    with mlflow.tracing.context(enabled=False):
        answers = {copy(question="Why does bread rise?").answer for copy in copies}
    assert remembering.searches_made == 1
    assert len(answers) == 1

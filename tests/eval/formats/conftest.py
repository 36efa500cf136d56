"""Any questions that there can be, and places to write them to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eval.ground_truth import GoldItem, GroundTruth, Question

Questions: TypeAlias = SearchStrategy[list[Question]]

SAMPLES = [
    *("富士山の高さは？", "全角　空白", "👩\u200d🚀 où?", "a|b\n[c", '"quoted", \\'),
    *("<b> & </top>", "Number: 5", "\r\n\t x"),
]


@pytest.fixture(scope="session")
def any_text() -> SearchStrategy[str]:
    """Any text but an empty one: both languages, emoji, control characters, half an emoji."""
    return st.one_of(st.sampled_from(SAMPLES), st.text(st.characters(codec=None), min_size=1, max_size=8))


@pytest.fixture(scope="session")
def any_name() -> SearchStrategy[str]:
    """An id or doc_uri without white space, as files of lines and cells need it."""
    plain = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
    return st.one_of(st.sampled_from(["https://d.example/a?b=1#c", "文書/1", "d|1"]), plain)


@pytest.fixture(scope="session")
def make_questions(any_text: SearchStrategy[str]) -> Callable[..., Questions]:
    """Lists of questions with distinct ids and words; names (ids, URIs) are drawn from the given strategy."""

    def make(names: SearchStrategy[str], texts: SearchStrategy[str] = any_text) -> Questions:
        spoken = texts.filter(lambda text: bool(text.strip()))
        turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})
        tags = st.dictionaries(
            st.sampled_from(["type", "lang", "split", "team"]), st.sampled_from(["a", "b", "開発"])
        )
        question = st.builds(
            Question,
            id=names,
            question=spoken,
            gold=gold(names),
            expected_facts=st.lists(texts, max_size=2).map(tuple),
            expected_response=st.one_of(st.just(""), texts),
            accepted_answers=st.lists(texts, max_size=2).map(tuple),
            tags=tags,
            history=st.lists(turns, max_size=2).map(tuple),
        )
        keys = (lambda question: question.id, lambda question: words(question.question))
        return st.lists(question, min_size=1, max_size=4, unique_by=keys)

    return make


def words(text: str) -> str:
    """What two questions of one set may not share."""
    return " ".join(text.casefold().split())


def gold(names: SearchStrategy[str]) -> SearchStrategy[Any]:
    """Gold that does not contradict itself: alternatives are disjoint and of one grade."""

    def grouped(uris: list[str], sizes: list[int], grades: list[int], chunk_id: str | None) -> Any:
        groups = []
        for size, grade in zip(sizes, grades, strict=True):
            taken, uris = uris[:size], uris[size:]
            if taken:
                groups.append(tuple(GoldItem(uri, grade, chunk_id) for uri in taken))
        return tuple(groups)

    return st.builds(
        grouped,
        st.lists(names, max_size=4, unique=True),
        st.lists(st.integers(1, 2), min_size=3, max_size=3),
        st.lists(st.sampled_from([1, 1, 0, 2]), min_size=3, max_size=3),
        st.sampled_from([None, None, "c1"]),
    )


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what one example of a property writes and reads at once."""
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="session")
def truth_of() -> Callable[..., GroundTruth]:
    def make(*questions: Question) -> GroundTruth:
        return GroundTruth("set", Path("set"), questions)

    return make


@pytest.fixture(scope="session")
def lasting_store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a tracking store for many examples."""
    copy = tmp_path_factory.mktemp("lasting") / "mlflow.db"
    shutil.copy(empty_store, copy)
    return f"sqlite:///{copy}"

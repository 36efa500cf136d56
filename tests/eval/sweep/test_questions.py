"""Which questions choose and which report: never the same ones, and the same ones every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.ground_truth import GroundTruth
from eval.questions import Question
from eval.sweep.questions import order_of_asking, read_questions
from eval.sweep.specification import SweepSpecification
from program.settings import Settings
from retrieval.errors import ConfigurationError, GroundTruthError

Read = Callable[..., tuple[GroundTruth, GroundTruth | None]]


class Sweeps(Protocol):
    def specify(self, **keys: Any) -> SweepSpecification: ...


@pytest.fixture
def read(sweeps: Sweeps, tmp_path: Path) -> Read:
    """The questions of a sweep over rows of (id, split)."""

    def read(rows: list[tuple[str, str]], limit: int | None = None, **keys: Any) -> Any:
        file = tmp_path / "set.jsonl"
        lines = [
            {
                "id": id_,
                "inputs": {"question": f"What is {id_}{n}?"},
                "expected_retrieved_context": [],
                "tags": {"split": split},
            }
            for n, (id_, split) in enumerate(rows)
        ]
        file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        settings = Settings.model_validate({"evaluation": {"dataset": str(file), "limit": limit}})
        return read_questions(sweeps.specify(**keys), settings)

    return read


def ids(questions: GroundTruth | None) -> list[str]:
    assert questions is not None
    return [question.id for question in questions.questions]


SPLIT = [("a", "dev"), ("b", "dev"), ("c", "test"), ("d", "dev"), ("e", "test")]
MANY = [(f"q{n}", "dev") for n in range(200)]


def test_one_split_chooses_and_another_reports(read: Read) -> None:
    chosen_on, reported_on = read(SPLIT, select_on="dev", report_on="test")
    assert (ids(chosen_on), ids(reported_on)) == (["a", "b", "d"], ["c", "e"])


def test_a_sweep_may_report_on_nothing(read: Read) -> None:
    chosen_on, reported_on = read(SPLIT, select_on=None, report_on=None)
    assert (ids(chosen_on), reported_on) == (["a", "b", "c", "d", "e"], None)


def test_the_split_that_chooses_cannot_report(read: Read) -> None:
    with pytest.raises(ConfigurationError, match=r"report_on: 'dev' is what the winner is chosen on"):
        read(SPLIT, select_on="dev", report_on="dev")


def test_a_question_that_would_choose_and_report_is_named(read: Read) -> None:
    with pytest.raises(GroundTruthError, match=r"2 questions are in 'all splits' and in 'test', 'c' for one"):
        read(SPLIT, select_on=None, report_on="test")


def test_a_split_that_is_not_there_is_told_with_those_that_are(read: Read) -> None:
    with pytest.raises(GroundTruthError, match="tset"):
        read(SPLIT, select_on="dev", report_on="tset")


def test_a_share_is_held_out_the_same_each_time_and_wholly(read: Read) -> None:
    kept, held = read(MANY, select_on="dev", holdout=0.3)
    assert (kept, held) == read(MANY, select_on="dev", holdout=0.3)
    assert sorted([*ids(kept), *ids(held)]) == sorted(id_ for id_, _ in MANY)
    assert 40 <= len(ids(held)) <= 80
    assert held is not None
    assert kept.digest != held.digest


def test_further_questions_move_none_to_the_other_side(read: Read) -> None:
    _, before = read(MANY[:100], select_on="dev", holdout=0.3)
    _, after = read(MANY, select_on="dev", holdout=0.3)
    assert set(ids(before)) == set(ids(after)) & {id_ for id_, _ in MANY[:100]}


def test_another_seed_holds_out_others(read: Read) -> None:
    held = [
        ids(read(MANY, select_on="dev", holdout=0.3, search={"method": "grid", "seed": seed})[1])
        for seed in (0, 1)
    ]
    assert held[0] != held[1]


def test_a_share_that_leaves_one_side_empty_is_refused(read: Read) -> None:
    with pytest.raises(
        ConfigurationError, match=r"holdout = 0\.5 of 1 questions leaves one side without any"
    ):
        read(MANY[:1], select_on="dev", holdout=0.5)


def test_a_limit_holds_for_both_sides(read: Read) -> None:
    chosen_on, reported_on = read(SPLIT, limit=1, select_on="dev", report_on="test")
    assert (ids(chosen_on), ids(reported_on)) == (["a"], ["c"])


@given(st.lists(st.text(min_size=1), unique=True), st.integers(0, 5))
def test_the_order_of_asking_is_a_permutation_that_depends_on_the_seed_alone(
    names: list[str], seed: int
) -> None:
    questions = [Question(id_, "why?", ()) for id_ in names]
    order = order_of_asking(questions, seed)
    assert sorted(q.id for q in order) == sorted(names)
    assert order == order_of_asking(questions, seed)

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.questions import GoldItem, Question
from eval.stats import Interval, bootstrap_mean
from eval.summary import aggregate

GOLD = ((GoldItem("a"),),)


def ask(id_: str, **tags: str) -> Question:
    return Question(id_, f"question {id_}", GOLD, tags=tags)


def test_means_are_over_the_questions_that_a_metric_applies_to() -> None:
    questions = [ask(id_) for id_ in "abcd"]
    scores = {
        "a": {"mrr": 1.0, "token_f1": None, "never": None},
        "b": {"mrr": 0.0, "token_f1": 0.5, "never": None},
        "c": {"mrr": 0.5, "token_f1": None, "never": None},
        "d": {},
    }
    overall = aggregate(scores, questions).overall
    assert (overall.scored, overall.unscored) == (3, 1)
    assert overall.intervals["mrr"].mean == pytest.approx(0.5)
    assert overall.intervals["mrr"].n == 3
    assert overall.intervals["token_f1"] == Interval(0.5, 0.5, 0.5, 1)
    assert overall.not_applicable == {"mrr": 0, "token_f1": 2, "never": 3}
    assert list(overall.intervals) == ["mrr", "token_f1"]


def test_a_failed_question_moves_no_mean_and_is_counted_in_its_slice() -> None:
    questions = [ask("a", lang="en"), ask("b", lang="ja"), ask("c", lang="ja")]
    summary = aggregate({"a": {"mrr": 1.0}, "b": {"mrr": 1.0}}, questions)
    assert summary.overall.intervals["mrr"].mean == 1.0
    japanese = summary.slices["lang"]["ja"]
    assert (japanese.scored, japanese.unscored, japanese.intervals["mrr"].n) == (1, 1, 1)


def test_slices_are_by_tag_and_value_and_name_what_has_no_tag() -> None:
    questions = [ask("a", lang="ja", type="fact"), ask("b", lang="en"), ask("c")]
    scores = {id_: {"mrr": value} for id_, value in zip("abc", (0.0, 0.5, 1.0), strict=True)}
    slices = aggregate(scores, questions, by=("lang", "type", "split")).slices
    assert {tag: list(values) for tag, values in slices.items()} == {
        "lang": ["(no lang)", "en", "ja"],
        "type": ["(no type)", "fact"],
    }
    assert slices["lang"]["en"].intervals["mrr"].mean == 0.5


def test_when_every_question_failed_there_is_no_interval_but_a_count() -> None:
    summary = aggregate({"a": {}}, [ask("a"), ask("b")])
    assert (summary.overall.intervals, summary.overall.scored, summary.overall.unscored) == ({}, 0, 2)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12))
def test_each_interval_is_the_bootstrap_of_its_own_values(values: list[float | None]) -> None:
    questions = [ask(str(i)) for i in range(len(values))]
    scores = {str(i): {"other": 1.0, "m": value} for i, value in enumerate(values)}
    found = aggregate(scores, questions, resamples=200).overall.intervals.get("m")
    expected = bootstrap_mean([value for value in values if value is not None], resamples=200)
    if found is None or expected is None:
        assert found is expected
        return
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-12
    )
    assert found.n == expected.n == len(values) - values.count(None)
    assert not math.isnan(found.mean)


def test_confidence_and_seed_are_passed_on() -> None:
    scores = {str(i): {"m": i / 20} for i in range(20)}
    questions = [ask(str(i)) for i in range(20)]
    narrow = aggregate(scores, questions, confidence=0.5).overall.intervals["m"]
    wide = aggregate(scores, questions).overall.intervals["m"]
    assert wide.low < narrow.low < narrow.high < wide.high
    assert aggregate(scores, questions, seed=1).overall.intervals["m"] != wide

"""Several metrics as one value: what it is of a question, and which weights make sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.mixes import parse_mix
from retrieval.errors import ConfigurationError

SHARES = ("recall@5", "citation_precision", "fact_recall", "abstention_accuracy")


def test_a_mix_is_the_weighted_mean_of_the_metrics_that_apply() -> None:
    mix = parse_mix("quality", {"fact_recall": 3, "citation_precision": 1})
    assert mix.value({"fact_recall": 1.0, "citation_precision": 0.0}) == 0.75
    assert mix.value({"fact_recall": None, "citation_precision": 0.5}) == 0.5


def test_a_question_to_which_nothing_applies_has_no_value() -> None:
    mix = parse_mix("quality", {"fact_recall": 1})
    assert mix.value({"fact_recall": None}) is None
    assert mix.value({}) is None


def test_mistakes_count_against_the_rest() -> None:
    mix = parse_mix("quality", {"fact_recall": 1, "dropped_markers": -1})
    assert mix.value({"fact_recall": 1.0, "dropped_markers": 1.0}) == 0.0


@given(st.dictionaries(st.sampled_from(SHARES), st.floats(0.1, 10), min_size=1), st.data())
def test_a_mix_of_shares_lies_between_the_least_and_the_greatest_of_them(
    weights: dict[str, float], data: st.DataObject
) -> None:
    row = {name: data.draw(st.none() | st.floats(0, 1)) for name in weights}
    value = parse_mix("quality", weights).value(row)
    there = [part for part in row.values() if part is not None]
    assert (value is None) == (not there)
    if value is not None:
        assert min(there) - 1e-9 <= value <= max(there) + 1e-9


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "at least one metric"),
        ({"fact_recal": 1}, "Did you mean 'fact_recall'"),
        ({"fact_recall": 0}, "is 0"),
        ({"fact_recall": -1}, "more is better, so its weight must be positive"),
        ({"latency_ms": 1}, "less is better, so its weight must be negative"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_mix("quality", weights)

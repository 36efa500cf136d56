"""Who is best: rankings, the Pareto front, paired differences, and what each factor does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.paired import compare_paired
from eval.summary import Slice, Summary
from eval.sweep.results import NOTHING, Objective, Spending, Trial, add, total
from eval.sweep.selection import column, compare_with, factor_effects, rank
from eval.sweep.trials import ScoredTrial

MakeTrial = Callable[..., Trial]
QUALITY, COST = Objective("fact_recall"), Objective("usd", minimize=True)
BOTH = (QUALITY, COST)


def bare_trial(number: int, values: Sequence[float | None], state: Any = "complete") -> Trial:
    objectives = dict(zip(("fact_recall", "usd"), values, strict=True))
    summary = Summary(Slice({}, 1, 0, {}), {})
    return Trial(number, {"retrieval.k": number}, state, "", Path("x"), objectives, summary, NOTHING)


def test_one_objective_ranks_by_its_mean(make_trial: MakeTrial) -> None:
    trials = [make_trial(n, fact_recall=value) for n, value in enumerate([0.5, 0.9, 0.7], start=1)]
    assert rank(trials, [QUALITY]) == ([2, 3, 1], [2])


def test_what_is_made_small_ranks_the_other_way() -> None:
    trials = [bare_trial(n, (0.1, usd)) for n, usd in enumerate([0.5, 0.9, 0.7], start=1)]
    assert rank(trials, [COST])[0] == [1, 3, 2]


def test_of_equals_the_cheaper_is_first_then_the_one_tried_first(make_trial: MakeTrial) -> None:
    costs = [0.5, None, 0.2, 0.2]
    trials = [make_trial(n, usd=usd, fact_recall=0.5) for n, usd in enumerate(costs, start=1)]
    assert rank(trials, [QUALITY])[0] == [3, 4, 1, 2], "an unknown price is not a low one"


def test_only_complete_trials_are_ranked(make_trial: MakeTrial) -> None:
    trials = [
        make_trial(1, "stopped", fact_recall=0.9),
        make_trial(2, fact_recall=0.1),
        make_trial(3, "failed", fact_recall=None),
    ]
    assert rank(trials, [QUALITY]) == ([2], [2])
    assert rank([], [QUALITY]) == ([], [])


def test_the_front_is_what_nobody_beats_in_everything() -> None:
    points = [(0.9, 5.0), (0.8, 1.0), (0.7, 2.0), (0.95, 9.0), (0.8, 1.0), (0.2, 0.5)]
    order, front = rank([bare_trial(n, point) for n, point in enumerate(points, start=1)], BOTH)
    assert front == [4, 1, 2, 5, 6], "3 costs more than 2 and is worse"
    assert order == [4, 1, 2, 5, 6, 3]


def test_without_a_value_for_some_objective_a_trial_is_last_and_on_no_front() -> None:
    points = [(0.99, None), (0.5, 1.0), (0.4, 2.0), (None, 0.1)]
    order, front = rank([bare_trial(n, point) for n, point in enumerate(points, start=1)], BOTH)
    assert (order, front) == ([2, 3, 1, 4], [2])


POINTS = st.lists(
    st.tuples(*[st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]))] * 2), max_size=12
)


@given(POINTS)
def test_the_front_is_exactly_the_trials_that_no_other_dominates(points: list[tuple[Any, Any]]) -> None:
    trials = [bare_trial(n, point) for n, point in enumerate(points, start=1)]
    order, front = rank(trials, BOTH)

    def dominates(a: Trial, b: Trial) -> bool:
        (qa, ca), (qb, cb) = a.objectives.values(), b.objectives.values()
        assert None not in (qa, ca, qb, cb)
        return qa >= qb and ca <= cb and (qa, ca) != (qb, cb)  # type: ignore[operator]

    whole = [trial for trial in trials if None not in trial.objectives.values()]
    expected = {t.number for t in whole if not any(dominates(other, t) for other in whole)}
    assert set(front) == expected
    assert order[: len(front)] == front
    assert sorted(order) == [trial.number for trial in trials]


@given(POINTS, st.randoms())
def test_the_order_in_which_trials_come_changes_no_ranking(
    points: list[tuple[Any, Any]], chance: Any
) -> None:
    trials = [bare_trial(n, point) for n, point in enumerate(points, start=1)]
    shuffled = chance.sample(trials, len(trials))
    for objectives in (BOTH, BOTH[:1], BOTH[1:]):
        assert rank(shuffled, objectives) == rank(trials, objectives)


# Paired differences


def scored(number: int, values: dict[str, float], state: Any = "complete") -> ScoredTrial:
    return ScoredTrial(bare_trial(number, (0.5, 0.0), state), values)


def test_each_complete_trial_is_compared_on_the_questions_that_both_have() -> None:
    ids = [f"q{n}" for n in range(10)]
    reference = scored(1, dict.fromkeys(ids, 0.0))
    better = scored(2, dict.fromkeys(ids[:8], 1.0))
    others = [reference, better, scored(3, dict.fromkeys(ids, 0.0)), scored(4, {ids[0]: 1.0}, "stopped")]
    compared = compare_with(reference, others, ids, QUALITY)
    assert list(compared) == [2, 3]
    assert (compared[2].n, compared[2].difference.mean, compared[2].wins) == (8, 1.0, 8)
    assert compared[2].p_adjusted == pytest.approx(2 * compared[2].p_value), "Holm: two were compared"
    alone = compare_paired("fact_recall", column(reference, ids), column(better, ids))
    assert alone is not None
    assert compared[2].p_value == alone.p_value


def test_a_question_without_a_value_is_no_zero() -> None:
    assert np.isnan(column(scored(1, {"a": 1.0}), ["a", "b"])[1])


# Effects


def test_a_factor_that_decides_everything_explains_all_and_another_nothing() -> None:
    trials = []
    for k in (3, 10):
        for kind in ("b", "a"):
            parameters = {"retrieval.k": k, "reader.kind": kind}
            trials.append(replace(bare_trial(len(trials) + 1, (k / 10, 0.0)), parameters=parameters))
    effects = {e.factor: e for e in factor_effects(trials, ["retrieval.k", "reader.kind"], QUALITY)}
    assert effects["retrieval.k"].share == pytest.approx(1)
    assert effects["reader.kind"].share == pytest.approx(0)
    assert dict(effects["retrieval.k"].means) == {"3": (pytest.approx(0.3), 2), "10": (pytest.approx(1.0), 2)}
    assert list(effects["retrieval.k"].means) == ["3", "10"], "numbers by size, not as text"
    assert list(effects["reader.kind"].means) == ["a", "b"]


def effect_of(trials: list[tuple[int, float]]) -> float | None:
    """What `retrieval.k` explains of trials that are its value and a score."""
    made = [
        replace(bare_trial(n, (score, 0.0)), parameters={"retrieval.k": k})
        for n, (k, score) in enumerate(trials, 1)
    ]
    return factor_effects(made, ["retrieval.k"], QUALITY)[0].share


def test_values_that_were_tried_once_explain_nothing_and_equal_scores_have_nothing_to_explain() -> None:
    assert effect_of([(1, 0.1), (2, 0.9)]) is None
    assert effect_of([(1, 0.1), (2, 0.9), (3, 0.5)]) is None
    assert effect_of([(1, 0.5), (1, 0.5), (2, 0.5), (2, 0.5)]) == 0
    assert effect_of([(1, 0.0), (1, 0.2), (2, 0.8), (2, 1.0)]) == pytest.approx(0.64 / 0.68)
    assert factor_effects([], ["retrieval.k"], QUALITY)[0].means == {}


@given(st.lists(st.tuples(st.sampled_from([1, "a", None, True]), st.floats(0, 1)), max_size=10))
def test_a_share_is_a_share(values: list[tuple[Any, float]]) -> None:
    trials = []
    for value, score in values:
        trials.append(replace(bare_trial(len(trials) + 1, (score, 0.0)), parameters={"x": value}))
    (effect,) = factor_effects(trials, ["x"], QUALITY)
    assert effect.share is None or 0 <= effect.share <= 1
    assert sum(count for _, count in effect.means.values()) == len(values)


# Sums


@given(st.lists(st.builds(Spending, st.none() | st.integers(0, 9), *[st.integers(0, 99)] * 3)))
def test_a_sum_of_costs_is_unknown_where_one_is(spendings: list[Spending]) -> None:
    whole = total(spendings)
    assert (whole.usd is None) == any(spending.usd is None for spending in spendings)
    assert whole.calls == sum(spending.calls for spending in spendings)
    assert add(whole, NOTHING) == whole

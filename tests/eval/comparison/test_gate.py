"""The gate closes on a certain fall, says when it could not have seen one, and is seldom wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.comparison.comparison import compare_runs
from eval.comparison.gate import Check, Gate, bound_gain, check_gate
from eval.comparison.margins import parse_margins
from eval.scored_runs import ScoredRun
from eval.stats import bootstrap_mean
from retrieval.errors import ConfigurationError, DataError

MakeRun = Callable[..., ScoredRun]
Values = NDArray[np.float64]


@pytest.fixture
def gate(make_run: MakeRun) -> Callable[..., Gate]:
    """The gate of two runs with these values of one metric."""

    def check(metric: str, a: Any, b: Any, margin: float = 0.0, **options: Any) -> Gate:
        runs = make_run("a", **{metric: a}), make_run("b", **{metric: b})
        return check_gate(
            compare_runs(*runs), {metric.replace("_at_", "@"): margin} if margin else {}, **options
        )

    return check


def only(gate: Gate) -> Check:
    (check,) = gate.checks
    return check


def shares(n: int, right: int) -> Values:
    return (np.arange(n) < right).astype(float)


GateOf = Callable[..., Gate]


def test_a_certain_fall_beyond_the_margin_closes_the_gate(gate: GateOf) -> None:
    closed = gate("recall_at_5", shares(200, 180), shares(200, 120), 0.02)
    check = only(closed)
    assert (check.outcome, closed.passed, closed.why(check)) == ("fell", False, "fell")
    assert check.change == pytest.approx(-0.3)
    assert check.high < -0.02
    assert check.sentence.startswith(
        "recall@5 fell by 0.300, and with the stated confidence by more than 0.2"
    )
    assert "0.020 is tolerated" in check.sentence


def test_a_fall_within_the_margin_is_tolerated(gate: GateOf) -> None:
    assert gate("recall_at_5", shares(200, 180), shares(200, 160)).passed is False
    assert gate("recall_at_5", shares(200, 180), shares(200, 160), 0.2).passed is True


def test_where_lower_is_better_a_rise_is_a_fall(gate: GateOf) -> None:
    rng = np.random.default_rng(1)
    fast = rng.gamma(2.0, 10.0, 100)
    slower, faster = gate("latency_ms", fast, fast + 30.0, 5.0), gate("latency_ms", fast, fast - 5.0, 5.0)
    assert only(slower).outcome == "fell"
    assert "latency_ms rose by 30.0" in only(slower).sentence
    assert only(faster).outcome == "held"
    assert "that it rose by more than 5.0 is ruled out" in only(faster).sentence


def test_the_bounds_are_the_ends_of_the_paired_bootstrap_interval(gate: GateOf) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 80))
    check = only(gate("mrr", a, b, 0.01, confidence=0.9))
    interval = bootstrap_mean((b - a).tolist(), confidence=0.8)
    assert interval is not None
    assert (check.low, check.high) == (interval.low, interval.high)


def test_three_lost_questions_of_twenty_are_no_certain_fall(gate: GateOf) -> None:
    check = only(gate("hit_at_5", shares(20, 20), shares(20, 17)))
    assert check.high < 0, "the bootstrap alone would close the gate"
    assert check.p_value == pytest.approx(1 / 8)
    assert check.outcome == "not ruled out"


def test_a_set_too_small_for_the_margin_says_so_and_may_be_required_not_to_be(gate: GateOf) -> None:
    a = shares(60, 50)
    b = np.roll(a, 5)
    open_, closed = gate("recall_at_5", a, b, 0.02), gate("recall_at_5", a, b, 0.02, require_power=True)
    check = only(open_)
    assert open_.passed
    assert check.outcome == "not ruled out"
    assert check.detectable > 0.02
    assert not check.powered
    assert "60 questions show a change of" in check.sentence
    assert "too few for such a margin" in check.sentence
    assert not closed.passed
    assert closed.why(only(closed)) == "too few questions to see such a fall"


def test_a_large_set_that_holds_passes_with_power(gate: GateOf) -> None:
    a = shares(10_000, 9_000)
    passed = gate("recall_at_5", a, np.roll(a, 30), 0.02, require_power=True)
    assert passed.passed
    assert only(passed).outcome == "held"
    assert only(passed).powered


@pytest.mark.parametrize(("n", "powered"), [(100, False), (1000, True)])
def test_no_difference_at_all_proves_as_much_as_there_are_questions(
    gate: GateOf, n: int, powered: bool
) -> None:
    a = shares(n, n // 2)
    check = only(gate("recall_at_5", a, a, 0.02))
    assert check.powered is powered
    assert check.outcome == ("held" if powered else "not ruled out")
    assert check.detectable == pytest.approx(7.85 / n)


def test_a_candidate_that_leaves_questions_unanswered_does_not_pass_on_the_rest(make_run: MakeRun) -> None:
    a = make_run("a", mrr=[0.5] * 20)
    values = [0.5] * 10 + [None] * 10
    b = replace(make_run("b", mrr=values), unscored={f"q{i}": "out" for i in range(10, 20)})
    gate = check_gate(compare_runs(a, b), {})
    assert not gate.passed
    assert (gate.coverage.expected, gate.coverage.compared) == (20, 10)
    assert "for 10 of the baseline's 20 scored questions; 50.0 % are missing" in gate.coverage.sentence
    assert check_gate(compare_runs(a, b), {}, max_missing=0.5).passed
    fewer = make_run("c", [f"q{i}" for i in range(10)], mrr=[0.5] * 10)
    assert not check_gate(compare_runs(a, fewer), {}).passed


def test_without_margins_the_headline_metrics_are_checked(make_run: MakeRun) -> None:
    a = make_run("a", recall_at_5=[1, 1], fact_recall=[1, 1], usd=[1, 1])
    assert [check.metric for check in check_gate(compare_runs(a, a), {}).checks] == [
        "recall@5",
        "fact_recall",
    ]


def closes(gains: Values, margin: float) -> bool:
    """As the gate decides, without the rest of the comparison."""
    _, high, p_value = bound_gain(gains, margin, 0.95)
    return high < -margin and p_value <= 0.05


@pytest.mark.parametrize("n", [20, 60, 160])
@pytest.mark.parametrize("kind", ["binary", "skewed"])
def test_false_alarms_are_no_more_than_the_confidence_allows(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    runs, alarms = 200, 0
    for _ in range(runs):
        a, b = (rng.random((2, n)) < 0.8).astype(float) if kind == "binary" else rng.beta(0.3, 0.2, (2, n))
        alarms += closes(b - a, 0.0)
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert alarms


def test_a_true_fall_of_the_margin_alone_is_seldom_called_more_than_the_margin() -> None:
    rng = np.random.default_rng(3)
    runs = 200
    alarms = sum(closes(rng.normal(-0.05, 0.2, 100), 0.05) for _ in range(runs))
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("margins", "options", "told"),
    [
        ({"mrr": -0.1}, {}, "--max-drop mrr=-0.1: the margin is how much may be lost"),
        ({"mrr": math.nan}, {}, "--max-drop mrr=nan"),
        ({"mrr": math.inf}, {}, "--max-drop mrr=inf"),
        ({"mrr": 0.1}, {"confidence": 95}, "--confidence 95: must lie between 0.5 and 1"),
        ({"mrr": 0.0}, {"require_power": True}, "--require-power needs --max-drop with a margin above 0"),
        ({}, {"require_power": True}, "--require-power needs --max-drop with a margin above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    make_run: MakeRun, margins: Mapping[str, float], options: dict[str, Any], told: str
) -> None:
    a = make_run("a", mrr=[1, 0])
    with pytest.raises(ConfigurationError) as raised:
        check_gate(compare_runs(a, a), margins, **options)
    assert str(raised.value).startswith(told)


def test_a_metric_without_any_value_in_common_cannot_pass(make_run: MakeRun) -> None:
    a, b = make_run("a", mrr=[1, None]), make_run("b", mrr=[None, 1])
    with pytest.raises(DataError, match="mrr: no question has a value in both runs"):
        check_gate(compare_runs(a, b, ["mrr"]), {"mrr": 0.1})
    with pytest.raises(DataError, match="nothing to check"):
        check_gate(compare_runs(a, b), {})


def test_margins_are_read_as_they_are_written() -> None:
    assert parse_margins(["recall@5=0.02", " latency_ms = 50 ", "a=b=0.1"]) == {
        "recall@5": 0.02,
        "latency_ms": 50.0,
        "a=b": 0.1,
    }


@pytest.mark.parametrize(
    ("drops", "told"),
    [
        (["recall@5"], "--max-drop recall@5: write it as metric=margin, for example recall@5=0.02"),
        (["=0.1"], "--max-drop =0.1: write it as"),
        (["mrr=little"], "--max-drop mrr=little: 'little' is no number"),
        (["mrr=0.1", "mrr=0.2"], "--max-drop mrr=0.2: mrr has a margin already"),
    ],
)
def test_a_margin_that_cannot_be_read_is_told(drops: list[str], told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_margins(drops)
    assert str(raised.value).startswith(told)

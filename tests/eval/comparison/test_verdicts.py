"""One plain sentence for a difference: better, worse, the same, or that it cannot be told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eval.comparison.comparison import compare_runs
from eval.comparison.verdicts import Verdict, judge, p_value
from eval.scored_runs import ScoredRun

MakeRun = Callable[..., ScoredRun]


@pytest.fixture
def verdict(make_run: MakeRun) -> Callable[..., Verdict]:
    """The verdict on one metric of two runs."""

    def say(metric: str, a: object, b: object) -> Verdict:
        comparison = compare_runs(make_run("a", **{metric: a}), make_run("b", **{metric: b}))
        return judge(comparison.headline[metric.replace("_at_", "@")])

    return say


Say = Callable[..., Verdict]
STEPS = np.linspace(0.0, 0.6, 40)


def test_more_is_better_of_quality_and_worse_of_time(verdict: Say) -> None:
    assert verdict("recall_at_5", STEPS, STEPS + 0.2).kind == "better"
    assert verdict("recall_at_5", STEPS + 0.2, STEPS).kind == "worse"
    assert verdict("latency_ms", STEPS, STEPS + 0.2).kind == "worse"
    faster = verdict("latency_ms", 100 * STEPS + 20, 100 * STEPS)
    assert faster.kind == "better"
    assert faster.sentence == (
        "latency_ms: B is better by 20.0 (95 % interval −20.0 to −20.0; p < .001), "
        "better on 40 questions and worse on 0."
    )


def test_what_cannot_be_told_says_how_many_questions_would_tell(verdict: Say) -> None:
    rng = np.random.default_rng(1)
    said = verdict("mrr", STEPS, STEPS + rng.normal(0.02, 0.2, 40))
    assert said.kind == "cannot be told"
    assert said.sentence.startswith("mrr: cannot be told. ")
    assert "may be chance (p = " in said.sentence
    assert "These 40 questions show a difference of 0.0" in said.sentence
    assert "one like this needs about " in said.sentence


def test_a_handful_of_questions_shows_nothing(verdict: Say) -> None:
    said = verdict("mrr", [0, 0, 0, 0], [1, 1, 1, 1])
    assert said.kind == "cannot be told"
    assert "4 questions are too few to show anything" in said.sentence


def test_gains_and_losses_that_cancel_out_need_no_number(verdict: Say) -> None:
    said = verdict("mrr", [0, 1] * 10, [1, 0] * 10)
    assert said.kind == "cannot be told"
    assert said.sentence.endswith("These 20 questions show a difference of 0.676 or more.")


def test_no_difference_is_no_verdict_on_either(verdict: Say) -> None:
    said = verdict("usd", [0.1] * 7, [0.1] * 7)
    assert (said.kind, said.sentence) == ("the same", "usd: no question differs (7 compared).")


def test_a_difference_that_only_the_correction_hides_says_so(make_run: MakeRun) -> None:
    rng = np.random.default_rng(3)
    gain = np.zeros(60)
    gain[:8] = 1.0
    others = {f"metric{i}": rng.random(60) for i in range(8)}
    a = make_run("a", hit_at_5=np.zeros(60), **others)
    b = make_run("b", hit_at_5=gain, **{name: rng.random(60) for name in others})
    found = compare_runs(a, b, ["hit@5", *others]).headline["hit@5"]
    assert found.p_value < 0.05 < found.p_adjusted
    said = judge(found)
    assert said.kind == "cannot be told"
    assert "where it is tested alone, without the correction for several metrics" in said.sentence


@pytest.mark.parametrize(
    ("p", "text"), [(0.0001, "<.001"), (0.0012, "0.001"), (0.0499, "0.050"), (0.234, "0.23"), (1.0, "1.00")]
)
def test_p_values_have_the_digits_that_mean_something(p: float, text: str) -> None:
    assert p_value(p) == text

"""What a person reads of a sweep: the verdict in words, the ranking, and what is not in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.paired import PairedDifference, compare_paired
from eval.sweep.results import FactorEffect, FinalCheck, Objective, Spending, SweepResult, Trial
from eval.sweep.table import describe, describe_cost, describe_spending, render_sweep

MakeTrial = Callable[..., Trial]
MakeResult = Callable[..., SweepResult]


def difference(mean: float, spread: float = 0.3, n: int = 60) -> PairedDifference:
    noise = np.random.default_rng(0).normal(0, spread, n)
    found = compare_paired("citation_recall", np.full(n, 0.5), 0.5 + mean + noise - noise.mean())
    assert found is not None
    return found


@pytest.fixture
def make_result(make_trial: MakeTrial) -> MakeResult:
    def make(**fields: Any) -> SweepResult:
        trials = [make_trial(n, citation_recall=value) for n, value in enumerate([0.5, 0.8, 0.49], start=1)]
        result = SweepResult(
            name="quiz",
            path=Path("build/sweeps/quiz-1"),
            dataset="quiz",
            split="dev",
            questions=60,
            objectives=(Objective("citation_recall"),),
            factors={"retrieval.k": [1, 2, 3]},
            trials=trials,
            ranking=[2, 1, 3],
            pareto=[2],
            winner=2,
            baseline=1,
            against_baseline={2: difference(0.3), 3: difference(-0.01)},
            against_winner={1: difference(-0.3), 3: difference(-0.31)},
            effects=[FactorEffect("retrieval.k", {"1": (0.5, 1), "2": (0.8, 1)}, 0.62)],
            final=None,
            spent=Spending(),
            stopped_early="",
            settings={},
            provenance={},
        )
        return replace(result, **fields)

    return make


def test_the_verdict_comes_first_and_says_whether_it_is_real(make_result: MakeResult) -> None:
    text = render_sweep(make_result())
    lines = text.splitlines()
    assert lines[0] == ("quiz, split dev: 60 questions; 3 configurations ranked; no language model was asked")
    assert lines[2] == "Best: k=2 with citation_recall 0.800"
    assert lines[3].startswith("Against the baseline (k=1): really better: +0.300 (")
    assert "better on" in lines[3]
    assert lines[-1] == "Everything: build/sweeps/quiz-1 (report.html, result.json, trials/)"


def test_what_cannot_be_told_apart_is_said_so_with_what_it_would_take(make_result: MakeResult) -> None:
    text = render_sweep(make_result(against_baseline={2: difference(0.01), 3: difference(-0.01)}))
    assert "cannot be told from it: +0.010" in text
    assert "questions would be needed." in text


def test_others_that_are_as_good_and_cheaper_are_named(
    make_result: MakeResult, make_trial: MakeTrial
) -> None:
    trials = [
        make_trial(1, usd=0.5, citation_recall=0.5),
        make_trial(2, usd=2.0, citation_recall=0.8),
        make_trial(3, usd=None, citation_recall=0.79),
        make_trial(4, usd=0.1, citation_recall=0.78),
    ]
    alike = {1: difference(-0.3), 3: difference(-0.01), 4: difference(-0.02)}
    text = render_sweep(make_result(trials=trials, ranking=[2, 3, 4, 1], against_winner=alike))
    assert "2 of the others cannot be told from it by 60 questions; cheaper among them: #4." in text
    assert "price unknown" in text
    assert "2.0000 USD" in text


def test_a_baseline_that_is_best_is_said_to_be(make_result: MakeResult) -> None:
    assert "It is the baseline: nothing that was tried is better." in render_sweep(make_result(baseline=2))


def test_without_a_value_none_is_best(make_result: MakeResult, make_trial: MakeTrial) -> None:
    trials = [make_trial(1, citation_recall=None)]
    text = render_sweep(
        make_result(
            trials=trials, ranking=[1], winner=None, against_baseline={}, against_winner={}, effects=[]
        )
    )
    assert "No configuration has a value for the objective, so none is best." in text
    assert "–" in text


def test_the_held_out_questions_say_how_optimistic_the_choice_was(make_result: MakeResult) -> None:
    final = FinalCheck("test", 50, "citation_recall", 0.8, 0.71, 0.5, difference(0.2), Path("w"), Path("b"))
    text = render_sweep(make_result(final=final))
    assert (
        "On 50 questions that chose nothing (test): citation_recall 0.710; where it was chosen it was 0.800"
        in text
    )
    assert "(0.090 higher)." in text
    assert "Against the baseline there: really better: +0.200" in text
    assert "they prove" not in text
    for reads, ordinal in ((2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st")):
        text = render_sweep(make_result(final=replace(final, reads=reads)))
        assert f"This is the {ordinal} winner that was reported on these questions" in text


def test_what_is_made_small_is_better_when_it_falls(make_result: MakeResult, make_trial: MakeTrial) -> None:
    trials = [make_trial(1, latency_ms=20.0), make_trial(2, latency_ms=10.0)]
    text = render_sweep(
        make_result(
            trials=trials,
            ranking=[2, 1],
            objectives=(Objective("latency_ms", minimize=True),),
            against_baseline={2: replace(difference(-0.3), metric="latency_ms")},
            against_winner={},
        )
    )
    assert "really better: " in text
    assert "latency_ms ↓" in text


def test_several_objectives_show_their_front(make_result: MakeResult, make_trial: MakeTrial) -> None:
    trials = [make_trial(n, citation_recall=0.5, usd=0.1) for n in (1, 2, 3)]
    trials = [replace(trial, objectives={"citation_recall": 0.5, "usd": 0.01}) for trial in trials]
    objectives = (Objective("citation_recall"), Objective("usd", minimize=True))
    text = render_sweep(make_result(trials=trials, objectives=objectives, pareto=[2, 1]))
    assert "Pareto front: #2, #1" in text
    assert "usd ↓" in text


def test_what_is_not_in_the_ranking_is_listed_with_its_reason(
    make_result: MakeResult, make_trial: MakeTrial
) -> None:
    trials = [*make_result().trials, make_trial(4, "stopped", citation_recall=0.1), make_trial(5, "failed")]
    failing = replace(
        trials[0], summary=replace(trials[0].summary, overall=replace(trials[0].summary.overall, unscored=2))
    )
    text = render_sweep(make_result(trials=[failing, *trials[1:]]))
    assert "3 configurations ranked, 1 stopped early, 1 failed" in text
    assert "  #4 stopped because: k=4" in text
    assert "  #5 failed (k=5): because" in text
    assert "  #1: 2 questions failed and are in no mean (to retry: --retry-errors)" in text


def test_a_sweep_that_was_stopped_says_by_what(make_result: MakeResult) -> None:
    text = render_sweep(make_result(stopped_early="the budget of 5 USD is spent"))
    assert text.splitlines()[1] == "Not all were tried: the budget of 5 USD is spent."


def test_a_long_ranking_shows_its_head_and_counts_the_rest(
    make_result: MakeResult, make_trial: MakeTrial
) -> None:
    trials = [make_trial(n, citation_recall=1 - n / 100) for n in range(1, 31)]
    text = render_sweep(make_result(trials=trials, ranking=list(range(1, 31)), winner=1))
    assert "… and 10 more in result.json" in text
    assert "#20" in text
    assert "#21 " not in text


def test_columns_line_up_in_japanese_too(make_result: MakeResult, make_trial: MakeTrial) -> None:
    from unicodedata import east_asian_width

    trials = [
        make_trial(1, parameters={"retrieval.filters": {"種類": "手引き"}}, citation_recall=0.5),
        make_trial(2, parameters={"retrieval.filters": {}}, citation_recall=0.8),
    ]
    lines = render_sweep(make_result(trials=trials, ranking=[2, 1])).splitlines()
    rows = [line for line in lines if line.startswith(("#1", "#2"))]

    def place(row: str, value: str) -> int:
        return sum(2 if east_asian_width(c) in "WF" else 1 for c in row[: row.index(value)])

    assert place(rows[0], "0.800") == place(rows[1], "0.500")


@pytest.mark.parametrize(
    ("spending", "text", "cost"),
    [
        (Spending(), "no language model was asked", "–"),
        (
            Spending(0.5, 1000, 234, 12),
            "12 answers by a language model, 1,234 tokens, 0.5000 USD",
            "0.5000 USD",
        ),
        (Spending(None, 5, 5, 1), "1 answers by a language model, 10 tokens, price unknown", "price unknown"),
    ],
)
def test_costs_in_words(spending: Spending, text: str, cost: str) -> None:
    assert describe_spending(spending) == text
    assert describe_cost(spending) == cost


def test_a_configuration_is_told_by_the_last_names_of_its_settings(make_trial: MakeTrial) -> None:
    trial = make_trial(
        1, parameters={"retrieval.k": 3, "reader.kind": "lm", "retrieval.filters": {"lang": "en"}}
    )
    assert describe(trial) == 'k=3, kind=lm, filters={"lang": "en"}'

"""The words that come first: they say no more than the numbers, and hide nothing that was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eval.html_report.verdict import Verdict, reach_verdict
from eval.sweep.results import Objective, Spending, SweepResult

Make = Callable[..., Any]


def test_a_winner_that_is_really_better_is_to_be_shipped(
    sweep: SweepResult, make_pair: Make, make_final: Make
) -> None:
    verdict = reach_verdict(
        replace(sweep, against_baseline={4: make_pair(0.125, 0.003)}, final=make_final(0.11, 0.001))
    )
    assert verdict.headline == "Ship #4"
    assert verdict.is_clear
    assert (
        "it is better than the baseline #1 by 0.125 (95 % interval of the difference: +0.075 to +0.175)"
        in verdict.reason
    )
    assert "p = 0.003 corrected for all comparisons, p = 0.001 alone" in verdict.reason
    assert "#4 is better on 12 questions, worse on 4 and equal on 24." in verdict.reason
    assert verdict.reason.endswith("The held-out questions confirm it.")


def test_a_lead_that_may_be_chance_is_said_to_be_one_with_the_questions_it_would_take(
    sweep: SweepResult, make_pair: Make
) -> None:
    verdict = reach_verdict(replace(sweep, against_baseline={4: make_pair(0.02, 0.6)}))
    assert verdict.headline == "No configuration is clearly better than the baseline"
    assert not verdict.is_clear
    assert (
        "cannot be told from chance (p = 0.600 corrected for all comparisons, p = 0.200 alone)"
        in verdict.reason
    )
    assert "about 700 questions would be needed; these 40 can show one of 0.080 or more" in verdict.reason
    assert verdict.reason.endswith("Keep the baseline, unless #4 has other merits.")


def test_what_many_comparisons_could_not_show_the_one_on_held_out_questions_may(
    sweep: SweepResult, make_pair: Make, make_final: Make
) -> None:
    unclear = replace(sweep, against_baseline={4: make_pair(0.02, 0.25)})
    verdict = reach_verdict(replace(unclear, final=make_final(0.05, 0.03)))
    assert (verdict.headline, verdict.is_clear) == ("Ship #4", True)
    assert (
        "where it alone was compared with the baseline #1, it is better by 0.050 (p = 0.030)"
        in verdict.reason
    )
    assert "its lead of +0.020 alone could not be told from chance (p = 0.250 corrected" in verdict.reason
    still = reach_verdict(replace(unclear, final=make_final(0.05, 0.06)))
    assert still.headline == "No configuration is clearly better than the baseline"


@pytest.mark.parametrize(
    ("mean", "p", "headline", "said"),
    [
        (0.05, 0.4, "Ship #4", "point the same way, though they alone are too few"),
        (-0.02, 0.4, "Think twice before shipping #4", "nothing of this was left"),
        (-0.2, 0.001, "Do not ship #4", "it is really worse"),
    ],
)
def test_the_held_out_questions_have_the_last_word(
    sweep: SweepResult, make_pair: Make, make_final: Make, mean: float, p: float, headline: str, said: str
) -> None:
    better = replace(sweep, against_baseline={4: make_pair(0.125, 0.003)})
    verdict = reach_verdict(replace(better, final=make_final(mean, p)))
    assert verdict.headline == headline
    assert said in verdict.reason


def test_less_is_better_where_the_objective_says_so(sweep: SweepResult, make_pair: Make) -> None:
    pair = make_pair(-4.0, 0.001, metric="latency_ms", wins=3, losses=30, ties=7)
    faster = replace(
        sweep,
        objectives=[Objective("latency_ms", minimize=True)],
        trials=[replace(trial, objectives={"latency_ms": 30.0}) for trial in sweep.trials],
        against_baseline={4: pair},
    )
    verdict = reach_verdict(faster)
    assert verdict.headline == "Ship #4"
    assert "With 30.0 ms a question, it is better than the baseline #1 by 4.0 ms" in verdict.reason
    assert "(95 % interval of the difference: −4.0 to −4.0 ms)" in verdict.reason
    assert "#4 is better on 30 questions, worse on 3 and equal on 7." in verdict.reason


def test_a_baseline_that_comes_first_is_kept(sweep: SweepResult) -> None:
    verdict = reach_verdict(replace(sweep, winner=1, ranking=[1, 2, 3, 4]))
    assert verdict.headline == "Keep the baseline #1"
    assert "it comes first; 3 other configurations did no better." in verdict.reason


def test_without_a_baseline_the_winner_is_compared_with_the_next_one(
    sweep: SweepResult, make_pair: Make
) -> None:
    alone = replace(sweep, baseline=None, against_baseline={})
    second = sweep.ranking[1]
    unclear = reach_verdict(replace(alone, against_winner={second: make_pair(-0.01, 0.8)}))
    assert unclear.headline == "#4 came first, but not clearly"
    assert f"it cannot be told from the next one, #{second} (p = 0.800)" in unclear.reason
    clear = reach_verdict(replace(alone, against_winner={second: make_pair(-0.2, 0.001)}))
    assert clear.headline == "Ship #4"
    assert f"Its lead over the next one, #{second}, is real: +0.200, p = 0.001." in clear.reason


def test_one_configuration_alone_is_compared_with_nothing(sweep: SweepResult) -> None:
    verdict = reach_verdict(replace(sweep, ranking=[2], winner=2))
    assert verdict.headline == "Only #2 was completed"
    assert not verdict.is_clear


def test_without_a_completed_configuration_nothing_is_recommended(sweep: SweepResult) -> None:
    failed = [replace(trial, state="failed", reason="no key") for trial in sweep.trials]
    verdict = reach_verdict(replace(sweep, trials=failed, ranking=[], winner=None, baseline=None))
    assert verdict.headline == "There is nothing to recommend"
    assert verdict.reason == "None of 4 configurations was completed."
    assert any(
        "4 configurations ended in failure, and not ranked: #1, #2, #3 and #4" in w for w in verdict.warnings
    )


def test_how_optimistic_the_choosing_was_is_said_in_numbers(sweep: SweepResult, make_final: Make) -> None:
    verdict = reach_verdict(replace(sweep, final=make_final(0.1, 0.001)))
    said = fact(verdict, "Does it hold")
    assert "On 30 questions of “test”, which chose nothing, #4 reaches 0.780." in said
    assert (
        "Its 0.820 on “dev”, where it was chosen, was optimistic by 0.040: expect the held-out figure."
        in said
    )
    assert "it is better than the baseline #1 (0.680) by 0.100" in said
    kept = reach_verdict(replace(sweep, final=make_final(0.1, 0.001, held_out=0.83)))
    assert "was not too good to be true" in fact(kept, "Does it hold")


def test_a_missing_held_out_check_and_a_worn_one_are_warned_of(sweep: SweepResult, make_final: Make) -> None:
    assert any("not checked on questions that chose nothing" in w for w in reach_verdict(sweep).warnings)
    worn = reach_verdict(replace(sweep, final=make_final(0.1, 0.001, reads=3)))
    assert any("“test” have been looked at 3 times" in w for w in worn.warnings)
    assert reach_verdict(replace(sweep, final=make_final(0.1, 0.001))).warnings == []


def test_a_budget_stopped_failed_and_unscored_parts_are_warned_of(sweep: SweepResult) -> None:
    stopped = replace(sweep.trials[1], state="stopped", reason="hopeless")
    overall = replace(sweep.trials[3].summary.overall, unscored=5)
    gaps = replace(sweep.trials[3], summary=replace(sweep.trials[3].summary, overall=overall))
    trials = [sweep.trials[0], stopped, sweep.trials[2], gaps]
    ranking = [number for number in sweep.ranking if number != 2]
    said = reach_verdict(
        replace(sweep, trials=trials, ranking=ranking, stopped_early="the budget of 2 USD is spent")
    ).warnings
    assert said[0] == "Not every configuration was tried: the budget of 2 USD is spent."
    assert said[1].startswith("1 configuration stopped early as hopeless, and not ranked: #2.")
    assert said[2] == "5 answers could not be scored, and are in no mean: 5 in #4."


@pytest.mark.parametrize(
    ("spending", "said"),
    [
        (Spending(0.0, 0, 0, 0), "no money, since no language model is asked"),
        (Spending(0.04, 4000, 400, 40), "$1.00 for 1,000 questions, 110 tokens"),
        (Spending(None, 4000, 400, 40), "a price that is not known, 110 tokens"),
    ],
)
def test_what_the_winner_costs_is_said_for_a_thousand_questions(
    sweep: SweepResult, spending: Spending, said: str
) -> None:
    trials = [*sweep.trials[:3], replace(sweep.trials[3], spending=spending)]
    assert said in fact(reach_verdict(replace(sweep, trials=trials)), "What does it cost?")


def test_who_cannot_be_told_from_the_winner_is_named_and_the_fastest_of_them(
    sweep: SweepResult, make_pair: Make
) -> None:
    near = {1: make_pair(-0.3, 0.001), 2: make_pair(-0.01, 0.9), 3: make_pair(-0.02, 0.7)}
    said = fact(reach_verdict(replace(sweep, against_winner=near)), "What else would do?")
    assert said.startswith("#2 and #3 cannot be told from #4 on these questions.")
    assert "The fastest of them is #2:" in said


def test_several_objectives_have_a_front_and_not_one_best(sweep: SweepResult) -> None:
    two = replace(sweep, objectives=[*sweep.objectives, Objective("usd", minimize=True)], pareto=[4, 2])
    assert "No configuration beats these in all of them: #4 (recall@3" in fact(
        reach_verdict(two), "What is traded"
    )


def test_an_objective_without_a_value_is_warned_of(sweep: SweepResult) -> None:
    nothing: dict[str, float | None] = {"recall@3": None}
    trials = [replace(trial, objectives=nothing) for trial in sweep.trials]
    verdict = reach_verdict(replace(sweep, trials=trials, winner=None))
    assert verdict.reason == "No completed configuration has a value for recall@3."
    assert any("An objective applies to no question in" in w for w in verdict.warnings)


def fact(verdict: Verdict, question: str) -> str:
    return next(one.answer for one in verdict.facts if one.question.startswith(question))

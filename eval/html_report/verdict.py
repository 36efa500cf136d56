"""The report in words, for whoever reads nothing else: what to ship, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.html_report.caveats import list_caveats
from eval.html_report.comparing import Standing, compare, gain, is_real, standing
from eval.html_report.facts import Fact, list_facts, spent_fact
from eval.html_report.formatting import count, difference, number, p_value, scored
from eval.paired import PairedDifference
from eval.sweep.results import FinalCheck, Objective, SweepResult, Trial


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, why, and what to know before.

    Attributes:
        headline: the advice in a few words; `trial` is the configuration that came first.
        is_clear: whether the numbers carry the advice.
        reason: the sentences that follow the headline.
        facts: the held-out check, costs, ties.
        warnings: what weakens or limits the result. Never empty when something was left out.
    """

    headline: str
    trial: Trial | None
    is_clear: bool
    reason: str
    facts: Sequence[Fact]
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Advice:
    headline: str
    reason: str
    is_clear: bool = True


def reach_verdict(result: SweepResult) -> Verdict:
    """Read the result as a careful colleague would."""
    warnings = list(list_caveats(result))
    if result.winner is None:
        headline = "There is nothing to recommend"
        return Verdict(headline, None, False, _why_nothing(result), [spent_fact(result)], warnings)
    advice = _advise(result, result.trial(result.winner))
    facts = list(list_facts(result, result.winner))
    return Verdict(
        advice.headline, result.trial(result.winner), advice.is_clear, advice.reason, facts, warnings
    )


def _why_nothing(result: SweepResult) -> str:
    if result.ranking:
        return f"No completed configuration has a value for {result.objectives[0].name}."
    return f"None of {count(len(result.trials), 'configuration')} was completed."


def _advise(result: SweepResult, winner: Trial) -> _Advice:
    objective = result.objectives[0]
    reached = scored(objective.name, winner.objectives[objective.name])
    name = f"#{winner.number}"
    if len(result.ranking) == 1:
        return _Advice(
            f"Only {name} was completed", f"It reaches {reached}; there is nothing to compare it with.", False
        )
    if result.winner == result.baseline:
        rivals = count(len(result.ranking) - 1, "other configuration")
        return _Advice(f"Keep the baseline {name}", f"With {reached} it comes first; {rivals} did no better.")
    pair = result.against_baseline.get(winner.number)
    if result.baseline is None or pair is None:
        return _without_baseline(result, winner, reached)
    said = compare(pair, objective, name, f"the baseline #{result.baseline}", corrected=True)
    if standing(pair, objective) == "better":
        return _confirm(result.final, objective, name, f"With {reached}, {said}")
    if result.final is not None and _held_out_standing(result.final, objective) == "better":
        return _shown_by_held_out(result, result.final, pair, f"{name} came first with {reached}.")
    return _Advice(
        "No configuration is clearly better than the baseline",
        f"{name} came first with {reached}, but {said} Keep the baseline, unless {name} has other merits.",
        False,
    )


def _shown_by_held_out(result: SweepResult, final: FinalCheck, pair: PairedDifference, first: str) -> _Advice:
    """One comparison, planned before its questions were seen, needs no correction, and outweighs the many."""
    objective = result.objectives[0]
    shown = final.difference or pair
    gained = f"{number(objective.name, abs(shown.difference.mean))} ({p_value(shown.p_value)})"
    lead = difference(objective.name, pair.difference.mean)
    return _Advice(
        f"Ship #{result.winner}",
        f"{first} On the held-out questions, where it alone was compared with the baseline #{result.baseline}, it is "
        f"better by {gained}: that is real. On “{result.split}” its lead of {lead} alone could not be told from chance "
        f"({p_value(pair.p_adjusted)} corrected for all comparisons).",
    )


def _without_baseline(result: SweepResult, winner: Trial, reached: str) -> _Advice:
    objective = result.objectives[0]
    name, second = f"#{winner.number}", result.ranking[1]
    said = f"It reaches {reached}, the best of {len(result.ranking)}; there is no baseline to compare it with"
    pair = result.against_winner.get(second)
    if pair is None:
        return _Advice(f"{name} came first", f"{said}.", False)
    if is_real(pair):
        lead = f"{difference(objective.name, -pair.difference.mean)}, {p_value(pair.p_adjusted)}"
        return _Advice(f"Ship {name}", f"{said}. Its lead over the next one, #{second}, is real: {lead}.")
    return _Advice(
        f"{name} came first, but not clearly",
        f"{said}, and it cannot be told from the next one, #{second} ({p_value(pair.p_adjusted)}).",
        False,
    )


def _confirm(final: FinalCheck | None, objective: Objective, name: str, reason: str) -> _Advice:
    """Where it was chosen it is better: do the held-out questions contradict?"""
    if final is None or final.difference is None:
        return _Advice(f"Ship {name}", reason)
    held_out = _held_out_standing(final, objective)
    if held_out == "worse":
        return _Advice(
            f"Do not ship {name}", f"{reason} But on the held-out questions it is really worse.", False
        )
    if gain(final.difference, objective) <= 0:
        said = f"{reason} But on the held-out questions nothing of this was left."
        return _Advice(f"Think twice before shipping {name}", said, False)
    if held_out == "better":
        return _Advice(f"Ship {name}", f"{reason} The held-out questions confirm it.")
    said = "The held-out questions point the same way, though they alone are too few to show it."
    return _Advice(f"Ship {name}", f"{reason} {said}")


def _held_out_standing(final: FinalCheck | None, objective: Objective) -> Standing:
    return "unclear" if final is None or final.difference is None else standing(final.difference, objective)

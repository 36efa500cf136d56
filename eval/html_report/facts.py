"""Short answers to what a newcomer asks after the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.html_report.comparing import compare, is_real
from eval.html_report.costs import per_question, value_of
from eval.html_report.formatting import count, enumerate_names, money, number
from eval.sweep.results import FinalCheck, Objective, SweepResult, Trial

_CLEARLY_FASTER = 0.8


@dataclass(frozen=True, slots=True)
class Fact:
    """A question and its answer."""

    question: str
    answer: str


def list_facts(result: SweepResult, winner: int) -> Iterator[Fact]:
    """The held-out check, what the winner costs, what it trades, who is as good, what the sweep cost."""
    if result.final is not None:
        yield Fact("Does it hold on questions that chose nothing?", _held_out(result.final, result, winner))
    yield Fact("What does it cost?", _cost(result, result.trial(winner)))
    if len(result.objectives) > 1:
        yield Fact("What is traded for what?", _front(result))
    pairs = result.against_winner
    alike = [n for n in result.ranking if n != winner and n in pairs and not is_real(pairs[n])]
    if alike:
        yield Fact("What else would do?", _alternatives(result, winner, alike))
    yield spent_fact(result)


def spent_fact(result: SweepResult) -> Fact:
    """What the whole sweep cost."""
    spent = result.spent
    if not spent.calls:
        return Fact("What did the sweep cost?", "No language model was asked.")
    tokens = f"{spent.input_tokens:,} tokens in and {spent.output_tokens:,} out"
    price = "at a price that is not known" if spent.usd is None else money(spent.usd)
    return Fact(
        "What did the sweep cost?", f"{count(spent.calls, 'call')} of a language model, {tokens}, {price}."
    )


def _held_out(final: FinalCheck, result: SweepResult, winner: int) -> str:
    objective = Objective(final.objective, result.objectives[0].minimize)
    said = (
        f"On {count(final.questions, 'question')} of “{final.split}”, which chose nothing, #{winner} reaches "
        f"{number(final.objective, final.held_out)}. {_optimism(final, objective, result.split)}"
    )
    if final.difference is None or result.baseline is None:
        return said
    other = f"the baseline #{result.baseline} ({number(final.objective, final.baseline_held_out)})"
    compared = compare(final.difference, objective, f"#{winner}", other, corrected=False)
    return f"{said} There {compared}"


def _optimism(final: FinalCheck, objective: Objective, split: str) -> str:
    excess = final.held_out - final.chosen_on if objective.minimize else final.chosen_on - final.held_out
    chosen_on = f"{number(final.objective, final.chosen_on)} on “{split}”, where it was chosen,"
    if excess <= 0:
        return f"Its {chosen_on} was not too good to be true."
    return f"Its {chosen_on} was optimistic by {number(final.objective, excess)}: expect the held-out figure."


def _cost(result: SweepResult, trial: Trial) -> str:
    said = f"#{trial.number}: {_describe_cost(trial)}."
    if result.baseline is None or result.baseline == trial.number:
        return said
    return f"{said} The baseline #{result.baseline}: {_describe_cost(result.trial(result.baseline))}."


def _describe_cost(trial: Trial) -> str:
    latency = per_question(trial, "latency_ms")
    time = "" if latency is None else f", {number('latency_ms', latency)} for a question"
    tokens = per_question(trial, "tokens")
    if not trial.spending.calls and not tokens:
        return f"no money, since no language model is asked{time}"
    usd = per_question(trial, "usd")
    price = "a price that is not known" if usd is None else f"{money(usd * 1000)} for 1,000 questions"
    return f"{price}, {number('tokens', tokens)} tokens{time or ' for a question'}"


def _front(result: SweepResult) -> str:
    described = [
        f"#{trial.number} ({', '.join(f'{o.name} {number(o.name, value_of(trial, o))}' for o in result.objectives)})"
        for trial in (result.trial(n) for n in result.pareto)
    ]
    return (
        f"With {len(result.objectives)} objectives there is not one best. No configuration beats these in all of them: "
        f"{enumerate_names(described)}."
    )


def _alternatives(result: SweepResult, winner: int, alike: Sequence[int]) -> str:
    said = f"{enumerate_names([f'#{n}' for n in alike])} cannot be told from #{winner} on these questions."
    mine = per_question(result.trial(winner), "latency_ms")
    timed = [
        (latency, n) for n in alike if (latency := per_question(result.trial(n), "latency_ms")) is not None
    ]
    if mine is None or not timed or min(timed)[0] > _CLEARLY_FASTER * mine:
        return said
    latency, fastest = min(timed)
    times = f"{number('latency_ms', latency)} against {number('latency_ms', mine)}"
    return f"{said} The fastest of them is #{fastest}: {times}."

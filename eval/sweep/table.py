"""A sweep as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.paired import PairedDifference
from eval.sweep.results import Objective, Spending, SweepResult, Trial
from eval.sweep.space import label
from eval.text_table import number, p_value, signed, table

_SHOWN = 20
_MOST_VALUES = 8
"""More values of a factor than these are for the report's charts."""


def render_sweep(result: SweepResult) -> str:
    """The verdict, the ranking, what each factor does, and what is not in the ranking."""
    blocks = (
        _headline(result),
        *_verdict(result),
        _ranking(result),
        _effects(result),
        _left_out(result),
        _whereabouts(result),
    )
    return "\n\n".join(block for block in blocks if block)


def _headline(result: SweepResult) -> str:
    complete = len(result.ranking)
    stopped = sum(trial.state == "stopped" for trial in result.trials)
    failed = sum(trial.state == "failed" for trial in result.trials)
    counts = [f"{complete} configurations ranked"]
    counts += [f"{stopped} stopped early"] * bool(stopped) + [f"{failed} failed"] * bool(failed)
    early = f"\nNot all were tried: {result.stopped_early}." if result.stopped_early else ""
    return (
        f"{result.dataset}, split {result.split}: {result.questions} questions; {', '.join(counts)}; "
        f"{describe_spending(result.spent)}{early}"
    )


def _verdict(result: SweepResult) -> Iterator[str]:
    if result.winner is None:
        yield "No configuration has a value for the objective, so none is best."
        return
    objective = result.objectives[0]
    winner = result.trial(result.winner)
    lines = [
        f"Best: {describe(winner)} with {objective.name} {number(objective.name, _value(winner, objective))}"
    ]
    if result.winner == result.baseline:
        lines.append("It is the baseline: nothing that was tried is better.")
    elif difference := result.against_baseline.get(result.winner):
        lines.append(
            f"Against the baseline ({describe(result.trial(result.baseline or 1))}): {_in_words(difference, objective)}"
        )
    alike = [n for n, d in result.against_winner.items() if d.p_adjusted >= 0.05]
    if alike:
        cheaper = [n for n in alike if _is_cheaper(result.trial(n), winner)]
        lines.append(
            f"{len(alike)} of the others cannot be told from it by {result.questions} questions"
            + (f"; cheaper among them: {', '.join(f'#{n}' for n in cheaper[:5])}" if cheaper else "")
            + "."
        )
    yield "\n".join(lines)
    if final := result.final:
        name, held_out, chosen_on = final.objective, final.held_out, final.chosen_on
        excess = f"{number(name, abs(chosen_on - held_out))} {'higher' if chosen_on >= held_out else 'lower'}"
        text = (
            f"On {final.questions} questions that chose nothing ({final.split}): {name} {number(name, held_out)}; "
            f"where it was chosen it was {number(name, chosen_on)} ({excess})."
        )
        if final.difference:
            text += f"\nAgainst the baseline there: {_in_words(final.difference, objective)}"
        if final.reads > 1:
            text += (
                f"\nThis is the {_ordinal(final.reads)} winner that was reported on these questions: the more often "
                "they are looked at, the less they prove. Use fresh ones for the decision."
            )
        yield text


def _ranking(result: SweepResult) -> str:
    objective = result.objectives[0]
    names = [o.name + " ↓" * o.minimize for o in result.objectives]
    header = ("", "configuration", *names, "95 % interval", "vs baseline", "p (Holm)", "cost")
    rows = [_row(result, n, objective) for n in result.ranking[:_SHOWN]]
    more = len(result.ranking) - _SHOWN
    note = f"\n… and {more} more in result.json" if more > 0 else ""
    front = (
        f"\nPareto front: {', '.join(f'#{n}' for n in result.pareto)}" if len(result.objectives) > 1 else ""
    )
    return table(header, rows, left=2) + note + front


def _row(result: SweepResult, trial_number: int, objective: Objective) -> tuple[str, ...]:
    trial = result.trial(trial_number)
    interval = trial.summary.overall.intervals.get(objective.name)
    difference = result.against_baseline.get(trial_number)
    values = [trial.objectives[o.name] for o in result.objectives]
    return (
        f"#{trial_number}",
        describe(trial) + (" (baseline)" if trial_number == result.baseline else ""),
        *(
            "–" if value is None else number(o.name, value)
            for o, value in zip(result.objectives, values, strict=True)
        ),
        "–"
        if interval is None
        else f"{number(objective.name, interval.low)} – {number(objective.name, interval.high)}",
        "" if difference is None else signed(objective.name, difference.difference.mean),
        "" if difference is None else p_value(difference.p_adjusted),
        describe_cost(trial.spending),
    )


def _effects(result: SweepResult) -> str:
    rows = [
        (
            effect.factor,
            "–" if effect.share is None else f"{effect.share:.0%}",
            ", ".join(f"{value}: {mean:.3f}" for value, (mean, _) in effect.means.items()),
        )
        for effect in result.effects
        if len(effect.means) <= _MOST_VALUES and len(result.effects) > 1
    ]
    name = result.objectives[0].name
    return table(("factor", "explains", f"mean {name} by value"), rows, left=3) if rows else ""


def _left_out(result: SweepResult) -> str:
    lines = [_why_left_out(trial) for trial in result.trials if trial.state != "complete"]
    unscored = {t.number: t.summary.overall.unscored for t in result.trials if t.state == "complete"}
    lines += [
        f"  #{n}: {count} questions failed and are in no mean (to retry: --retry-errors)"
        for n, count in unscored.items()
        if count
    ]
    return "\n".join(["Not in the ranking, or not wholly:", *lines]) if lines else ""


def _why_left_out(trial: Trial) -> str:
    if trial.state == "failed":
        return f"  #{trial.number} failed ({describe(trial)}): {trial.reason}"
    return f"  #{trial.number} {trial.state} {trial.reason}: {describe(trial)}"


def _whereabouts(result: SweepResult) -> str:
    return f"Everything: {result.path} (report.html, result.json, trials/)"


def describe(trial: Trial) -> str:
    """`k=5, max_sentences=2`: the settings' last names, which a table has room for."""
    return ", ".join(f"{name.split('.')[-1]}={_short(value)}" for name, value in trial.parameters.items())


def _short(value: Any) -> str:
    """A value; of the path of a file its name."""
    text = label(value)
    return Path(text).name if text.endswith(".json") else text


def describe_spending(spending: Spending) -> str:
    """What was spent, in a few words."""
    if not spending.calls:
        return "no language model was asked"
    tokens = spending.input_tokens + spending.output_tokens
    return f"{spending.calls:,} answers by a language model, {tokens:,} tokens, {describe_cost(spending)}"


def describe_cost(spending: Spending) -> str:
    """The cost in dollars, or that it is not known."""
    if spending.usd is None:
        return "price unknown"
    return "–" if not spending.calls else f"{spending.usd:.4f} USD"


def _in_words(difference: PairedDifference, objective: Objective) -> str:
    d = difference.difference
    gained = -d.mean if objective.minimize else d.mean
    won, lost = (
        (difference.losses, difference.wins) if objective.minimize else (difference.wins, difference.losses)
    )
    shown = (
        f"{signed(objective.name, d.mean)} ({signed(objective.name, d.low)} to {signed(objective.name, d.high)}), "
        f"p {_equals(difference.p_adjusted)}, better on {won} questions and worse on {lost}"
    )
    if difference.p_adjusted < 0.05:
        return f"really {'better' if gained > 0 else 'worse'}: {shown}."
    needed = (
        f"; some {difference.questions_needed:,} questions would be needed"
        if difference.questions_needed
        else ""
    )
    return f"cannot be told from it: {shown}{needed}."


def _equals(p: float) -> str:
    text = p_value(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _is_cheaper(trial: Trial, than: Trial) -> bool:
    ours, theirs = trial.spending.usd, than.spending.usd
    return ours is not None and theirs is not None and ours < theirs


def _value(trial: Trial, objective: Objective) -> float:
    return trial.objectives[objective.name] or 0.0


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"

"""A paired difference in words."""

from __future__ import annotations

from math import isfinite
from typing import Literal, TypeAlias

from eval.html_report.formatting import count, difference, interval, number, p_value
from eval.paired import PairedDifference
from eval.sweep.results import Objective

ALPHA = 0.05
"""A difference counts as real when its adjusted p value lies below."""

Standing: TypeAlias = Literal["better", "worse", "unclear"]


def gain(pair: PairedDifference, objective: Objective) -> float:
    """How much better the second of the pair is: positive is better, whatever the objective's direction."""
    return -pair.difference.mean if objective.minimize else pair.difference.mean


def is_real(pair: PairedDifference) -> bool:
    """Whether the two can be told apart on these questions."""
    return pair.p_adjusted < ALPHA


def standing(pair: PairedDifference, objective: Objective) -> Standing:
    """How the second of the pair stands to the first, on these questions."""
    if not is_real(pair):
        return "unclear"
    return "better" if gain(pair, objective) > 0 else "worse"


def better_and_worse(pair: PairedDifference, objective: Objective) -> tuple[int, int]:
    """On how many questions the second is better, and worse."""
    return (pair.losses, pair.wins) if objective.minimize else (pair.wins, pair.losses)


def compare(pair: PairedDifference, objective: Objective, name: str, other: str, *, corrected: bool) -> str:
    """How `name`, the second of the pair, stands to `other`: sentences that go on after "it reaches so much, "."""
    found = pair.difference
    better, worse = better_and_worse(pair, objective)
    counted = (
        f"{name} is better on {count(better, 'question')}, worse on {worse:,} and equal on {pair.ties:,}."
    )
    within = interval(objective.name, found.low, found.high, signed=True)
    chance = _chance(pair, corrected=corrected)
    if not is_real(pair):
        return (
            f"its difference from {other}, {difference(objective.name, found.mean)} (95 % interval {within}), "
            f"cannot be told from chance ({chance}). {counted} {_questions_needed(pair, objective)}"
        )
    return (
        f"it is {standing(pair, objective)} than {other} by {number(objective.name, abs(found.mean))} (95 % interval "
        f"of the difference: {within}). The difference is real: chance alone would rarely show as much ({chance}). "
        f"{counted}"
    )


def _chance(pair: PairedDifference, *, corrected: bool) -> str:
    if not corrected or pair.p_adjusted == pair.p_value:
        return p_value(pair.p_value)
    corrected_p, alone = p_value(pair.p_adjusted), p_value(pair.p_value)
    return f"{corrected_p} corrected for all comparisons" + (
        "" if alone == corrected_p else f", {alone} alone"
    )


def _questions_needed(pair: PairedDifference, objective: Objective) -> str:
    if pair.questions_needed is None:
        return "On average the two score alike."
    needed = (
        f"To show a difference of this size, about {count(pair.questions_needed, 'question')} would be needed"
    )
    if not isfinite(pair.detectable):
        return f"{needed}."
    return f"{needed}; these {pair.n:,} can show one of {number(objective.name, pair.detectable)} or more."

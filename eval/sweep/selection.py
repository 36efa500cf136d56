"""Which configuration is best, who cannot be told from it, and what each factor does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.paired import Pair, PairedDifference, compare_pairs
from eval.sweep.results import FactorEffect, Objective, Trial
from eval.sweep.space import label
from eval.sweep.trials import ScoredTrial

_FEWEST_TRIALS = 3


def rank(trials: Sequence[Trial], objectives: Sequence[Objective]) -> tuple[list[int], list[int]]:
    """The numbers of the complete trials, best first, and those on the Pareto front.

    One objective: by its mean; equal ones by what they cost, then by number. Several: the front first, both
    parts ordered by the first objective. Trials without a value for some objective come last.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    losses = {trial.number: _losses(trial, objectives) for trial in complete}
    cost = {trial.number: _cost(trial) for trial in complete}
    order = sorted(losses, key=lambda n: (math.inf in losses[n], losses[n][0], cost[n], n))
    if len(objectives) == 1:
        return order, order[:1]
    front = [n for n in order if math.inf not in losses[n] and not _is_dominated(losses[n], losses.values())]
    return [*front, *(number for number in order if number not in front)], front


def compare_with(
    reference: ScoredTrial, others: Sequence[ScoredTrial], questions: Sequence[str], objective: Objective
) -> dict[int, PairedDifference]:
    """Each other complete trial minus the reference in the objective, Holm-corrected over all of them."""
    base = column(reference, questions)
    return compare_pairs(
        {
            other.trial.number: Pair(objective.name, base, column(other, questions))
            for other in others
            if other.trial.number != reference.trial.number and other.trial.state == "complete"
        }
    )


def factor_effects(
    trials: Sequence[Trial], factors: Sequence[str], objective: Objective
) -> list[FactorEffect]:
    """What each factor does to the objective, over the complete trials."""
    scored = [
        (trial, value)
        for trial in trials
        if trial.state == "complete" and (value := trial.objectives[objective.name]) is not None
    ]
    return [_effect(factor, scored) for factor in factors]


def _effect(factor: str, scored: Sequence[tuple[Trial, float]]) -> FactorEffect:
    groups: dict[str, list[float]] = {}
    for trial, value in sorted(scored, key=lambda pair: _sort_key(pair[0].parameters[factor])):
        groups.setdefault(label(trial.parameters[factor]), []).append(value)
    means = {name: (float(np.mean(values)), len(values)) for name, values in groups.items()}
    return FactorEffect(factor, means, _share_of_variance(list(groups.values())))


def _share_of_variance(groups: Sequence[Sequence[float]]) -> float | None:
    """Between-group over total sum of squares (eta squared)."""
    values = np.concatenate([np.asarray(group) for group in groups]) if groups else np.empty(0)
    if len(values) < max(_FEWEST_TRIALS, 2 * len(groups)):
        # Where hardly any value was tried twice, the values explain everything, and that says nothing.
        return None
    around = float(((values - values.mean()) ** 2).sum())
    between = sum(len(group) * (float(np.mean(group)) - float(values.mean())) ** 2 for group in groups)
    return min(1.0, between / around) if around > 1e-15 else 0.0


def _sort_key(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, label(value))


def column(trial: ScoredTrial, questions: Sequence[str]) -> np.ndarray:
    """The values of the first objective in the order of `questions`; NaN where there is none."""
    return np.array([trial.values.get(id_, math.nan) for id_ in questions], dtype=np.float64)


def _losses(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The objectives with small as good; infinite where there is no value."""
    values = [(trial.objectives[objective.name], objective.minimize) for objective in objectives]
    return tuple(math.inf if value is None else value if minimize else -value for value, minimize in values)


def _cost(trial: Trial) -> float:
    return math.inf if trial.spending.usd is None else trial.spending.usd


def _is_dominated(losses: tuple[float, ...], others: Any) -> bool:
    return any(
        other != losses and all(theirs <= ours for theirs, ours in zip(other, losses, strict=True))
        for other in others
    )

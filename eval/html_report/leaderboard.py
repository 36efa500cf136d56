"""Every configuration as a row: ranked, or with the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.html_report.costs import costs_to_show, value_of
from eval.html_report.exhibits import Labels, ranked
from eval.html_report.formatting import difference, interval, number, p_value
from eval.sweep.results import Objective, SweepResult, Trial

ROWS_AT_MOST = 100
UNRANKED_AT_MOST = 50


@dataclass(frozen=True, slots=True)
class Cell:
    """`text`, with a smaller line under it, and what it is sorted by; None sorts last."""

    text: str
    sort: float | str | None
    under: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A ranked trial. `role` is `winner`, `baseline` or empty."""

    rank: int
    trial: Trial
    role: str
    parameters: Sequence[Cell]
    objectives: Sequence[Cell]
    against_baseline: Cell
    costs: Sequence[Cell]
    unscored: int
    on_front: bool


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The ranked rows, and the trials without a rank, with how many of each were left out.

    `factors` maps each to the shortest name that tells it from the others.
    """

    factors: Mapping[str, str]
    objectives: Sequence[Objective]
    costs: Sequence[Objective]
    rows: Sequence[Row]
    rows_left_out: int
    unranked: Sequence[Trial]
    unranked_left_out: int


def leaderboard(result: SweepResult) -> Leaderboard:
    """The best hundred and, wherever it stands, the baseline."""
    factors = Labels.of(result).short
    named = {objective.name for objective in result.objectives}
    costs = [cost for cost in costs_to_show(result) if cost.name not in named]
    every = list(enumerate(ranked(result), start=1))
    shown = every[:ROWS_AT_MOST] + [
        (rank, t) for rank, t in every[ROWS_AT_MOST:] if t.number == result.baseline
    ]
    unranked = [trial for trial in result.trials if trial.number not in set(result.ranking)]
    return Leaderboard(
        factors=factors,
        objectives=result.objectives,
        costs=costs,
        rows=[_row(result, rank, trial, factors, costs) for rank, trial in shown],
        rows_left_out=len(every) - len(shown),
        unranked=unranked[:UNRANKED_AT_MOST],
        unranked_left_out=max(0, len(unranked) - UNRANKED_AT_MOST),
    )


def _row(
    result: SweepResult, rank: int, trial: Trial, factors: Iterable[str], costs: Sequence[Objective]
) -> Row:
    return Row(
        rank=rank,
        trial=trial,
        role={result.baseline: "baseline", result.winner: "winner"}.get(trial.number, ""),
        parameters=[_parameter(trial, factor) for factor in factors],
        objectives=[_mean(trial, objective) for objective in result.objectives],
        against_baseline=_against_baseline(result, trial),
        costs=[_mean(trial, cost) for cost in costs],
        unscored=trial.summary.overall.unscored,
        on_front=trial.number in result.pareto,
    )


def _parameter(trial: Trial, factor: str) -> Cell:
    value = trial.parameters.get(factor)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Cell("–" if factor not in trial.parameters else str(value), value if is_number else str(value))


def _mean(trial: Trial, objective: Objective) -> Cell:
    value = value_of(trial, objective)
    found = trial.summary.overall.intervals.get(objective.name)
    under = interval(objective.name, found.low, found.high) if found and value is not None else ""
    return Cell(number(objective.name, value), value, under)


def _against_baseline(result: SweepResult, trial: Trial) -> Cell:
    pair = result.against_baseline.get(trial.number)
    if pair is None:
        return Cell("–", None)
    mean = pair.difference.mean
    return Cell(difference(pair.metric, mean), mean, p_value(pair.p_adjusted))

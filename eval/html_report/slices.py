"""The first objective by slice and configuration, as a heat map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.html_report.exhibits import ranked
from eval.html_report.formatting import count, direction, number
from eval.sweep.results import Objective, SweepResult, Trial

COLUMNS_AT_MOST = 8
ROWS_AT_MOST = 40
LEVELS = 6


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean over `n` questions, as text, with how good it is among all cells: 0 (worst) to LEVELS - 1."""

    text: str
    n: int
    level: int | None


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice: a tag and its value, or all questions.

    `questions` counts those that have a value in the first column.
    """

    tag: str
    value: str
    questions: int
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Slices against configurations."""

    finding: str
    reading: str
    trials: Sequence[Trial]
    rows: Sequence[SliceRow]
    note: str


def heat_map(result: SweepResult) -> HeatMap | None:
    """The best configurations and the baseline, slice by slice; None where there are no slices to show.

    Of the first objective that is known by slice: money is not.
    """
    trials = ranked(result, COLUMNS_AT_MOST)
    known = trials[0].summary.overall.intervals if trials else {}
    objective = next((one for one in result.objectives if one.name in known), None)
    if objective is None:
        return None
    if result.baseline in result.ranking and result.baseline not in [trial.number for trial in trials]:
        trials = [*trials[: COLUMNS_AT_MOST - 1], result.trial(result.baseline or 0)]
    means = list(_means(trials, objective.name))
    if len(means) < 2:
        return None
    values = [mean for *_, cells in means for mean, _ in cells if mean is not None]
    low, high = min(values), max(values)
    rows = [
        SliceRow(
            tag,
            value,
            questions,
            [Cell(number(objective.name, mean), n, _level(mean, low, high, objective)) for mean, n in cells],
        )
        for tag, value, questions, cells in means
    ]
    return HeatMap(
        finding=_finding(means[1:], trials[0], objective),
        reading=(
            f"Mean {objective.name} of the best configurations in each slice ({direction(objective)}); the stronger "
            f"the colour, the better, over the range {number(objective.name, low)} to {number(objective.name, high)}. "
            "Slices of few questions vary by chance. A dash: the metric applies to none of the slice’s questions."
        ),
        trials=trials,
        rows=rows[:ROWS_AT_MOST],
        note=f"Shown: {ROWS_AT_MOST} of {len(rows)} slices." if len(rows) > ROWS_AT_MOST else "",
    )


_Means = tuple[str, str, int, list[tuple["float | None", int]]]


def _means(trials: Sequence[Trial], metric: str) -> Iterator[_Means]:
    """The overall row, then each slice of the first trial; slices where the metric applies to none are left out."""
    if not trials:
        return
    keys = [("", "")] + [(tag, value) for tag, slices in trials[0].summary.slices.items() for value in slices]
    for tag, value in keys:
        parts = [
            trial.summary.slices.get(tag, {}).get(value) if tag else trial.summary.overall for trial in trials
        ]
        found = [part.intervals.get(metric) if part else None for part in parts]
        if any(found):
            cells: list[tuple[float | None, int]] = [
                (None, 0) if one is None else (one.mean, one.n) for one in found
            ]
            yield tag, value or "all questions", cells[0][1], cells


def _level(mean: float | None, low: float, high: float, objective: Objective) -> int | None:
    if mean is None:
        return None
    if high == low:
        return LEVELS // 2
    share = (mean - low) / (high - low)
    return min(LEVELS - 1, int((1 - share if objective.minimize else share) * LEVELS))


def _finding(means: Sequence[_Means], first: Trial, objective: Objective) -> str:
    """Where the first configuration is weakest."""
    known = [
        (cells[0][0], tag, value, cells[0][1]) for tag, value, _, cells in means if cells[0][0] is not None
    ]
    if not known:
        return f"#{first.number} has no value in any slice."
    mean, tag, value, n = (max if objective.minimize else min)(known, key=lambda one: one[0] or 0.0)
    where = f"where {tag} is {value}" if tag else "over all questions"
    return f"#{first.number} is weakest {where}: {number(objective.name, mean)} on {count(n, 'question')}."

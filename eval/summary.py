"""The result of a run: every metric's mean with its interval, over all questions and by slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.questions import Question
from eval.stats import RESAMPLES, Interval, bootstrap_means

ScoreRow = Mapping[str, "float | None"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the questions. `intervals[m].n` of the `scored` questions have a value for metric m.

    A metric that applies to no question of the slice is absent from `intervals`. `unscored` questions
    failed, or were not run: they are in no mean.
    """

    intervals: Mapping[str, Interval]
    scored: int
    unscored: int
    not_applicable: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """All questions, and the same by tag and value: `slices["lang"]["ja"]`.

    Questions without the tag are under `"(no lang)"`; a tag that no question has makes no slices.
    """

    overall: Slice
    slices: Mapping[str, Mapping[str, Slice]]


def aggregate(
    scores: Mapping[str, ScoreRow],
    questions: Sequence[Question],
    *,
    by: Sequence[str] = ("type", "lang"),
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Means and bootstrap intervals of `scores` over `questions`, and over their slices by each tag of `by`.

    A question without a row, or with an empty one, counts as unscored and enters no mean. A value of None
    counts as not applicable for that metric alone.
    """

    def summarize(ids: Sequence[str]) -> Slice:
        rows = [row for id_ in ids if (row := scores.get(id_))]
        columns = _columns(rows)
        return Slice(
            intervals=_intervals(columns, confidence, resamples, seed),
            scored=len(rows),
            unscored=len(ids) - len(rows),
            not_applicable={name: int(np.isnan(column).sum()) for name, column in columns.items()},
        )

    return Summary(
        overall=summarize([question.id for question in questions]),
        slices={
            tag: {value: summarize(ids) for value, ids in _ids_by_value(questions, tag).items()}
            for tag in by
            if any(tag in question.tags for question in questions)
        },
    )


def _ids_by_value(questions: Sequence[Question], tag: str) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        ids[question.tags.get(tag, f"(no {tag})")].append(question.id)
    return dict(sorted(ids.items()))


def _columns(rows: Sequence[ScoreRow]) -> dict[str, np.ndarray]:
    """The values of each metric over the rows, NaN where it does not apply."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name) for row in rows], dtype=np.float64) for name in names}


def _intervals(
    columns: Mapping[str, np.ndarray], confidence: float, resamples: int, seed: int
) -> dict[str, Interval]:
    """Metrics that apply to the same questions are resampled together: one draw serves them all."""
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, column in columns.items():
        alike[np.isnan(column).tobytes()].append(name)
    found: dict[str, Interval] = {}
    for names in alike.values():
        block = np.column_stack([columns[name] for name in names])
        block = block[~np.isnan(block[:, 0])]
        if len(block):
            intervals = bootstrap_means(block, confidence=confidence, resamples=resamples, seed=seed)
            found |= dict(zip(names, intervals, strict=True))
    return {name: found[name] for name in columns if name in found}

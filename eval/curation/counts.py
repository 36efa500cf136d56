"""What is in a ground truth, and how small a difference it could show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import mean, median
from typing import Any

import numpy as np

from eval.comparison.pairing import pair_questions, pair_values
from eval.curation.leaks import relevant_documents
from eval.paired import detectable_difference, paired_values
from eval.questions import Question
from eval.scored_runs import ScoredRun
from eval.text_table import table
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean, there_is

DISAGREEMENT = 0.2
"""Assumed where no runs are given: that two configurations differ, as 0 and 1, on one question in five."""

_ALL = "all"
_COUNTED = ("type", "lang")


@dataclass(frozen=True, slots=True)
class Counts:
    """A split's questions, or all of them.

    `gold` is the mean number of relevant documents of the answerable ones, `answer_length` the median characters
    of the expected responses that there are. `detectable` is the smallest true mean difference that a paired
    comparison of two configurations over the answerable questions shows, at 5 % with 80 % power.
    """

    split: str
    questions: int
    unanswerable: int
    with_history: int
    gold: float
    answer_length: float
    by_tag: Mapping[str, Mapping[str, int]]
    detectable: float


def count_questions(questions: Sequence[Question], spread: float) -> list[Counts]:
    """Counts of each split, and of all questions; `spread` is the standard deviation of paired differences."""
    splits: dict[str, list[Question]] = {}
    for question in questions:
        splits.setdefault(question.tags.get("split", "(none)"), []).append(question)
    counted = [_count(split, members, spread) for split, members in sorted(splits.items())]
    return counted if len(counted) == 1 else [*counted, _count(_ALL, questions, spread)]


def assumed_spread() -> float:
    """The spread of paired differences where two configurations differ on `DISAGREEMENT` of the questions."""
    return sqrt(DISAGREEMENT)


def observed_spread(a: ScoredRun, b: ScoredRun, metric: str) -> float:
    """The standard deviation of the differences of a metric between two runs, question by question.

    Raises:
        ConfigurationError: if they do not both have the metric on two questions or more.
        DataError: if they have no question in common.
    """
    both = sorted(a.values.keys() & b.values.keys())
    if metric not in both:
        raise ConfigurationError(
            f"metric {metric!r} is not in both runs. {did_you_mean(metric, both)}In both: {there_is(both)}."
        )
    differences = paired_values(pair_values(a, b, pair_questions(a, b), metric))
    if len(differences) < 2:
        raise ConfigurationError(
            f"'{a.name}' and '{b.name}' have {metric} on fewer than two questions in common."
        )
    return float(np.std(differences, ddof=1))


def render_counts(counts: Sequence[Counts], spread_from: str) -> str:
    """The counts as tables; `spread_from` says where the spread was taken from."""
    rows = [
        [
            count.split,
            str(count.questions),
            f"{count.unanswerable} ({count.unanswerable / count.questions:.0%})",
            str(count.with_history),
            f"{count.gold:.2f}",
            f"{count.answer_length:.0f}",
            f"{count.detectable:.3f}" if isfinite(count.detectable) else "–",
        ]
        for count in counts
    ]
    header = ["split", "questions", "unanswerable", "history", "gold", "answer length", "detectable"]
    parts = [table(header, rows), *(_tag_table(tag, counts) for tag in _COUNTED)]
    notes = (
        "gold: relevant documents of an answerable question, mean. answer length: characters, median.\n"
        "detectable: the smallest true mean difference that a paired comparison of two configurations over the "
        f"answerable questions\nshows, at 5 % with 80 % power, {spread_from}."
    )
    return "\n\n".join([*(part for part in parts if part), notes])


def counts_as_json(counts: Sequence[Counts], spread: float) -> dict[str, Any]:
    """The counts for a machine."""
    return {
        "spread": spread,
        "splits": {
            count.split: {
                "questions": count.questions,
                "unanswerable": count.unanswerable,
                "with_history": count.with_history,
                "gold_documents": count.gold,
                "answer_length": count.answer_length,
                "by_tag": {tag: dict(values) for tag, values in count.by_tag.items()},
                "detectable": count.detectable if isfinite(count.detectable) else None,
            }
            for count in counts
        },
    }


def _count(split: str, questions: Sequence[Question], spread: float) -> Counts:
    gold = [len(documents) for documents in map(relevant_documents, questions) if documents]
    lengths = [len(question.expected_response) for question in questions if question.expected_response]
    return Counts(
        split=split,
        questions=len(questions),
        unanswerable=len(questions) - len(gold),
        with_history=sum(bool(question.history) for question in questions),
        gold=mean(gold) if gold else 0.0,
        answer_length=median(lengths) if lengths else 0.0,
        by_tag={tag: _tag_counts(questions, tag) for tag in _COUNTED},
        detectable=detectable_difference(spread, len(gold)),
    )


def _tag_counts(questions: Iterable[Question], tag: str) -> Mapping[str, int]:
    counts = Counter(question.tags[tag] for question in questions if tag in question.tags)
    return dict(sorted(counts.items()))


def _tag_table(tag: str, counts: Sequence[Counts]) -> str:
    values = sorted({value for count in counts for value in count.by_tag[tag]})
    if not values:
        return ""
    rows = [[count.split, *(str(count.by_tag[tag].get(value, 0)) for value in values)] for count in counts]
    return table([tag, *values], rows)

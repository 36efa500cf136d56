"""Recall by depth: how much of the gold stands among the first documents that were retrieved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from eval.html_report.rows import GoldOf, Row


@dataclass(frozen=True, slots=True)
class DepthCurve:
    """`recall[d - 1]` is recall@d, the mean over the `questions` that are answerable and scored."""

    trial: int
    recall: tuple[float, ...]
    questions: int


class DepthTally:
    """Adds up one trial's curve while its rows pass by.

    As in `eval.ranking_metrics`: documents by first occurrence, a group of alternatives is one document, and
    finding any of it is finding it.
    """

    def __init__(self, trial: int, gold_of: GoldOf) -> None:
        self._trial = trial
        self._gold_of = gold_of
        self._found_at: defaultdict[int, float] = defaultdict(float)
        self._deepest = 0
        self._questions = 0

    def take(self, row: Row) -> None:
        """Count a row in, unless it is unscored or unanswerable."""
        groups = [] if row.get("error") is not None else self._gold_of(row)
        if not groups:
            return
        ranks, documents = gold_ranks(row, groups, self._gold_of)
        self._questions += 1
        self._deepest = max(self._deepest, documents)
        for rank in ranks:
            self._found_at[rank] += 1 / len(groups)

    def curve(self) -> DepthCurve:
        """What was counted."""
        found = accumulate(self._found_at[depth] for depth in range(1, self._deepest + 1))
        return DepthCurve(self._trial, tuple(n / self._questions for n in found), self._questions)


def gold_ranks(row: Row, groups: Sequence[object], gold_of: GoldOf) -> tuple[list[int], int]:
    """At which document ranks the groups stand that were retrieved, and how many documents were."""
    from eval.ranking_metrics import to_trec_run

    keys = [gold_of.normalize(found["doc_uri"]) for found in row.get("retrieved", ())]
    ranking = list(to_trec_run(keys, gold_of(row)))
    return [ranking.index(name) + 1 for n in range(len(groups)) if (name := f"gold{n}") in ranking], len(
        ranking
    )

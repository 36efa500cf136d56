"""What the report shows of single questions, read from the trials' rows in one pass, a row at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.html_report.depth import DepthCurve, DepthTally
from eval.html_report.exhibits import ranked
from eval.html_report.formatting import shorten
from eval.html_report.hardest import Difficulty, HardQuestion, difficulty_metric, with_evidence
from eval.html_report.rows import GoldOf, has_rows, read_rows
from eval.sweep.results import SweepResult, Trial

TRIALS_READ_AT_MOST = 50
_CURVES_TRIED = 10
_REASON_EM = 120


@dataclass(frozen=True, slots=True)
class QuestionEvidence:
    """Curves, winner first; the hardest questions; why questions are unscored; trials whose rows are gone.

    `trials_read` complete trials were looked at, the best ones. `metric` is what `hardest` was judged by, and
    `equally_hard` counts the questions that share the worst mean.
    """

    curves: Sequence[DepthCurve] = ()
    hardest: Sequence[HardQuestion] = ()
    metric: str = ""
    equally_hard: int = 0
    unscored_reasons: Mapping[str, int] = field(default_factory=dict)
    missing: Sequence[int] = ()
    trials_read: int = 0


def read_question_evidence(result: SweepResult) -> QuestionEvidence:
    """Read the rows of the best complete trials and of the baseline, holding one row of each at a time.

    Raises:
        DataError: if a row is damaged.
        StorageError: if the disk refuses.
    """
    trials = _winner_and_baseline_first(result)
    present = [trial for trial in trials if has_rows(trial)]
    if not present:
        return QuestionEvidence(missing=[trial.number for trial in trials])
    objective = difficulty_metric(result)
    difficulty = Difficulty(objective.name if objective else "")
    reasons: Counter[str] = Counter()
    gold_of = GoldOf(present[0])
    curves = []
    for place, trial in enumerate(present):
        tally = DepthTally(trial.number, gold_of) if place < _CURVES_TRIED else None
        for row in read_rows(trial):
            difficulty.take(row)
            if tally:
                tally.take(row)
            if row.get("error") is not None:
                reasons[shorten(str(row["error"]), _REASON_EM)] += 1
        if tally:
            curves.append(tally.curve())
    hard = difficulty.hardest(minimize=objective.minimize) if objective else []
    shown = [trial for trial in present if trial.number in (result.winner, result.baseline)]
    return QuestionEvidence(
        curves=curves,
        hardest=with_evidence(hard, shown, objective.name, gold_of) if objective else [],
        metric=objective.name if objective else "",
        equally_hard=difficulty.always_worst(minimize=objective.minimize) if objective else 0,
        unscored_reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:5]),
        missing=[trial.number for trial in trials if trial not in present],
        trials_read=len(present),
    )


def _winner_and_baseline_first(result: SweepResult) -> list[Trial]:
    best = ranked(result, TRIALS_READ_AT_MOST)
    first = [
        result.trial(n) for n in dict.fromkeys((result.winner, result.baseline)) if n in result.ranking and n
    ]
    return [*first, *(trial for trial in best if trial not in first)]

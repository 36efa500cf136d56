"""The best configuration once more, on questions that did not choose it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from eval.ground_truth import GroundTruth
from eval.paired import compare_paired
from eval.records import write_json
from eval.sweep.results import FinalCheck, Trial
from eval.sweep.selection import column
from eval.sweep.space import label
from eval.sweep.trials import TrialFailedError, TrialPlan, run_trial

_READS = "held-out-reads.json"


def check_winner(
    plan: TrialPlan, reported_on: GroundTruth, split: str, winner: Trial, baseline: Trial | None
) -> FinalCheck:
    """Evaluate the winner and the baseline on `reported_on`, and count that these questions were looked at.

    Raises:
        TrialFailedError: if one of the two cannot be evaluated there, or has no value.
        StorageError: if the disk refuses.
    """
    digest = reported_on.digest
    held_out = replace(
        plan, ground_truth=reported_on, digest=digest, split=split, order=reported_on.questions, looks=()
    )
    objective = plan.objectives[0].name
    best = run_trial(held_out, winner.number, winner.parameters)
    other = (
        run_trial(held_out, baseline.number, baseline.parameters)
        if baseline is not None and baseline.number != winner.number
        else None
    )
    value, chosen_on = best.trial.objectives[objective], winner.objectives[objective]
    if value is None or chosen_on is None:
        raise TrialFailedError(best.trial.reason or f"{objective} applies to no question of {split}")
    if other is not None and other.trial.state != "complete":
        raise TrialFailedError(f"the baseline, with which it is compared: {other.trial.reason}")
    ids = [question.id for question in reported_on.questions]
    return FinalCheck(
        split=split,
        questions=len(ids),
        objective=objective,
        chosen_on=chosen_on,
        held_out=value,
        baseline_held_out=other.trial.objectives[objective] if other else None,
        difference=compare_paired(objective, column(other, ids), column(best, ids)) if other else None,
        winner_path=best.trial.path,
        baseline_path=other.trial.path if other else None,
        reads=_count_read(plan.directory.parent / _READS, digest, label(dict(winner.parameters))),
    )


def _count_read(file: Path, questions: str, winner: str) -> int:
    """Which look at these questions this is: each different winner makes them less fresh for the next."""
    try:
        seen: dict[str, list[str]] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        seen = {}
    winners = seen.setdefault(questions, [])
    if winner not in winners:
        winners.append(winner)
        write_json(file, seen)
    return winners.index(winner) + 1

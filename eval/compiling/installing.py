"""The chosen program where the configuration finds it, with what it scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.paired import PairedDifference
from eval.records import disk_refusals, write_json
from eval.stats import Interval
from eval.sweep.results import SweepResult, Trial


def install(winner: Path, target: Path, selection: SweepResult) -> None:
    """Write the winner's program file to `target`, its scores and those of the seed in its provenance.

    Raises:
        StorageError: if the disk refuses.
    """
    with disk_refusals(target):
        body = json.loads(winner.read_bytes())
        target.parent.mkdir(parents=True, exist_ok=True)
    body["provenance"] = {**body.get("provenance", {}), "scores": scores(selection)}
    write_json(target, body)


def scores(selection: SweepResult) -> dict[str, Any]:
    """Every metric of the seed and of the winner on `dev`, and how they compare on the questions that chose nothing."""
    said: dict[str, Any] = {}
    if selection.baseline is not None:
        said["seed"] = _means(selection.trial(selection.baseline))
    if selection.winner is not None:
        said["winner"] = _means(selection.trial(selection.winner))
    if (final := selection.final) is not None:
        said["held_out"] = {
            "split": final.split,
            "questions": final.questions,
            "winner": final.held_out,
            "seed": final.baseline_held_out,
            "difference": _difference(final.difference),
        }
    return said


def _means(trial: Trial) -> dict[str, list[float]]:
    return {name: _interval(interval) for name, interval in trial.summary.overall.intervals.items()}


def _interval(interval: Interval) -> list[float]:
    return [round(interval.mean, 6), round(interval.low, 6), round(interval.high, 6), interval.n]


def _difference(difference: PairedDifference | None) -> dict[str, float] | None:
    if difference is None:
        return None
    interval = difference.difference
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "p": difference.p_value}

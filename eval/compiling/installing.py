"""The chosen program where the configuration finds it, with what it scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.records import disk_refusals
from eval.sweep.results import FinalCheck, SweepResult
from program.program_file import ProgramFile, read_program_file, write_program_file
from program.provenance import Provenance

_DIGITS = 6


def install(winner: Path, target: Path, selection: SweepResult) -> None:
    """Write the winner's program file to `target`, its scores and those of the seed in its provenance.

    Raises:
        ProgramStateError: if the winner's file is not usable, or the other cannot be written.
        StorageError: if the disk refuses.
    """
    program = read_program_file(winner)
    provenance = {**program.provenance.as_json(), "scores": scores(selection)}
    with disk_refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_program_file(
        target,
        ProgramFile(predictors=program.predictors, provenance=Provenance.model_validate(provenance)),
    )


def scores(selection: SweepResult) -> dict[str, Any]:
    """Every metric of the seed and of the winner where it was chosen, and on the questions that chose nothing.

    As `program.provenance.SavedScores` has them: `dev`, and `test` with the difference in the objective.
    """
    dev = {
        key: _means(selection.trial(number).path)
        for key, number in (("seed", selection.baseline), ("this", selection.winner))
        if number is not None
    }
    said: dict[str, Any] = {"dev": dev}
    if selection.final is not None:
        said["test"] = _held_out(selection.final)
    return said


def _held_out(final: FinalCheck) -> dict[str, Any]:
    said: dict[str, Any] = {"split": final.split, "this": _means(final.winner_path)}
    if final.baseline_path is not None:
        said["seed"] = _means(final.baseline_path)
    if (difference := final.difference) is not None:
        interval = difference.difference
        values = [round(value, _DIGITS) for value in (interval.mean, interval.low, interval.high)]
        said["difference"] = {difference.metric: [*values, difference.n]}
        said["p"] = {difference.metric: difference.p_value}
    return said


def _means(run: Path) -> dict[str, list[float]]:
    """The means of a trial with their intervals, from its run directory."""
    with disk_refusals(run):
        summary: Mapping[str, Any] = json.loads((run / "summary.json").read_bytes())
    return {
        name: [*(round(interval[key], _DIGITS) for key in ("mean", "low", "high")), interval["n"]]
        for name, interval in summary["overall"]["intervals"].items()
    }

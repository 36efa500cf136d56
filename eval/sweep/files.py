"""A sweep's result on disk: for machines, for the next command, and for people."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from eval.records import replace_file, write_json
from eval.sweep.results import SweepResult, Trial
from eval.sweep.space import Space

RESULT, WINNER, REPORT = "result.json", "winner.yaml", "report.html"


def to_json_object(result: SweepResult) -> dict[str, Any]:
    """The whole result as JSON holds it; of each trial's summary what it is over all questions."""
    body: dict[str, Any] = _plain(asdict(replace(result, trials=())))
    return body | {"trials": [_plain(_trial(trial)) for trial in result.trials]}


def _trial(trial: Trial) -> dict[str, Any]:
    overall = trial.summary.overall
    return {
        **{field.name: getattr(trial, field.name) for field in fields(trial) if field.name != "summary"},
        "spending": asdict(trial.spending),
        "scored": overall.scored,
        "unscored": overall.unscored,
        "intervals": {name: asdict(interval) for name, interval in overall.intervals.items()},
    }


def write_result(result: SweepResult, space: Space) -> None:
    """Write `result.json`, and the winner as a configuration file that every command takes.

    Raises:
        StorageError: if the disk refuses.
    """
    write_json(result.path / RESULT, to_json_object(result))
    if result.winner is not None:
        settings = space.settings(result.trial(result.winner).parameters)
        text = yaml.safe_dump(
            settings.model_dump(mode="json", exclude_unset=True), allow_unicode=True, sort_keys=False
        )
        note = f"# The best of {len(result.ranking)} configurations of the sweep {result.name!r}: {result.path}\n"
        replace_file(result.path / WINNER, (note + text).encode())


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
    return value

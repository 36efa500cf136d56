"""The rows of a trial's `scores.jsonl`, one at a time, and what its `run.json` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.questions import GoldGroup, GoldItem, Question, document_groups
from eval.sweep.results import Trial
from eval.uris import UriNormalization, uri_normalizer
from retrieval.errors import DataError, StorageError

Row = Mapping[str, Any]


def has_rows(trial: Trial) -> bool:
    """Whether the evidence of its questions is still there."""
    return (trial.path / "scores.jsonl").exists()


def read_rows(trial: Trial) -> Iterator[dict[str, Any]]:
    """Its questions in their order, as a stream; none where the file is not there.

    Raises:
        DataError: if a line is not what `citeqa eval` writes, naming it.
        StorageError: if the disk refuses.
    """
    file = trial.path / "scores.jsonl"
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _parse(line, file, number)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"'{file}' cannot be read: {error.strerror or error}.") from error


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row["id"], str) and isinstance(row["metrics"], dict):
            return dict(row)
        reason = "id or metrics is of another kind"
    except (ValueError, TypeError, KeyError) as error:
        reason = repr(error)
    raise DataError(
        f"{file}, line {number}: not a scored question ({reason}). Remove '{file.parent}' and run the sweep again."
    )


class GoldOf:
    """The gold documents of a row, in groups of alternatives, under the URI rules of the run that scored it."""

    def __init__(self, trial: Trial) -> None:
        self.normalize: Callable[[str], str] = uri_normalizer(_normalization(trial.path / "run.json"))
        self._groups: dict[str, list[GoldGroup]] = {}

    def __call__(self, row: Row) -> list[GoldGroup]:
        """Worked out once for each question: all trials ask the same ones."""
        found = self._groups.get(row["id"])
        if found is None:
            gold = tuple(tuple(map(GoldItem, alternatives)) for alternatives in row.get("gold", ()))
            question = Question(row["id"], row.get("question") or "?", gold)
            found = self._groups[row["id"]] = document_groups(question, self.normalize)
        return found


def _normalization(run_file: Path) -> UriNormalization:
    try:
        settings = json.loads(run_file.read_bytes())["settings"]["evaluation"]["uris"]
        parameters = tuple(settings.pop("drop_query_parameters", UriNormalization().drop_query_parameters))
        return UriNormalization(**settings, drop_query_parameters=parameters)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return UriNormalization()

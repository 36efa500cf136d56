"""A scored run from its `scores.jsonl`: all values in memory, all evidence left on disk until it is asked for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.scored_runs import ScoredRun
from eval.uris import UriNormalization
from retrieval.errors import DataError, StorageError

SCORES_FILE = "scores.jsonl"
_NOT_ANSWERED = "not answered"
_ANSWERS_DEPEND_ON = ("chunking", "retrieval", "reader", "language_model", "program")


def read_run_directory(path: Path) -> ScoredRun:
    """The run of a directory that `citeqa eval` or a sweep wrote. Raises as `read_score_file`."""
    manifest = _read_manifest(path / "run.json")
    settings = {section: manifest["settings"].get(section) for section in _ANSWERS_DEPEND_ON}
    scored = read_score_file(path / SCORES_FILE, name=path.resolve().name)
    return replace(
        scored,
        settings={key: value for key, value in dotted(settings) if value is not None},
        dataset=str(manifest["dataset"].get("digest") or ""),
        uris=_normalization(manifest["settings"]),
    )


def read_score_file(path: Path, *, name: str | None = None, source: str | None = None) -> ScoredRun:
    """The run of one file. A question with an error, or without any metric, is unscored.

    Raises:
        DataError: if a line is not a scored question, an id occurs twice, or no question is there.
        StorageError: if the file cannot be read.
    """
    table = _Table(path)
    for place, number, line in _lines(path):
        table.add(_parse(line, f"{path}, line {number}"), place, number)
    if not table.questions:
        raise DataError(f"{path}: holds no scored question. Score the run first: citeqa eval")
    return ScoredRun(
        name=name or path.stem,
        source=source or str(path),
        questions=table.questions,
        values=table.values(),
        tags=table.tags,
        unscored=table.unscored,
        row=table.row_reader(),
    )


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Table:
    """What is kept of each line: a few numbers, and where the rest is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.questions: dict[str, str] = {}
        self.tags: dict[str, Mapping[str, str]] = {}
        self.unscored: dict[str, str] = {}
        self._scores: dict[str, dict[int, float]] = defaultdict(dict)
        self._places: dict[str, int] = {}

    def add(self, row: Mapping[str, Any], place: int, number: int) -> None:
        id_ = row["id"]
        if id_ in self.questions:
            raise DataError(f"{self._path}, line {number}: question {id_!r} is there twice. Remove one.")
        self.questions[id_] = row["question"]
        self._places[id_] = place
        if row.get("tags"):
            self.tags[id_] = {str(tag): str(value) for tag, value in row["tags"].items()}
        if row.get("error") or not row["metrics"]:
            self.unscored[id_] = row.get("error") or _NOT_ANSWERED
            return
        position = len(self.questions) - 1
        for metric, value in row["metrics"].items():
            scores = self._scores[metric]
            if value is not None:
                scores[position] = value

    def values(self) -> dict[str, NDArray[np.float64]]:
        """An array for each metric; infinite values count as none."""
        return {metric: self._array(scores) for metric, scores in self._scores.items()}

    def _array(self, scores: Mapping[int, float]) -> NDArray[np.float64]:
        array = np.full(len(self.questions), np.nan)
        array[list(scores)] = list(scores.values())
        array[np.isinf(array)] = np.nan
        return array

    def row_reader(self) -> Callable[[str], Mapping[str, Any]]:
        path, places = self._path, self._places

        def read(id_: str) -> Mapping[str, Any]:
            if id_ not in places:
                return {}
            try:
                with path.open("rb") as file:
                    file.seek(places[id_])
                    line = file.readline()
            except OSError as error:
                raise StorageError(f"'{path}' cannot be read: {error.strerror or error}") from error
            row = _parse(line, str(path))
            if row["id"] != id_:
                raise DataError(f"{path} was changed while it was read. Run the command again.")
            return row

        return read


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Each line with its place in bytes and its number."""
    try:
        with path.open("rb") as file:
            place = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield place, number, line
                place += len(line)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{place}: not valid JSON: {error}. Score the run again: citeqa eval --rescore"
        ) from None
    wrong = _what_is_wrong(row)
    if wrong:
        raise DataError(f"{place}: not a scored question: {wrong}. Is this a scores.jsonl of citeqa?")
    return dict(row)


def _what_is_wrong(row: Any) -> str:
    if not isinstance(row, dict):
        return f"it holds {type(row).__name__}, not an object"
    for field, kind in (("id", str), ("question", str), ("metrics", dict)):
        if not isinstance(row.get(field), kind):
            return f"{field} = {row.get(field)!r}"
    for metric, value in row["metrics"].items():
        if value is not None and not isinstance(value, int | float):
            return f"metrics.{metric} = {value!r}"
    return "" if isinstance(row.get("tags") or {}, dict) else f"tags = {row['tags']!r}"


def _normalization(settings: Mapping[str, Any]) -> UriNormalization | None:
    """As the run was scored; None where the manifest, which another version may have written, does not say."""
    try:
        return UriNormalization(**settings["evaluation"]["uris"])
    except (KeyError, TypeError):
        return None


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The settings and the dataset of a run; empty where it has no manifest, as copied files do not."""
    try:
        manifest = json.loads(path.read_bytes())
        return {section: dict(manifest.get(section) or {}) for section in ("settings", "dataset")}
    except FileNotFoundError:
        return {"settings": {}, "dataset": {}}
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}). Compare its {SCORES_FILE} instead.") from None

"""The questions of a batch: the rows of a table, of which named columns are asked and all are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from program.well_formed import well_formed
from retrieval.errors import ConfigurationError, DataError, RequestError
from retrieval.suggestions import did_you_mean
from retrieval.tables import read_rows, table_format

FORMATS = (".csv", ".jsonl", ".parquet")

FIELDS = ("question", "id", "history", "k", "filters")
"""What a column can be: the first two are read under their own name, the others only where one is named."""

_MISSING = object()
_DIGEST_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: its number from 0, its place for a person, and all that it holds."""

    number: int
    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks, as an agent's request holds it."""

    question: str
    history: Sequence[Mapping[str, Any]] = ()
    k: int | None = None
    filters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class QuestionTable:
    """A table of questions that was read through once, and whose every row can be told by its number and id.

    `columns` says for each field which column it is; `names` are all columns. `unusable` rows, of `count`,
    ask nothing (an empty question, say), and `complaint` is the first one's. `digest` is of the file.
    """

    path: Path
    columns: Mapping[str, str]
    names: tuple[str, ...]
    count: int
    unusable: int
    complaint: str
    digest: str

    @classmethod
    def open(cls, path: Path, columns: Mapping[str, str] | None = None) -> QuestionTable:
        """Read the table through. `columns` is as `parse_columns` gives it.

        Raises:
            DataError: if the file cannot be read, is no table, holds no question, lacks a column, or two rows
                have one id; names the place.
        """
        if table_format(path) not in FORMATS:
            raise DataError(f"{path}: questions are read from {', '.join(FORMATS)} files. Convert it to one.")
        digest = file_digest(path)
        wanted = {"question": "question", "id": "id", **(columns or {})}
        wanted = {field: column for field, column in wanted.items() if column}
        survey = _Survey(path, wanted)
        for place, values in read_rows(path):
            survey.take(place, values)
        survey.check(explicit=columns or {})
        return cls(
            path=path,
            columns={field: column for field, column in wanted.items() if field in survey.found},
            names=tuple(survey.names),
            count=survey.count,
            unusable=survey.unusable,
            complaint=survey.complaint,
            digest=digest,
        )

    def rows(self, limit: int | None = None) -> Iterator[Row]:
        """The rows in their order, as a stream.

        Raises:
            DataError: if the file cannot be read any longer.
        """
        for number, (place, values) in enumerate(islice(read_rows(self.path), limit)):
            yield Row(number, place, values)

    def id_of(self, row: Row) -> Any:
        """The row's id as the table has it, or its number from 1 where there is no such column."""
        return _look_up(row.values, self.columns["id"]) if "id" in self.columns else row.number + 1

    def question_of(self, row: Row) -> Any:
        """What the row has for a question, whatever it is; None where it has nothing."""
        value = _look_up(row.values, self.columns["question"])
        return None if value is _MISSING else value

    def carried(self) -> tuple[str, ...]:
        """The columns that go through as they are: all but those that are the question and the id."""
        shown = {self.columns.get("question"), self.columns.get("id")}
        return tuple(name for name in self.names if name not in shown)

    def asked(self, row: Row) -> Asked:
        """What the row asks.

        Raises:
            RequestError: if it asks nothing, or its history, k or filters are not usable.
        """
        return Asked(
            _question(self.question_of(row)),
            history=_parsed(self._cell(row, "history"), "history", list) or (),
            k=_parsed(self._cell(row, "k"), "k", int),
            filters=_parsed(self._cell(row, "filters"), "filters", dict),
        )

    def _cell(self, row: Row, field: str) -> Any:
        value = _look_up(row.values, self.columns[field]) if field in self.columns else None
        return None if value is _MISSING or is_empty(value) else value


def parse_columns(options: Sequence[str]) -> dict[str, str]:
    """`question=q` as a mapping from a field to its column. A dot reaches into nested values (`inputs.question`).

    `id=` says that no column is the id.

    Raises:
        ConfigurationError: if an option is no such pair, or names no field, or one twice.
    """
    columns: dict[str, str] = {}
    for option in options:
        field, equals, column = (part.strip() for part in option.partition("="))
        if not equals:
            raise ConfigurationError(f"--column {option}: write it as field=column, for example question=q")
        if field not in FIELDS:
            raise ConfigurationError(
                f"--column {option}: there is no field {field!r}. {did_you_mean(field, FIELDS)}"
                f"Fields are: {', '.join(FIELDS)}."
            )
        if field in columns:
            raise ConfigurationError(f"--column {option}: {field} is {columns[field]!r} already. Name one.")
        if not column and field != "id":
            raise ConfigurationError(f"--column {option}: name the column, for example {field}=q")
        columns[field] = column
    return columns


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: no text, None, or a table's NaN."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes. Raises DataError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_DIGEST_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from None
    return digest.hexdigest()


class _Survey:
    """What there is in a table, found in one pass over it."""

    def __init__(self, path: Path, wanted: Mapping[str, str]) -> None:
        self._path = path
        self._wanted = wanted
        self._ids: dict[str, str] = {}
        self._without_id = ""
        self.names: dict[str, None] = {}
        self._nested: dict[str, None] = {}
        self.found: set[str] = set()
        self.count = self.unusable = 0
        self.complaint = ""

    def take(self, place: str, values: Mapping[str, Any]) -> None:
        self.count += 1
        self.names.update(dict.fromkeys(values))
        for name, value in values.items():
            if isinstance(value, dict):
                self._nested.update(dict.fromkeys(f"{name}.{key}" for key in value))
        cells = {field: _look_up(values, column) for field, column in self._wanted.items()}
        self.found.update(field for field, value in cells.items() if value is not _MISSING)
        try:
            _question(cells["question"])
        except RequestError as error:
            self.unusable += 1
            self.complaint = self.complaint or f"{place}: {error}"
        if "id" in cells:
            self._take_id(cells["id"], place)

    def _take_id(self, value: Any, place: str) -> None:
        if value is _MISSING or is_empty(value):
            self._without_id = self._without_id or place
            return
        if isinstance(value, bool | list | dict):
            raise DataError(f"{place}: the id is {value!r}, neither text nor a number. {_OTHER_ID}")
        other = self._ids.setdefault(str(value), place)
        if other != place:
            raise DataError(f"{place}: the id {value!r} is also that of {other}. {_OTHER_ID}")

    def check(self, explicit: Mapping[str, str]) -> None:
        if not self.count:
            raise DataError(f"{self._path}: holds no questions.")
        for field, column in self._wanted.items():
            if field not in self.found and (field == "question" or field in explicit):
                raise DataError(
                    f"{self._path}: there is no column {column!r} for {field}. "
                    f"{did_you_mean(column, [*self.names, *self._nested])}The columns are: {', '.join(self.names)}. "
                    f"Name yours: --column {field}=…"
                )
        if "id" in self.found and self._without_id:
            raise DataError(f"{self._without_id}: the id is empty. {_OTHER_ID}")


_OTHER_ID = "Give each row its own, or number the rows with --column id="


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    """The value under a name, or under a path of names with dots between; `_MISSING` where there is none."""
    if name in values:
        return values[name]
    value: Any = values
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _question(value: Any) -> str:
    if value is _MISSING or is_empty(value):
        raise RequestError("The question is empty.")
    if not isinstance(value, str):
        raise RequestError(f"The question is {_shortened(value)}, which is not text.")
    return well_formed(value)


def _parsed(cell: Any, field: str, kind: type) -> Any:
    """A cell of `kind`; from a table that holds text alone, as JSON."""
    value = cell
    if isinstance(cell, str):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            value = _MISSING
    if isinstance(value, float) and kind is int and value.is_integer():
        value = int(value)  # a Parquet column of numbers that also has gaps, as pandas writes it
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        wanted = {list: "a list of messages", int: "a whole number", dict: "an object of conditions"}[kind]
        raise RequestError(f"{field} is {_shortened(cell)}, not {wanted}.")
    return _without_nones(value) if kind is dict else value


def _without_nones(value: Any) -> Any:
    """Parquet gives each object the keys of all others, with None for those that it has not."""
    return {key: item for key, item in value.items() if item is not None} if value else value


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

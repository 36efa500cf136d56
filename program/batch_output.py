"""The answers of a batch as a table: one row for each question, in the order in which they were given.

The fields of an answer come first, then every other column of the questions, unchanged. A column with the name
of such a field is called `input_<name>`. JSON Lines and Parquet hold nested values as they are, CSV as JSON text.
"""

from __future__ import annotations

import base64
import csv
import datetime
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from program.batch_questions import QuestionTable, Row
from program.files import to_json
from program.well_formed import well_formed, well_formed_value
from retrieval.tables import table_format

ANSWER_FIELDS = (
    "answer",
    "cited_uris",
    "sources",
    "abstained",
    "reader",
    "fallback_reason",
    "usage",
    "latency_ms",
    "trace_id",
    "error",
)
"""What is known of each answered question, beside its `id` and `question`."""

_OWN = ("id", "question", *ANSWER_FIELDS)
_PARQUET_ROWS = 1000
_EXACT_AS_FLOAT = 2**53
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Answers = Iterable[Mapping[str, Any]]
"""What is known of each row's answer, by field, in the order of the rows."""


def write_table(path: Path, table: QuestionTable, answers: Answers) -> None:
    """Write the answers of the table's first rows, as many as there are answers, to a `.csv`, `.jsonl` or `.parquet`.

    Nothing but a row is held in memory, and of Parquet a thousand.

    Raises:
        OSError: if the disk refuses.
        DataError: if the questions cannot be read.
    """
    match table_format(path):
        case ".csv":
            _write_csv(path, table, answers)
        case ".parquet":
            _write_parquet(path, table, answers)
        case _:
            _write_json_lines(path, table, answers)


def output_names(table: QuestionTable) -> dict[str, str]:
    """What each column that goes through is called in the output."""
    names: dict[str, str] = {}
    for column in table.carried():
        name = column
        while name in _OWN or name in names.values() or (name != column and name in table.carried()):
            name = f"input_{name}"
        names[column] = name
    return names


def _write_json_lines(path: Path, table: QuestionTable, answers: Answers) -> None:
    names = output_names(table)
    with path.open("wb") as file:
        for row, answer in zip_answers(table.rows(), answers):
            file.write(to_json(_to_json_value(_output_row(table, row, answer, names))) + b"\n")


def _write_csv(path: Path, table: QuestionTable, answers: Answers) -> None:
    names = output_names(table)
    # Spreadsheets read a file without the mark in the encoding of the country.
    encoding = "utf-8-sig" if _has_byte_order_mark(table.path) else "utf-8"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_OWN, *map(well_formed, names.values())])
        for row, answer in zip_answers(table.rows(), answers):
            cells = _output_row(table, row, answer, names)
            writer.writerow([_to_csv_cell(cells[name]) for name in (*_OWN, *names.values())])


def zip_answers(rows: Iterator[Row], answers: Answers) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    """Each row with its answer, for as many as there are answers."""
    # The answers first: `zip` would read a row too many, and a limit is a limit.
    for answer in answers:
        row = next(rows, None)
        if row is None:
            return
        yield row, answer


def _output_row(
    table: QuestionTable, row: Row, answer: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "id": table.id_of(row),
        "question": table.question_of(row),
        **{field: answer.get(field) for field in ANSWER_FIELDS},
        **{name: row.values.get(column) for column, name in names.items()},
    }


def _to_json_value(value: Any) -> Any:
    """A value that JSON has. A NaN, a table's word for nothing, is null; dates are written in ISO 8601."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None if math.isnan(value) else str(value)
        case Mapping():
            return {str(key): _to_json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_json_value(item) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def _to_json_text(value: Any) -> str:
    return json.dumps(_to_json_value(value), ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _to_csv_cell(value: Any) -> str:
    plain = _to_json_value(value)
    if plain is None:
        return ""
    return well_formed(plain) if isinstance(plain, str) else _to_json_text(plain)


def _has_byte_order_mark(path: Path) -> bool:
    with path.open("rb") as file:
        return table_format(path) == ".csv" and file.read(3) == _BYTE_ORDER_MARK


class _Kind(Enum):
    """What the values of a column have in common, as a type that Parquet has; JSON text when it is nothing."""

    NOTHING = "nothing"
    BOOL = "bool"
    INTEGER = "integer that a float holds exactly"
    LONG = "64 bit integer"
    FLOAT = "float"
    TEXT = "text"
    TEXTS = "list of texts"
    JSON = "json"


def _kind(value: Any) -> _Kind:
    match value:
        case None:
            return _Kind.NOTHING
        case bool():
            return _Kind.BOOL
        case int() if abs(value) <= _EXACT_AS_FLOAT:
            return _Kind.INTEGER
        case int() if -(2**63) <= value < 2**63:
            return _Kind.LONG
        case float():
            return _Kind.FLOAT
        case str():
            return _Kind.TEXT
        case list() if all(isinstance(item, str) for item in value):
            return _Kind.TEXTS
    return _Kind.JSON


def _common(one: _Kind, other: _Kind) -> _Kind:
    if one is other or other is _Kind.NOTHING:
        return one
    match {one, other}:
        case kinds if _Kind.NOTHING in kinds:
            return other
        case kinds if kinds == {_Kind.INTEGER, _Kind.LONG}:
            return _Kind.LONG
        case kinds if kinds == {_Kind.INTEGER, _Kind.FLOAT}:
            return _Kind.FLOAT
    return _Kind.JSON


def _write_parquet(path: Path, table: QuestionTable, answers: Answers) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    known_types = answer_types()
    writer: Any = None
    waiting = iter(answers)
    try:
        for given in _given_batches(table):
            batch = list(islice(waiting, given.num_rows))
            if not batch:
                break
            rows = [{name: well_formed_value(row.get(name)) for name in ANSWER_FIELDS} for row in batch]
            known = pa.Table.from_pylist(rows, schema=known_types)
            merged = _side_by_side(given.slice(0, len(batch)), known)
            writer = writer or parquet.ParquetWriter(path, merged.schema)
            writer.write_table(merged)
    except pa.ArrowException as error:
        raise OSError(None, str(error)) from error
    finally:
        if writer is not None:
            writer.close()


def _side_by_side(given: Any, known: Any) -> Any:
    """The columns `id` and `question`, those of the answer, and the others."""
    import pyarrow as pa

    own = 2
    fields = [*list(given.schema)[:own], *known.schema, *list(given.schema)[own:]]
    columns = [*given.columns[:own], *known.columns, *given.columns[own:]]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def answer_types() -> Any:
    """The Arrow schema of `ANSWER_FIELDS`."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    source = pa.struct(
        {
            "number": pa.int64(),
            "cited": pa.bool_(),
            "doc_uri": text,
            "url": text,
            "title": text,
            "chunk_id": text,
            "score": pa.float64(),
            "quotes": texts,
        }
    )
    tokens = ("input_tokens", "output_tokens", "total_tokens")
    types = {
        "cited_uris": texts,
        "sources": pa.list_(source),
        "abstained": pa.bool_(),
        "usage": pa.struct({name: pa.int64() for name in tokens}),
        "latency_ms": pa.float64(),
    }
    return pa.schema([pa.field(name, types.get(name, text)) for name in ANSWER_FIELDS])


_Getter = Callable[[Row], Any]


def _given_batches(table: QuestionTable) -> Iterator[Any]:
    """The table's own columns as they stand in the output, some rows at a time; `id` and `question` first."""
    import pyarrow.parquet as parquet

    names = output_names(table)
    getters: dict[str, _Getter] = {"id": table.id_of, "question": table.question_of}
    if table_format(table.path) != ".parquet":
        getters |= {name: _getter(column) for column, name in names.items()}
        kinds, rows = _kinds(table, getters), table.rows()
        while batch := list(islice(rows, _PARQUET_ROWS)):
            yield _build(batch, getters, kinds)
        return
    # What is Parquet stays what it is, to the type. An id or a question from within a value has to be made.
    kept = {"id": table.columns.get("id"), "question": table.columns["question"]}
    kept = {own: column for own, column in kept.items() if column in table.names}
    kept |= {name: column for column, name in names.items()}
    made = {name: getter for name, getter in getters.items() if name not in kept}
    kinds, number = _kinds(table, made), 0
    with parquet.ParquetFile(table.path) as file:
        for batch in file.iter_batches(_PARQUET_ROWS):
            values = batch.to_pylist() if made else ()
            built = _build([Row(number + i, "", row) for i, row in enumerate(values)], made, kinds)
            number += batch.num_rows
            yield _select({**dict.fromkeys(getters), **kept}, batch, built)


def _getter(column: str) -> _Getter:
    return lambda row: row.values.get(column)


def _kinds(table: QuestionTable, getters: Mapping[str, _Getter]) -> dict[str, _Kind]:
    kinds = dict.fromkeys(getters, _Kind.NOTHING)
    for row in table.rows() if getters else ():
        for name, getter in getters.items():
            kinds[name] = _common(kinds[name], _kind(getter(row)))
    return kinds


def _build(rows: Sequence[Row], getters: Mapping[str, _Getter], kinds: Mapping[str, _Kind]) -> Any:
    import pyarrow as pa

    schema = pa.schema([pa.field(well_formed(name), _arrow_type(kinds[name])) for name in getters])
    columns = [
        pa.array([_fitting(getter(row), kinds[name]) for row in rows], type=_arrow_type(kinds[name]))
        for name, getter in getters.items()
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _select(columns: Mapping[str, str | None], batch: Any, built: Any) -> Any:
    """A table of columns by their names in the output: one of `batch`, under another name there, or of `built`."""
    import pyarrow as pa

    origins = [(built, name) if column is None else (batch, column) for name, column in columns.items()]
    fields = [
        origin.schema.field(column).with_name(name)
        for name, (origin, column) in zip(columns, origins, strict=True)
    ]
    arrays = [origin.column(column) for origin, column in origins]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _arrow_type(kind: _Kind) -> Any:
    import pyarrow as pa

    match kind:
        case _Kind.BOOL:
            return pa.bool_()
        case _Kind.INTEGER | _Kind.LONG:
            return pa.int64()
        case _Kind.FLOAT:
            return pa.float64()
        case _Kind.TEXTS:
            return pa.list_(pa.string())
    return pa.string()


def _fitting(value: Any, kind: _Kind) -> Any:
    if value is None:
        return None
    if kind is _Kind.FLOAT:
        return float(value)
    return _to_json_text(value) if kind is _Kind.JSON else well_formed_value(value)

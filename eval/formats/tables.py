"""Questions from a table: CSV, Parquet, or JSONL with columns of one's own names.

`columns` says under which name the file has a field: `{"question": "q", "doc_uri": "url"}`. A field that is
not named there is read under its own name, where the file has it. Fields are

    question           required
    doc_uri            required; an empty cell means that no document answers the question
    chunk_id, grade    as many as there are doc_uris (or one grade for all)
    id, expected_response, expected_facts, accepted_answers
    history            the turns before the question: a JSON list of {"role", "content"}
    type, lang, split  tags, as is any `tags.<name>`

A cell with several values holds a JSON list, or the values on lines of their own; `doc_uri`, `chunk_id` and
`grade` may also be separated by `|`. A JSON list of gold documents has the same shape as in the
agent-evaluation set, alternatives and grades included. White space around a cell's text is no part of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.formats.agent_evaluation_set import to_question
from eval.questions import Question
from retrieval.errors import ConfigurationError, GroundTruthError
from retrieval.suggestions import did_you_mean
from retrieval.tables import read_rows

REQUIRED = ("question", "doc_uri")
TAGS = ("type", "lang", "split")
FIELDS = (
    *REQUIRED,
    *("id", "chunk_id", "grade", "expected_response", "expected_facts", "accepted_answers", "history"),
    *TAGS,
)
TAG_PREFIX = "tags."
URI_SEPARATOR = re.compile(r"[|\n]")
TEXT_SEPARATOR = re.compile(r"\n")


def read_table(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, Question]]:
    """The questions of a table with their places.

    Raises:
        ConfigurationError: if `columns` names a field that there is not.
        GroundTruthError: if the file lacks a column, or a row is not usable.
    """
    names = {field: field for field in FIELDS} | dict(_checked_fields(columns))
    there: dict[str, None] = {}
    for place, row in read_rows(path, GroundTruthError):
        there |= dict.fromkeys(row)
        # A JSON row without its doc_uri would pass for unanswerable.
        _check_columns(place, row, REQUIRED, names)
        yield place, to_question(to_evaluation_row(row, names | _tag_columns(row), place), place)
    if there:
        # Rows of JSON need not have every column, but a column that no row has is a mistake.
        _check_columns(str(path), there, columns, names)


def unread_columns(path: Path, columns: Mapping[str, str]) -> Counter[str]:
    """The columns that no question holds, with the rows that have something there counted."""
    read = {*(columns.get(field, field) for field in FIELDS), *columns.values()}
    return Counter(
        name
        for _, row in read_rows(path, GroundTruthError)
        for name, cell in row.items()
        if name not in read and not name.startswith(TAG_PREFIX) and _value(cell) is not None
    )


def _tag_columns(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: name for name in row if name.startswith(TAG_PREFIX)}


def _checked_fields(columns: Mapping[str, str]) -> Mapping[str, str]:
    for field in columns:
        if field not in FIELDS and not field.startswith(TAG_PREFIX):
            raise ConfigurationError(
                f"columns: there is no field {field!r} to map. {did_you_mean(field, FIELDS)}"
                f"Fields are: {', '.join(FIELDS)}."
            )
    return columns


def _check_columns(
    place: str, there: Collection[str], fields: Iterable[str], names: Mapping[str, str]
) -> None:
    for field in fields:
        if names[field] not in there:
            raise GroundTruthError(
                f"{place}: there is no column {names[field]!r} for {field}. "
                f"{did_you_mean(names[field], there)}"
                f"The columns are: {', '.join(there)}. Map yours: {{{field!r}: '<column>'}}."
            )


def to_evaluation_row(row: Mapping[str, Any], names: Mapping[str, str], place: str) -> dict[str, Any]:
    """The row in the shape of the agent-evaluation set, which says what is valid; `names` maps field to column."""
    cells = {field: _value(row.get(name)) for field, name in names.items()}
    tags = {field.removeprefix(TAG_PREFIX): cells[field] for field in cells if field.startswith(TAG_PREFIX)}
    return {
        "id": cells["id"],
        "inputs": {
            "question": "" if cells["question"] is None else cells["question"],
            "history": _split(cells["history"], TEXT_SEPARATOR, place, "history"),
        },
        "expectations": {
            "expected_retrieved_context": _gold(cells, place),
            "expected_response": cells["expected_response"],
            "expected_facts": _split(cells["expected_facts"], TEXT_SEPARATOR, place, "expected_facts"),
            "accepted_answers": _split(cells["accepted_answers"], TEXT_SEPARATOR, place, "accepted_answers"),
        },
        "tags": tags | {field: cells[field] for field in TAGS},
    }


def _gold(cells: Mapping[str, Any], place: str) -> list[Any]:
    items = _split(cells["doc_uri"], URI_SEPARATOR, place, "doc_uri")
    for field in ("chunk_id", "grade"):
        values = _split(cells[field], URI_SEPARATOR, place, field)
        if field == "grade" and len(values) == 1:
            values *= len(items)
        if values and len(values) != len(items):
            raise GroundTruthError(
                f"{place}: {field} has {len(values)} values for {len(items)} in doc_uri. Give one for each."
            )
        if values:
            items = [_with_field(item, field, value) for item, value in zip(items, values, strict=True)]
    return items


def _with_field(item: Any, field: str, value: Any) -> Any:
    if isinstance(item, list):
        return [_with_field(alternative, field, value) for alternative in item]
    return {**({"doc_uri": item} if isinstance(item, str) else item), field: value}


def _split(cell: Any, separator: re.Pattern[str], place: str, field: str) -> list[Any]:
    if cell is None:
        return []
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, list | tuple) else [cell]
    if cell.startswith("["):
        try:
            parsed = json.loads(cell)
        except json.JSONDecodeError as error:
            raise GroundTruthError(
                f"{place}: {field} starts like a JSON list but is none: {error.msg}."
            ) from None
        return list(parsed)
    return [part.strip() for part in separator.split(cell) if part.strip()]


def _value(cell: Any) -> Any:
    """A cell, with empty text and a table's NaN as None."""
    if isinstance(cell, str):
        return cell.strip() or None
    return None if isinstance(cell, float) and cell != cell else cell

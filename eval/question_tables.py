"""Questions from a table: CSV, Parquet, or JSONL with columns of one's own names.

`columns` says under which name the file has a field: `{"question": "q", "doc_uri": "url"}`. A field that is
not named there is read under its own name, where the file has it. Fields are

    question           required
    doc_uri            required; an empty cell means that no document answers the question
    chunk_id, grade    as many as there are doc_uris (or one grade for all)
    id, expected_response, expected_facts, accepted_answers
    type, lang, split  tags, as is any `tags.<name>`

A cell with several values holds a JSON list, or the values on lines of their own; `doc_uri`, `chunk_id` and
`grade` may also be separated by `|`. A JSON list of gold documents has the same shape as in the
agent-evaluation set, alternatives and grades included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.agent_evaluation_set import to_question
from eval.questions import Question
from retrieval.errors import ConfigurationError, GroundTruthError
from retrieval.suggestions import did_you_mean
from retrieval.tables import read_rows

_REQUIRED = ("question", "doc_uri")
_TAGS = ("type", "lang", "split")
_FIELDS = (
    *_REQUIRED,
    *("id", "chunk_id", "grade", "expected_response", "expected_facts", "accepted_answers"),
    *_TAGS,
)
_TAG_PREFIX = "tags."
_URI_SEPARATOR = re.compile(r"[|\n]")
_TEXT_SEPARATOR = re.compile(r"\n")


def read_table(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, Question]]:
    """The questions of a table with their places.

    Raises:
        ConfigurationError: if `columns` names a field that there is not.
        GroundTruthError: if the file lacks a column, or a row is not usable.
    """
    names = {field: field for field in _FIELDS} | dict(_checked_fields(columns))
    rows = list(read_rows(path, GroundTruthError))
    there = dict.fromkeys(name for _, row in rows for name in row)
    if rows:
        _check_columns(str(path), there, (*_REQUIRED, *columns), names)
    for place, row in rows:
        # A JSON row without its doc_uri would pass for unanswerable.
        _check_columns(place, row, _REQUIRED, names)
        yield place, to_question(_to_row(row, names, place), place)


def _checked_fields(columns: Mapping[str, str]) -> Mapping[str, str]:
    for field in columns:
        if field not in _FIELDS and not field.startswith(_TAG_PREFIX):
            raise ConfigurationError(
                f"columns: there is no field {field!r} to map. {did_you_mean(field, _FIELDS)}"
                f"Fields are: {', '.join(_FIELDS)}."
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


def _to_row(row: Mapping[str, Any], names: Mapping[str, str], place: str) -> dict[str, Any]:
    """The row in the shape of the agent-evaluation set, which says what is valid."""
    cells = {field: _value(row.get(name)) for field, name in names.items()}
    tags = {field.removeprefix(_TAG_PREFIX): cells[field] for field in cells if field.startswith(_TAG_PREFIX)}
    return {
        "id": cells["id"],
        "inputs": {"question": "" if cells["question"] is None else cells["question"]},
        "expectations": {
            "expected_retrieved_context": _gold(cells, place),
            "expected_response": cells["expected_response"],
            "expected_facts": _split(cells["expected_facts"], _TEXT_SEPARATOR, place, "expected_facts"),
            "accepted_answers": _split(cells["accepted_answers"], _TEXT_SEPARATOR, place, "accepted_answers"),
        },
        "tags": tags | {field: cells[field] for field in _TAGS},
    }


def _gold(cells: Mapping[str, Any], place: str) -> list[Any]:
    items = _split(cells["doc_uri"], _URI_SEPARATOR, place, "doc_uri")
    for field in ("chunk_id", "grade"):
        values = _split(cells[field], _URI_SEPARATOR, place, field)
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

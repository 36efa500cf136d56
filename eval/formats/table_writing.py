"""Questions as a table: CSV or Parquet with the columns that `eval.formats.tables` reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.formats.agent_evaluation_set import to_question, to_row
from eval.formats.tables import (
    FIELDS,
    REQUIRED,
    TAG_PREFIX,
    TAGS,
    TEXT_SEPARATOR,
    URI_SEPARATOR,
    to_evaluation_row,
)
from eval.formats.writing import drafted, write_lines
from eval.questions import Question
from program.well_formed import well_formed_value
from retrieval.tables import table_format


def write_table(questions: Iterable[Question], target: Path) -> None:
    """Write questions as CSV (also gzipped), or Parquet where the name says so, by the names of the fields.

    What is read back is what `held_by_table` says of each.

    Raises:
        StorageError: if the disk refuses.
    """
    rows = [_to_cells(question) for question in questions]
    columns = [name for name in _columns(rows) if name in REQUIRED or any(row.get(name) for row in rows)]
    if table_format(target) == ".parquet":
        _write_parquet(rows, columns, target)
    else:
        _write_csv(rows, columns, target)


def held_by_table(question: Question) -> Question:
    """What of the question a table holds: all but white space around texts, empty tags and broken characters."""
    cells = _to_cells(question)
    row = to_evaluation_row(cells, {name: name for name in (*FIELDS, *cells)}, question.id)
    return to_question(row, question.id)


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    tags = dict.fromkeys(name for row in rows for name in row if name not in FIELDS)
    order = ("id", "question", "doc_uri", *(field for field in FIELDS if field not in ("id", *REQUIRED)))
    return [*order, *tags]


def _to_cells(question: Question) -> dict[str, Any]:
    """The question as cells: text, or a list of texts where there may be several."""
    cells = {
        "id": question.id,
        "question": question.question,
        "doc_uri": _gold_cell(question),
        "expected_response": question.expected_response,
        "expected_facts": list(question.expected_facts),
        "accepted_answers": list(question.accepted_answers),
        "history": json.dumps(list(map(dict, question.history)), ensure_ascii=False)
        if question.history
        else "",
        **{tag if tag in TAGS else TAG_PREFIX + tag: value for tag, value in question.tags.items()},
    }
    clean: dict[str, Any] = well_formed_value(cells)
    return clean


def _gold_cell(question: Question) -> list[str] | str:
    """The documents alone where that says all, else JSON."""
    context = to_row(question)["expectations"]["expected_retrieved_context"]
    if all(isinstance(item, dict) and item.keys() == {"doc_uri"} for item in context):
        return [item["doc_uri"] for item in context]
    return json.dumps(context, ensure_ascii=False)


def _write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], target: Path) -> None:
    def line(cells: Iterable[str]) -> bytes:
        # The format's own line ends, CR LF (RFC 4180), so that either of them within a cell is quoted.
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerow(cells)
        return text.getvalue().encode().removesuffix(b"\n")

    def lines() -> Iterator[bytes]:
        yield line(columns)
        for row in rows:
            yield line(_as_text(row.get(name, ""), name) for name in columns)

    write_lines(target, lines())


def _as_text(cell: Any, name: str) -> str:
    if not isinstance(cell, list):
        return str(cell)
    separator = "|" if name == "doc_uri" else "\n"
    plain = separator.join(cell)
    unread = URI_SEPARATOR if name == "doc_uri" else TEXT_SEPARATOR
    is_plain = not plain.startswith("[") and [part.strip() for part in unread.split(plain)] == cell
    return plain if (is_plain and all(cell)) or not cell else json.dumps(cell, ensure_ascii=False)


def _write_parquet(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], target: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    def column(name: str) -> Any:
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, str) for cell in cells):
            return pyarrow.array([_as_json(cell) for cell in cells], pyarrow.string())
        return pyarrow.array(cells, pyarrow.list_(pyarrow.string()))

    table = pyarrow.table({name: column(name) for name in columns})
    with drafted(target) as draft:
        pyarrow.parquet.write_table(table, draft)


def _as_json(cell: Any) -> str | None:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell

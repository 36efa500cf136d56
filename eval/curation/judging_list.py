"""The list of documents to judge, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.curation.check_report import judging_row
from eval.curation.pooling import Unjudged
from eval.formats.writing import write_lines
from program.files import to_json
from program.well_formed import well_formed
from retrieval.errors import ConfigurationError
from retrieval.tables import table_format

_COLUMNS = (
    *("question_id", "question", "doc_uri", "title", "text", "answerable", "runs", "best_rank", "grade"),
)


def write_judging_list(
    unjudged: Iterable[Unjudged], describe: Callable[[str], Mapping[str, str]], target: str
) -> None:
    """Write the documents to judge, most agreed on first, with an empty `grade` to fill in: CSV or JSON Lines.

    Raises:
        ConfigurationError: if the name says neither.
        StorageError: if the disk refuses.
    """
    rows = (judging_row(gap, describe) for gap in unjudged)
    match table_format(Path(target)):
        case ".csv":
            write_lines(Path(target), _csv_lines(rows))
        case ".jsonl":
            write_lines(Path(target), map(to_json, rows))
        case _:
            raise ConfigurationError(f"'{target}': name the list to judge .csv or .jsonl.")


def _csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    def line(cells: Iterable[object]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerow(cells)
        return well_formed(text.getvalue()).encode().removesuffix(b"\n")

    yield line(_COLUMNS)
    for row in rows:
        yield line("" if row[name] is None else row[name] for name in _COLUMNS)

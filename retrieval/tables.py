"""Rows of tables that people bring: CSV, JSON Lines or Parquet, each with the place to name when it is wrong.

Files are read as a stream. Text is UTF-8, with or without a byte order mark, plain or gzipped (`.gz`).
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import DataError

_LONGEST_CELL = 16_000_000
_PARQUET_ROWS = 1000


def table_format(path: Path) -> str:
    """The extension that says how a table is written, in lower case and without `.gz`: `.csv`, for example."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")


def read_rows(path: Path, error: type[DataError] = DataError) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table with their places: `.csv`, `.parquet`, or else JSON Lines.

    Raises:
        DataError: of the type `error`, if the file cannot be read or a row is not one.
    """
    match table_format(path):
        case ".parquet":
            return _read_parquet(path, error)
        case ".csv":
            return _read_csv(path, error)
    return read_json_lines(path, error)


def read_json_lines(path: Path, error: type[DataError] = DataError) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with their places (`questions.jsonl:7`); blank lines are skipped.

    Raises:
        DataError: of the type `error`, if the file cannot be read, or a line is not a JSON object.
    """
    for number, line in read_lines(path, error):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise error(
                f"{place}: not valid JSON ({reason}): {_shortened(line)}. Mend or remove the line."
            ) from None
        if not isinstance(row, dict):
            raise error(f"{place}: expected an object {{…}}, got {_shortened(line)}.")
        yield place, row


def read_lines(path: Path, error: type[DataError] = DataError) -> Iterator[tuple[int, str]]:
    """The lines of a text file, numbered from 1. Raises `error` if it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                # Line by line, so that a wrong encoding is reported where it is.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}:{number}: not UTF-8 ({reason.reason}). Save it as UTF-8 text.") from None
    except (OSError, EOFError, zlib.error) as reason:
        raise error(f"Cannot read {path}: {getattr(reason, 'strerror', None) or reason}.") from None


def _read_csv(path: Path, error: type[DataError]) -> Iterator[tuple[str, dict[str, Any]]]:
    # The module's own limit, 128 KB, is less than a long conversation in one cell.
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader((line for _, line in read_lines(path, error)), strict=True)
    last_line = 1
    try:
        _check_header(path, reader.fieldnames or (), error)
        for row in reader:
            place, last_line = f"{path}:{last_line + 1}", reader.line_num
            if None in row:
                raise error(
                    f"{place}: more cells than the header has columns. Quote cells that contain commas."
                )
            yield place, row
    except csv.Error as reason:
        raise error(f"{path}:{last_line + 1}: not CSV: {reason}.") from None


def _check_header(path: Path, names: Sequence[str], error: type[DataError]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise error(f"{path}: two columns are called {twice!r}. Rename one of them.")


def _read_parquet(path: Path, error: type[DataError]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, pyarrow.ArrowException) as reason:
        raise error(f"Cannot read {path} as Parquet: {reason}.") from None


def _shortened(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:57] + "…")

"""JSON Lines of a question set, plain or gzipped, each with the place to name when something is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval.errors import GroundTruthError


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with their places (`questions.jsonl:7`); blank lines are skipped.

    Raises:
        GroundTruthError: if the file cannot be read, or a line is not a JSON object.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GroundTruthError(
                f"{place}: not valid JSON ({error}): {_shortened(line)}. Mend or remove the line."
            ) from None
        if not isinstance(row, dict):
            raise GroundTruthError(f"{place}: expected an object {{…}}, got {_shortened(line)}.")
        yield place, row


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, numbered from 1. Raises GroundTruthError if it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                # Line by line, so that a wrong encoding is reported where it is.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise GroundTruthError(
            f"{path}:{number}: not UTF-8 ({error.reason}). Save it as UTF-8 text."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise GroundTruthError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None


def _shortened(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:57] + "…")

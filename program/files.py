"""Files that survive whatever ends a process: appended to by the line, or replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def to_json(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """`value` as JSON in UTF-8 that a person can read; any text survives, half an emoji too."""
    # UTF-8 has no lone surrogates, and Python's escape for one is JSON's.
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")


def append_lines(file: Path, lines: Iterable[bytes]) -> int:
    """Add lines to a file, made where it is not there; how long it was before. Raises OSError."""
    content = b"".join(line + b"\n" for line in lines)
    with file.open("ab") as opened:
        before = opened.tell()
        opened.write(content)
    return before


def complete_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, each with its place in bytes, as a stream; none where there is no file.

    What follows the last newline was being written when its process ended: it is cut off the file, so that
    appending is safe. Raises OSError.
    """
    if not file.exists():
        return
    place = 0
    with file.open("rb") as opened:
        for line in opened:
            if not line.endswith(b"\n"):
                os.truncate(file, place)
                return
            yield place, line[:-1]
            place += len(line)

"""The lines of a file in groups whose bounds a change moves nowhere but where it is."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_READ_BYTES = 1 << 20
_NEWLINE = ord("\n")
_MEAN_LINES_BITS = 3
_MOST_LINES = 32
_SCATTER = 2654435761
"""Knuth's multiplier, of which the upper bits of a product are as good as random."""


def read_line_groups(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines of `file` in groups, each with the number of its first line, from 1; those of blank lines are left out.

    A group ends, on average, after eight lines, where the length of its last one says so (content-defined chunking):
    what is put in, changed or taken out elsewhere changes no group, but for one in some thousand. Of a line that is
    longer than `longest`, its beginning and one byte more than that is given.
    """
    number = 1
    for stretch in _stretches(file, longest):
        start = 0
        for end, lines in _bounds(stretch):
            content = stretch[start:end]
            if not content.isspace():
                yield number, content
            start, number = end, number + lines


def lines_of(content: bytes) -> Iterator[bytes]:
    """The lines of a group, their ends included."""
    return iter(BytesIO(content))


def _stretches(file: BinaryIO, longest: int) -> Iterator[bytes]:
    """The bytes of `file` in pieces of whole lines."""
    rest, is_skipping = b"", False
    while block := file.read(_READ_BYTES):
        if is_skipping:  # the rest of a line that is too long
            start = block.find(b"\n") + 1
            if not start:
                continue
            block, is_skipping = block[start:], False
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = b""
        rest += block[end:]
        if len(rest) > longest:
            yield rest[: longest + 1]
            rest, is_skipping = b"", True
    if rest:
        yield rest


def _bounds(stretch: bytes) -> Iterator[tuple[int, int]]:
    """Where each group of a stretch ends, and how many lines it has."""
    ends: NDArray[np.int64] = np.flatnonzero(np.frombuffer(stretch, np.uint8) == _NEWLINE) + 1
    if not len(ends) or ends[-1] != len(stretch):
        ends = np.append(ends, len(stretch))
    lengths = np.diff(ends, prepend=0).astype(np.uint32)
    is_last = (lengths * np.uint32(_SCATTER)) >> np.uint32(32 - _MEAN_LINES_BITS) == 0
    is_last[-1] = True
    first = 0
    for last in np.flatnonzero(is_last).tolist():
        while last + 1 - first > _MOST_LINES:
            first += _MOST_LINES
            yield int(ends[first - 1]), _MOST_LINES
        yield int(ends[last]), last + 1 - first
        first = last + 1

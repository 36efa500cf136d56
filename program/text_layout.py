"""Text for a terminal: aligned, wrapped, and with nothing in it that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from unicodedata import east_asian_width

# Control characters, and those that change the order or are not seen: what stands in a file is what is read.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_BROKEN_FROM = 60
"""Columns from which a line that goes on in the next one is taken to be broken there, and not to end."""
# A word, or a Japanese character with what no line begins with.
_PIECE = re.compile(
    r"\s+|[^\s\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]+|.[、。，．・」』）】〕ーっゃゅょッャュョ！？]*"
)


def visible(text: str) -> str:
    """`text` with what a terminal or a browser would obey, and not show, as escapes; newlines and tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def wrap(text: str, width: int, indent: str = "") -> str:
    """`text` in lines of at most `width` columns, its own line breaks kept; words that are longer stand out."""
    return "\n".join(
        f"{indent}{line}".rstrip() for own in text.split("\n") for line in _lines(own, width - len(indent))
    )


def paragraphs(text: str) -> Iterator[str]:
    """The lines of `text`, those that were only broken at a width made whole again."""
    first, *others = text.split("\n")
    whole, last = first, first
    for line in others:
        if columns(last) >= _BROKEN_FROM and line[:1].isalpha():
            # Japanese has no spaces to break at.
            gap = "" if columns(last[-1]) == 2 and columns(line[0]) == 2 else " "
            whole = f"{whole.rstrip()}{gap}{line}"
        else:
            yield whole
            whole = line
        last = line
    yield whole


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns aligned with spaces: the first `left` to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(columns(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            _aligned(cell, width, to_left=column < left)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def columns(text: str) -> int:
    """Columns of a terminal: Japanese takes two each."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _lines(text: str, width: int) -> Iterator[str]:
    line = ""
    for piece in _PIECE.findall(text):
        if line and columns(line + piece.rstrip()) > width:
            yield line.rstrip()
            line = piece.lstrip()
        else:
            line += piece
    yield line.rstrip()


def _aligned(cell: str, width: int, *, to_left: bool) -> str:
    gap = " " * (width - columns(cell))
    return cell + gap if to_left else gap + cell

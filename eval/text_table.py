"""Numbers and tables as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

_DIGITS = {"latency_ms": 1, "usd": 6, "tokens": 0}


def number(metric: str, value: float) -> str:
    """A value of a metric with the digits that mean something."""
    return f"{value:.{_DIGITS.get(metric, 3)}f}"


def signed(metric: str, value: float) -> str:
    """A difference of a metric, with its sign."""
    return f"{'+' if value >= 0 else '−'}{number(metric, abs(value))}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns aligned with spaces: the first `left` to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            _aligned(cell, width, to_left=column < left)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _aligned(cell: str, width: int, *, to_left: bool) -> str:
    gap = " " * (width - _width(cell))
    return cell + gap if to_left else gap + cell


def _width(text: str) -> int:
    """Columns of a terminal: Japanese takes two each."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)

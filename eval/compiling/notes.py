"""Remarks on one answer, as a person who reviews it would make them: what went wrong, and what went right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

QUOTED_CHARACTERS = 200


@dataclass(slots=True)
class Notes:
    """Remarks in the order of what matters most."""

    wrong: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)


def quoted(text: str, at_most: int = QUOTED_CHARACTERS) -> str:
    """The text in quotation marks on one line, cut where it is long."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= at_most else line[: at_most - 1].rstrip() + '…'}”"


def numbered(numbers: Iterable[int]) -> str:
    """Passages by their numbers, as an answer cites them: `[1], [3]`."""
    return ", ".join(f"[{number}]" for number in numbers)


def uris(names: Iterable[str]) -> str:
    """Documents by name, where any of them would do: `'a' or 'b'`."""
    return " or ".join(repr(name) for name in names)

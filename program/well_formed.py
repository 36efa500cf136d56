"""Text that every store and every client can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def well_formed(text: str) -> str:
    """`text` with each half of a character that stands alone (a lone surrogate) replaced by U+FFFD.

    Halves that stand together, as some clients cut an emoji, become their character again.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def well_formed_value(value: Any) -> Any:
    """A JSON value of which every text, keys included, is `well_formed`; tuples become lists."""
    match value:
        case str():
            return well_formed(value)
        case Mapping():
            return {well_formed_value(key): well_formed_value(item) for key, item in value.items()}
        case list() | tuple():
            return [well_formed_value(item) for item in value]
    return value


def shorten(text: str, limit: int) -> str:
    """`text` on one line, cut to at most `limit` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"

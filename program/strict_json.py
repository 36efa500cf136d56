"""JSON from strangers: read as data or refused, whatever it was made to do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn

MAX_DEPTH = 64

_BRACKET_OR_TEXT = re.compile(rb'[][{}]|"(?:[^"\\]|\\.)*\\?(?:"|\Z)', re.DOTALL)


def parse_strictly(content: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: why it is refused, for a person: no JSON, a key given twice, a number that JSON has not (NaN,
            infinite, endless), or deeper than `MAX_DEPTH`.
    """
    if content[:1] == b"\x80":
        raise ValueError("it is a pickle, which could run code when loaded")
    _refuse_depth(content)
    try:
        value = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_without_duplicates, parse_constant=_refuse
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """That a value of parsed JSON or YAML is not too deep to work with, and has finite numbers alone.

    Raises:
        ValueError: why not, for a person.
    """
    # Level by level, since to recurse into what may be too deep is what must not be done.
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _refuse_depth(content: bytes) -> None:
    # Before it is parsed: how deep a parser may recurse, and what it does beyond, is Python's and the stack's affair.
    depth = 0
    for found in _BRACKET_OR_TEXT.finditer(content):
        match found[0]:
            case b"{" | b"[":
                depth += 1
                if depth > MAX_DEPTH:
                    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
            case b"}" | b"]":
                depth -= 1


def _inside(value: Any) -> Sequence[Any]:
    match value:
        case dict():
            return list(value.values())
        case list():
            return value
        case float() if not isfinite(value):
            raise ValueError("it holds a number that is not finite")
    return ()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return body


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no JSON")

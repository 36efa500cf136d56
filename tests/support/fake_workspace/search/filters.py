"""Filters of queries: the dictionary of standard endpoints, and the SQL-like text of storage-optimized ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fake_workspace.wire import ApiError

Row = Mapping[str, Any]
Matches = Callable[[Row], bool]

_OPERATORS = ("NOT", "LIKE", "<=", ">=", "<", ">")
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<quoted>`[^`]+`)"
    r"|(?P<word>[A-Za-z_][\w]*)|(?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,))"
)


def matches_dictionary(filters: Any, columns: Sequence[str]) -> Matches:
    """Whether a row fulfils every key of `{"column OPERATOR": value}`."""
    if not isinstance(filters, dict):
        raise ApiError("INVALID_PARAMETER_VALUE", "filters_json must be a JSON object.")
    conditions = [_condition(key, value, columns) for key, value in filters.items()]
    return lambda row: all(condition(row) for condition in conditions)


def _condition(key: str, value: Any, columns: Sequence[str]) -> Matches:
    name, _, last = key.rpartition(" ")
    column, operator = (name, last) if name and last in _OPERATORS else (key, "=")
    _check(column, columns)
    if operator in ("=", "NOT"):
        values = value if isinstance(value, list) else [value]
        if any(isinstance(one, list | dict) or one is None for one in values):
            raise ApiError("INVALID_PARAMETER_VALUE", f"Filter '{key}' has an unsupported value: {value!r}")
        return lambda row: any(_same(row.get(column), one) for one in values) == (operator == "=")
    if operator == "LIKE":
        return lambda row: str(value).lower() in re.findall(r"\w+", str(row.get(column) or "").lower())
    return lambda row: _compare(row.get(column), operator, value) is True


def matches_text(text: str, columns: Sequence[str]) -> Matches:
    """Whether the SQL-like condition is true for a row; with NULL, it is neither true nor false."""
    parser = _Parser(text, columns)
    condition = parser.disjunction()
    if parser.tokens:
        raise _bad(text, f"'{parser.tokens[0][1]}' was not expected")
    return lambda row: condition(row) is True


class _Parser:
    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self.text, self.columns = text, columns
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise _bad(text, f"cannot be read at {position}")
            self.tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            position = found.end()

    def disjunction(self) -> Callable[[Row], bool | None]:
        parts = [self.conjunction()]
        while self.take("OR"):
            parts.append(self.conjunction())
        return lambda row: _any([part(row) for part in parts])

    def conjunction(self) -> Callable[[Row], bool | None]:
        parts = [self.term()]
        while self.take("AND"):
            parts.append(self.term())
        return lambda row: _not(_any([_not(part(row)) for part in parts]))

    def term(self) -> Callable[[Row], bool | None]:
        if self.take("NOT"):
            inner = self.term()
            return lambda row: _not(inner(row))
        if self.take("("):
            inner = self.disjunction()
            self.need(")")
            return inner
        return self.comparison()

    def comparison(self) -> Callable[[Row], bool | None]:
        kind, word = self.next()
        if kind not in ("word", "quoted"):
            raise _bad(self.text, f"a column was expected, not {word}")
        column = word.strip("`")
        _check(column, self.columns)
        if self.take("IS"):
            negated = self.take("NOT")
            self.need("NULL")
            return lambda row: (row.get(column) is None) != negated
        negated = self.take("NOT")
        if negated or self.peek("IN"):
            self.need("IN")
            values = self.values()
            return lambda row: _within(row.get(column), values, negated)
        _, sign = self.next()
        value = self.value()
        if sign in ("=", "!=", "<>"):
            return lambda row: None if row.get(column) is None else _same(row[column], value) == (sign == "=")
        return lambda row: _compare(row.get(column), sign, value)

    def values(self) -> list[Any]:
        self.need("(")
        values = [self.value()]
        while self.take(","):
            values.append(self.value())
        self.need(")")
        return values

    def value(self) -> Any:
        kind, said = self.next()
        if kind == "text":
            return said[1:-1].replace("''", "'")
        if kind == "number":
            return float(said)
        if said.upper() in ("TRUE", "FALSE"):
            return said.upper() == "TRUE"
        raise _bad(self.text, f"a value was expected, not {said}")

    def next(self) -> tuple[str, str]:
        if not self.tokens:
            raise _bad(self.text, "it ends too early")
        return self.tokens.pop(0)

    def peek(self, word: str) -> bool:
        return bool(self.tokens) and self.tokens[0][1].upper() == word and self.tokens[0][0] != "text"

    def take(self, word: str) -> bool:
        if self.peek(word):
            self.tokens.pop(0)
            return True
        return False

    def need(self, word: str) -> None:
        if not self.take(word):
            raise _bad(self.text, f"{word} was expected")


def _bad(text: str, why: str) -> ApiError:
    return ApiError("INVALID_PARAMETER_VALUE", f"Invalid filter string {text!r}: {why}.")


def _check(column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        raise ApiError("INVALID_PARAMETER_VALUE", f"Filter column '{column}' is not a column of the index.")


def _any(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _within(value: Any, values: Sequence[Any], negated: bool) -> bool | None:
    return None if value is None else any(_same(value, one) for one in values) != negated


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _compare(left: Any, sign: str, right: Any) -> bool | None:
    if left is None:
        return None
    if isinstance(left, str) != isinstance(right, str):
        raise ApiError("INVALID_PARAMETER_VALUE", f"Cannot compare {left!r} with {right!r}.")
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign])

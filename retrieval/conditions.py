"""Metadata filters, read: the conditions that a retriever then puts into its engine's own language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.errors import FilterError
from retrieval.types import Filters, MetadataValue

COMPARISONS = (">=", "<=", ">", "<")
OPERATORS = ("NOT", *COMPARISONS)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a field: `operator` is one of OPERATORS, or "" for equality.

    Equality holds for one of the `values`, NOT for what has none of them, the field itself included; a comparison
    has one, which is a number.
    """

    field: str
    operator: str
    values: tuple[MetadataValue, ...]


def read_conditions(filters: Filters | None) -> list[Condition]:
    """The conditions of `filters`, which must all hold; none where there are none.

    Raises:
        FilterError: if a filter has an unknown operator, or a value that its operator does not take.
    """
    return [_condition(key, value) for key, value in (filters or {}).items()]


def _condition(key: object, value: object) -> Condition:
    field, operator = _parse_key(key)
    if operator in COMPARISONS:
        return Condition(field, operator, (_number(key, value),))
    return Condition(field, operator, tuple(_values(key, value)))


def _parse_key(key: object) -> tuple[str, str]:
    if not isinstance(key, str) or not key.strip():
        raise FilterError(f"A filter needs the name of a field, got {key!r}")
    name, _, last = key.strip().rpartition(" ")
    if name and last.upper() in OPERATORS:
        return name.strip(), last.upper()
    if name and (last == "LIKE" or not any(map(str.isalnum, last))):
        raise FilterError(
            f"Filter {key!r}: unknown operator {last!r}; use {', '.join(OPERATORS)}, or none for equality"
        )
    return key.strip(), ""


def _values(key: object, value: object) -> list[MetadataValue]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values:
        raise FilterError(
            f"Filter {key!r}: the list is empty, so that nothing could match. Leave the filter out."
        )
    return [_value(key, one) for one in values]


def _value(key: object, value: object) -> MetadataValue:
    if (isinstance(value, float) and math.isnan(value)) or not isinstance(value, str | int | float | bool):
        raise FilterError(
            f"Filter {key!r}: {value!r} is not a text, a number, a truth value, or a list of these."
        )
    return value


def _number(key: object, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise FilterError(f"Filter {key!r}: a comparison needs a number, got {value!r}")
    return value

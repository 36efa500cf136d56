"""Conditions in the two languages of Databricks Vector Search: a dictionary, and text like a WHERE clause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from retrieval.conditions import COMPARISONS, Condition
from retrieval.types import MetadataValue

Column: TypeAlias = Callable[[str], str]
"""The column that holds a field; raises FilterError where there is none."""


def to_dictionary(conditions: Sequence[Condition], column: Column) -> dict[str, object]:
    """For a standard endpoint: `{"year >=": 2024, "lang": ["en", "ja"]}`."""
    return {
        f"{column(condition.field)} {condition.operator}".strip(): _alone(condition.values)
        for condition in conditions
    }


def to_text(conditions: Sequence[Condition], column: Column) -> str:
    """For a storage-optimized endpoint: `year >= 2024 AND lang IN ('en', 'ja')`."""
    return " AND ".join(_clause(condition, _quoted(column(condition.field))) for condition in conditions)


def _alone(values: Sequence[MetadataValue]) -> MetadataValue | list[MetadataValue]:
    return values[0] if len(values) == 1 else list(values)


def _clause(condition: Condition, column: str) -> str:
    values = [_literal(value) for value in condition.values]
    if condition.operator in COMPARISONS:
        return f"{column} {condition.operator} {values[0]}"
    within = f"({', '.join(values)})"
    if condition.operator == "":
        return f"{column} = {values[0]}" if len(values) == 1 else f"{column} IN {within}"
    # What has no value has none of the excluded ones; `<>` alone is not true of it.
    without = f"{column} <> {values[0]}" if len(values) == 1 else f"{column} NOT IN {within}"
    return f"({column} IS NULL OR {without})"


def _quoted(column: str) -> str:
    if column.isidentifier() and column.isascii():
        return column
    escaped = column.replace("`", "``")
    return f"`{escaped}`"


def _literal(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'"
    return repr(value)

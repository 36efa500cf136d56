"""Metadata filters as SQL over the table of passages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from retrieval.conditions import COMPARISONS, Condition, read_conditions
from retrieval.postgres.storable import storable
from retrieval.types import Filters, MetadataValue

Clause: TypeAlias = tuple[str, list[Any]]
"""SQL with a placeholder (%s) for each of the values."""

_COLUMNS = ("doc_uri", "title", "lang")
"""Fields with a column of their own, which counts where it is not empty."""


def where(filters: Filters | None) -> Clause:
    """What holds where all filters do; empty without any.

    Raises:
        FilterError: if a filter is not valid.
    """
    clauses = [_clause(condition) for condition in read_conditions(filters)]
    return " AND ".join(sql for sql, _ in clauses), [value for _, values in clauses for value in values]


def _clause(condition: Condition) -> Clause:
    if condition.operator in COMPARISONS:
        sql, values = _compares(condition)
    else:
        sql, values = _has_one_of(condition.field, condition.values)
    if condition.field in _COLUMNS:
        sql, values = _with_column(condition, sql, values)
    return (f"NOT ({sql})" if condition.operator == "NOT" else f"({sql})"), values


def _with_column(condition: Condition, sql: str, values: list[Any]) -> Clause:
    column = condition.field
    texts = [storable(value) for value in condition.values if isinstance(value, str) and value]
    if condition.operator in COMPARISONS or not texts:
        return f"{column} = '' AND ({sql})", values
    return f"{column} = ANY(%s) OR ({column} = '' AND ({sql}))", [texts, *values]


def _has_one_of(field: str, values: Sequence[MetadataValue]) -> Clause:
    # No number in the table is infinite, and JSON knows none.
    finite = [value for value in values if not (isinstance(value, float) and math.isinf(value))]
    if not finite:
        return "false", []
    return " OR ".join("metadata @> %s::jsonb" for _ in finite), [_object(field, value) for value in finite]


def _object(field: str, value: MetadataValue) -> str:
    return json.dumps({storable(field): storable(value) if isinstance(value, str) else value})


def _compares(condition: Condition) -> Clause:
    field = storable(condition.field)
    bound = condition.values[0]
    # As digits: as a 64-bit float, 0.1 would be a little more than the 0.1 of the table.
    number = Decimal(repr(bound)) if isinstance(bound, float) else Decimal(int(bound))
    # In a CASE, since the order of other conditions is the planner's choice, and text is no number.
    sql = (
        "CASE WHEN jsonb_typeof(metadata -> %s) = 'number' "
        f"THEN (metadata ->> %s)::numeric {condition.operator} %s ELSE false END"
    )
    return sql, [field, field, number]

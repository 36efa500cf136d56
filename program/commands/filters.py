"""`--filter`, of the commands that search."""

from __future__ import annotations

import re
from typing import Any

import click

filtered = click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only such documents: lang=ja, year>=2024.",
)

_CONDITION = re.compile(r"(?P<field>[^<>=]*[^<>=\s])\s*(?P<operator>>=|<=|>|<|=)(?P<value>.*)", re.DOTALL)


def parse_filters(conditions: tuple[str, ...]) -> dict[str, Any]:
    """`lang=ja` and `year>=2024` as `retrieval.types.Filters`; a key given twice is one of its values."""
    from retrieval.errors import FilterError

    filters: dict[str, Any] = {}
    for condition in conditions:
        parts = _CONDITION.fullmatch(condition.strip())
        if parts is None:
            raise FilterError(f"--filter {condition}: write it as key=value, for example lang=ja")
        operator = "" if parts["operator"] == "=" else f" {parts['operator']}"
        key, value = parts["field"] + operator, _scalar(parts["value"].strip())
        old = filters.get(key)
        filters[key] = value if old is None else [*(old if isinstance(old, list) else [old]), value]
    return filters


def _scalar(text: str) -> str | int | float | bool:
    """A number or truth value where `text` is JSON for one, else text: `no` is a language, too."""
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float)) else text

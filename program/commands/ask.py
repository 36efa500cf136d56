"""`citeqa ask`."""

from __future__ import annotations

import re
from typing import Any

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.argument("question")
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are read.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only such documents: lang=ja, year>=2024.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--trace", is_flag=True, help="Keep the trace in the MLflow store.")
def ask(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    question: str,
    k: int | None,
    filters: tuple[str, ...],
    as_json: bool,
    trace: bool,
) -> None:
    """Ask one question; the answer streams, and its sources follow.

    Example: citeqa ask "How do I redact personal data in traces?"
    """
    settings = read_settings(config, overrides, retrieval__k=k)
    conditions = parse_filters(filters)

    import mlflow

    from program.agent import CiteqaAgent
    from program.asking import ask_agent, render_json, render_sources_list
    from program.tracking import connect

    if trace:
        connect(settings.tracking)
    else:
        mlflow.tracing.disable()
    show = None if as_json else _show_text
    answer = ask_agent(CiteqaAgent(settings), question, conditions, show)
    click.echo(render_json(answer) if as_json else f"\n\n{render_sources_list(answer)}")
    if trace:
        mlflow.flush_trace_async_logging()
        click.echo(f"Trace {mlflow.get_last_active_trace_id()} in {settings.tracking.uri}", err=True)


def _show_text(text: str) -> None:
    click.echo(text, nl=False)


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

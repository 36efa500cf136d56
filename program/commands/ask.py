"""`citeqa ask`."""

from __future__ import annotations

import click

from program.commands.filters import filtered, parse_filters
from program.commands.options import configured, fail, read_settings


@click.command()
@configured
@click.argument("question")
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are read.")
@filtered
@click.option("--conversation", metavar="ID", help="Go on with a conversation that memory.store keeps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--trace", is_flag=True, help="Keep the trace in the MLflow store.")
def ask(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    question: str,
    k: int | None,
    filters: tuple[str, ...],
    conversation: str | None,
    as_json: bool,
    trace: bool,
) -> None:
    """Ask one question; the answer streams, and its sources follow.

    Example: citeqa ask "How do I redact personal data in traces?"
    """
    settings = read_settings(config, overrides, retrieval__k=k)
    conditions = parse_filters(filters)
    if conversation is not None and settings.memory.store is None:
        fail("Error: --conversation: none is kept. Say where: --set memory.store=sqlite:///build/memory.db")

    import mlflow

    from program.agent import CiteqaAgent
    from program.asking import ask_agent, render_json, render_sources_list
    from program.tracking import connect

    if trace:
        connect(settings.tracking)
    else:
        mlflow.tracing.disable()
    show = None if as_json else _show_text
    answer = ask_agent(CiteqaAgent(settings), question, conditions, show, conversation=conversation)
    click.echo(render_json(answer) if as_json else f"\n\n{render_sources_list(answer)}")
    if trace:
        mlflow.flush_trace_async_logging()
        click.echo(f"Trace {mlflow.get_last_active_trace_id()} in {settings.tracking.uri}", err=True)


def _show_text(text: str) -> None:
    click.echo(text, nl=False)

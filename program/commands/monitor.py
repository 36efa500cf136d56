"""`citeqa monitor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from program.commands.options import configured, read_settings

if TYPE_CHECKING:
    from eval.monitoring.schedule import Watch


@click.group()
def monitor() -> None:
    """Score a sample of what an agent answers in production, in a Databricks workspace.

    Example: citeqa monitor start --sample 0.1 --set tracking.uri=databricks
    """


@monitor.command()
@configured
@click.argument("scorers", nargs=-1)
@click.option("--sample", default=0.1, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--judge", "judges", multiple=True, help="groundedness, relevance or safety; asks a model.")
@click.option(
    "--filter", "filter_", metavar="SQL", help="Only such traces, as mlflow.search_traces takes it."
)
def start(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    scorers: tuple[str, ...],
    sample: float,
    judges: tuple[str, ...],
    filter_: str | None,
) -> None:
    """Let SCORERS (all of ours where none is named) score new traces of the experiment.

    Example: citeqa monitor start cited abstained --sample 0.2 --judge groundedness
    """
    settings = read_settings(config, overrides)

    from eval.monitoring.schedule import start_monitoring

    watches = start_monitoring(settings.tracking, scorers, judges=judges, sample_rate=sample, filter=filter_)
    _show(watches)


@monitor.command()
@configured
def status(config: str | None, overrides: tuple[str, ...], debug: bool) -> None:
    """Say what scores the traces of the experiment.

    Example: citeqa monitor status --set tracking.uri=databricks
    """
    settings = read_settings(config, overrides)

    from eval.monitoring.schedule import list_monitoring

    _show(list_monitoring(settings.tracking))


@monitor.command()
@configured
@click.argument("scorers", nargs=-1)
def stop(config: str | None, overrides: tuple[str, ...], debug: bool, scorers: tuple[str, ...]) -> None:
    """Stop SCORERS, all of ours where none is named; they stay registered.

    Example: citeqa monitor stop cited
    """
    settings = read_settings(config, overrides)

    from eval.monitoring.schedule import stop_monitoring

    _show(stop_monitoring(settings.tracking, scorers))


def _show(watches: list[Watch]) -> None:
    for watch in watches:
        click.echo(watch.render())
    if not watches:
        click.echo("Nothing scores the traces of this experiment. Begin: citeqa monitor start", err=True)

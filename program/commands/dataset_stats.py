"""`citeqa dataset stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from program.commands.dataset_options import FORMATS, echo_json, how_to_read, read_all
from program.commands.options import configured, read_settings
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    from eval.formats.choice import Format


@click.command()
@configured
@click.argument("path", required=False)
@click.option("--format", "format", type=click.Choice(FORMATS), help="Default: by what the path is.")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Two runs, to see how far they differ.")
@click.option("--metric", default="recall@5", show_default=True, help="The metric of theirs to look at.")
@click.option("--json", "as_json", is_flag=True, help="The counts as JSON on stdout.")
def stats(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    path: str | None,
    format: Format | None,
    runs: tuple[str, ...],
    metric: str,
    as_json: bool,
) -> None:
    """Count questions, and say how small a difference they show.

    Example: citeqa dataset stats questions.jsonl --run build/runs/a --run build/runs/b --metric recall@5
    """
    settings = read_settings(config, overrides)
    if len(runs) not in (0, 2):
        raise ConfigurationError(
            f"--run was given {len(runs)} times. Name two runs to see how far they differ."
        )

    from eval.comparison.loading import read_scored_run
    from eval.curation.counts import (
        DISAGREEMENT,
        assumed_spread,
        count_questions,
        counts_as_json,
        observed_spread,
        render_counts,
    )

    source, reading = how_to_read(settings, path, format)
    ground_truth = read_all(source, reading)
    if runs:
        first, second = (read_scored_run(run, settings.tracking) for run in runs)
        spread = observed_spread(first, second, metric)
        spread_from = f"if their {metric} differ as far as those of '{first.name}' and '{second.name}'"
    else:
        spread = assumed_spread()
        spread_from = (
            f"if they differ, as 0 and 1, on {DISAGREEMENT:.0%} of them (two runs tell: --run A --run B)"
        )
    counts = count_questions(ground_truth.questions, spread)
    if as_json:
        echo_json(counts_as_json(counts, spread))
    else:
        click.echo(render_counts(counts, spread_from))

"""`citeqa sweep`."""

from __future__ import annotations

import sys
from typing import Any, Literal

import click

from program.commands.options import fail


@click.command()
@click.argument("specification", metavar="FILE", default="configs/sweep.yaml")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True)
@click.option("--tasks", type=click.IntRange(1), metavar="N", help="Of Spark, at once (default: its cores).")
@click.option("--retry-errors", is_flag=True, help="Ask the questions that failed again.")
@click.option("--yes", is_flag=True, help="Run a grid larger than max_trials.")
@click.option("--no-mlflow", is_flag=True, help="Keep the result on disk alone.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
def sweep(
    specification: str,
    engine: Literal["local", "spark"],
    tasks: int | None,
    retry_errors: bool,
    yes: bool,
    no_mlflow: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Try many configurations on one question set, and say which is really better.

    Interrupted, the same command goes on where it ended; what configurations share is done once.

    Example: citeqa sweep configs/sweep.yaml
    """
    import json

    from tqdm import tqdm

    from eval.sweep.command import sweep_file
    from eval.sweep.files import to_json_object
    from eval.sweep.run import SweepOptions, SweepProgress
    from eval.sweep.table import render_sweep

    with tqdm(desc="sweeping", unit=" answers", file=sys.stderr, disable=None, leave=False) as bar:

        def show(progress: SweepProgress) -> None:
            _advance(bar, progress)

        try:
            result = sweep_file(
                specification,
                SweepOptions(
                    retry_errors=retry_errors,
                    allow_large=yes,
                    on_progress=show,
                    engine=engine,
                    tasks=tasks,
                ),
                log_to_mlflow=not no_mlflow,
            )
        except KeyboardInterrupt:
            bar.close()
            fail("Interrupted: what is answered is kept. The same command goes on from there.")
    click.echo(json.dumps(to_json_object(result), ensure_ascii=False) if as_json else render_sweep(result))


def _advance(bar: Any, progress: Any) -> None:
    if progress.configurations is not None:
        bar.total = progress.configurations * progress.questions
    bar.update((progress.configuration - 1) * progress.questions + progress.answered - bar.n)
    of = f"/{progress.configurations}" if progress.configurations else ""
    cost = f", {progress.spent.usd:.2f} USD" if progress.spent.usd else ""
    bar.set_postfix_str(f"configuration {progress.configuration}{of}{cost}", refresh=False)

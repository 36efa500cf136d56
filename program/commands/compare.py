"""`citeqa compare`."""

from __future__ import annotations

import click

from program.commands.options import configured, read_settings


@click.command("compare")
@click.argument("a")
@click.argument("b")
@configured
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Compare these alone.")
@click.option("--by", multiple=True, metavar="TAG", help="Slice by these tags (default: as configured).")
@click.option(
    "--questions",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    metavar="N",
    help="Show N that changed most.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on stdout.")
def compare(
    a: str,
    b: str,
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    metrics: tuple[str, ...],
    by: tuple[str, ...],
    questions: int,
    as_json: bool,
) -> None:
    """Say whether run B is better than run A, by how much, and why.

    Runs are directories of `citeqa eval` or of a sweep's trials, scores.jsonl files, or MLflow runs by id or
    name, those of mlflow.genai.evaluate included. Of two program files, the prompts are compared.

    Example: citeqa compare build/runs/baseline build/runs/candidate --questions 10
    """
    settings = read_settings(config, overrides)

    from eval.comparison.programs import are_programs, render_programs

    if are_programs(a, b):
        click.echo(render_programs(a, b))
        return

    from eval.comparison.as_json import render_json
    from eval.comparison.changes import question_changes
    from eval.comparison.comparison import compare_runs
    from eval.comparison.loading import read_scored_run
    from eval.comparison.terminal import render_comparison

    run_a, run_b = (read_scored_run(source, settings.tracking) for source in (a, b))
    comparison = compare_runs(run_a, run_b, metrics, by or settings.evaluation.slices)
    for warning in comparison.warnings():
        click.echo(f"Warning: {warning}", err=True)
    changes = question_changes(comparison, questions)
    click.echo(render_json(comparison, changes) if as_json else render_comparison(comparison, changes))

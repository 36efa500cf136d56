"""`citeqa gate`."""

from __future__ import annotations

import sys

import click

from program.commands.options import configured, read_settings


@click.command("gate")
@click.argument("baseline")
@click.argument("candidate")
@configured
@click.option("--max-drop", "drops", multiple=True, metavar="METRIC=MARGIN", help="What it may lose at most.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="How sure a fall must be.")
@click.option("--require-power", is_flag=True, help="Fail, too, where such a fall could not have been seen.")
@click.option(
    "--max-missing",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the baseline's questions, those that the candidate may have no score for.",
)
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Write JUnit XML.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False), metavar="FILE", help="Write a summary for a comment."
)
def gate(
    baseline: str,
    candidate: str,
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    drops: tuple[str, ...],
    confidence: float,
    require_power: bool,
    max_missing: float,
    junit: str | None,
    markdown: str | None,
) -> None:
    """Exit with 1 when the candidate fell below the baseline by more than is tolerated, for use in CI.

    Without --max-drop, any certain fall of a metric that sums a run up counts. Exit code 2: it could not be told.

    Example: citeqa gate build/runs/baseline build/runs/candidate --max-drop recall@5=0.02
    """
    settings = read_settings(config, overrides)

    from eval.comparison.changes import question_changes
    from eval.comparison.comparison import compare_runs
    from eval.comparison.gate import check_gate
    from eval.comparison.gate_reports import render_gate, render_junit, render_markdown
    from eval.comparison.loading import read_scored_run
    from eval.comparison.margins import parse_margins, write_report

    margins = parse_margins(drops)
    run_a, run_b = (read_scored_run(source, settings.tracking) for source in (baseline, candidate))
    comparison = compare_runs(run_a, run_b, list(margins), settings.evaluation.slices, explore=False)
    result = check_gate(
        comparison, margins, confidence=confidence, require_power=require_power, max_missing=max_missing
    )
    if junit:
        write_report(junit, render_junit(result))
    if markdown:
        write_report(markdown, render_markdown(result, question_changes(comparison, 5, only="lost")))
    for warning in comparison.warnings():
        click.echo(f"Warning: {warning}", err=True)
    click.echo(render_gate(result))
    if not result.passed:
        sys.exit(1)

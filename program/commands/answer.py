"""`citeqa answer`."""

from __future__ import annotations

import click

from program.commands.options import answering, configured, fail, read_settings


@click.command()
@configured
@click.argument("questions", metavar="QUESTIONS")
@click.option("--out", required=True, metavar="FILE", help="Where the answers go: .csv, .jsonl or .parquet.")
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="spark: from and to files, directories or tables (catalog.schema.table).",
)
@click.option("--model", metavar="URI", help="spark: an agent that MLflow has, models:/… or runs:/…")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column is the question; also id, history, k, filters.",
)
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are read.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions.")
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="Asked at once.")
@click.option(
    "--max-failed-share",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Stop when more questions fail; 1: never.",
)
@click.option("--retry-errors", is_flag=True, help="Ask the questions that failed again.")
@click.option("--trace", is_flag=True, help="Keep the traces in the MLflow store.")
def answer(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    questions: str,
    out: str,
    engine: str,
    model: str | None,
    columns: tuple[str, ...],
    k: int | None,
    limit: int | None,
    threads: int,
    max_failed_share: float,
    retry_errors: bool,
    trace: bool,
) -> None:
    """Answer a table of questions (.csv, .jsonl, .parquet) into another, with sources.

    Interrupted, the same command goes on where it ended.

    Example: citeqa answer questions.csv --out answers.jsonl --column question=q
    """
    if model is not None and engine == "local":
        fail("--model: an agent that MLflow has is asked on Spark. Add --engine spark")
    if model is not None and k is not None:
        fail(
            f"-k {k}: the agent of --model {model} has a k of its own. A column can give each row one: --column k=…"
        )
    settings = read_settings(config, overrides, retrieval__k=k)

    if engine == "spark":
        from program.spark.asking import Asking
        from program.spark.run import answer_on_spark

        report = answering(
            lambda show: answer_on_spark(
                settings,
                questions,
                out,
                model=model,
                columns=columns,
                limit=limit,
                how=Asking(threads, max_failed_share, trace),
                retry_errors=retry_errors,
                on_answer=show,
            )
        )
    else:
        from pathlib import Path

        from program.batch_run import answer_table

        report = answering(
            lambda show: answer_table(
                settings,
                Path(questions),
                Path(out),
                columns=columns,
                limit=limit,
                threads=threads,
                max_failed_share=max_failed_share,
                retry_errors=retry_errors,
                trace=trace,
                on_answer=show,
                on_warning=lambda warning: click.echo(f"Warning: {warning}.", err=True),
            )
        )
    click.echo(report.render())

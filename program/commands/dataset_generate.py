"""`citeqa dataset generate`."""

from __future__ import annotations

import sys

import click

from program.commands.options import advance, configured, fail, read_settings


@click.command()
@configured
@click.option(
    "--out", required=True, metavar="FILE", help="Where the drafts go (.jsonl); added to if it is there."
)
@click.option("-n", "count", type=click.IntRange(1), default=50, show_default=True, help="How many drafts.")
@click.option("--lang", metavar="CODE", help="Only from documents in this language, such as ja.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which passages are asked about.")
@click.option(
    "--unanswerable",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="So large a share of questions that sound right and that the documents do not answer.",
)
@click.option("--index", metavar="PATH", help="Where the index is.")
def generate(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    out: str,
    count: int,
    lang: str | None,
    seed: int,
    unanswerable: float,
    index: str | None,
) -> None:
    """Draft questions from the indexed documents with the language model, for people to review.

    Interrupted, the same command goes on where it ended.

    Example: citeqa dataset generate --out drafts.jsonl -n 50 --lang ja
    """
    from pathlib import Path

    from tqdm import tqdm

    settings = read_settings(config, overrides, retrieval__index=index)

    from eval.drafting.drafting import DraftPlan, draft_questions, render_report

    plan = DraftPlan(Path(out), count, lang, seed, unanswerable)
    with tqdm(desc="drafting", unit=" questions", file=sys.stderr, disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            advance(bar, done)

        try:
            report = draft_questions(settings, plan, show)
        except KeyboardInterrupt:
            bar.close()
            fail(f"Interrupted: the drafts so far are in '{out}'. The same command goes on from there.")
    click.echo(render_report(plan, report))

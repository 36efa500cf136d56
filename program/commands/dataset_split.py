"""`citeqa dataset split`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from program.commands.dataset_options import FORMATS, how_to_read, point_mlflow, read_all
from program.commands.options import configured, read_settings

if TYPE_CHECKING:
    from eval.formats.choice import Format


@click.command()
@configured
@click.argument("path", required=False)
@click.option("--out", required=True, metavar="TARGET", help="Where the divided questions go.")
@click.option("--shares", default="dev=.5,test=.5", show_default=True, help="Each split's share.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another one divides otherwise.")
@click.option(
    "--strata", default="type,lang", show_default=True, metavar="TAGS", help="Tags to divide evenly by."
)
@click.option(
    "--gold-together/--gold-apart",
    default=True,
    show_default=True,
    help="Whether questions with the same gold documents stay in one split.",
)
@click.option(
    "--format", "format", type=click.Choice(FORMATS), help="Format of PATH (default: by what it is)."
)
@click.option(
    "--to", "to_format", type=click.Choice(FORMATS), help="Format of TARGET (default: by its name)."
)
@click.option("--overwrite", is_flag=True, help="Replace what is at TARGET.")
def split(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    path: str | None,
    out: str,
    shares: str,
    seed: int,
    strata: str,
    gold_together: bool,
    format: Format | None,
    to_format: Format | None,
    overwrite: bool,
) -> None:
    """Divide questions into splits that are alike.

    Questions that are nearly the same stay together, as do those with the same gold documents. The same
    questions and seed give the same splits; a question that is added moves few others.

    Example: citeqa dataset split questions.jsonl --out divided.jsonl --shares train=.5,dev=.2,test=.3
    """
    settings = read_settings(config, overrides)

    from eval.curation.split_files import render_division, write_division
    from eval.curation.splitting import divide, parse_shares

    parsed = parse_shares(shares)
    source, reading = how_to_read(settings, path, format)
    point_mlflow(settings, out)
    ground_truth = read_all(source, reading)
    tags = [tag.strip() for tag in strata.split(",") if tag.strip()]
    division = divide(ground_truth.questions, parsed, seed=seed, strata=tags, gold_together=gold_together)
    copy = write_division(
        division,
        ground_truth,
        source,
        out,
        source_format=reading["format"],
        to_format=to_format,
        columns=reading["columns"],
        store=reading["store"],
        overwrite=overwrite,
    )
    for warning in copy.warnings():
        click.echo(f"Warning: {warning}", err=True)
    click.echo(render_division(division, out))

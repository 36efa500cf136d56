"""`citeqa calibrate`."""

from __future__ import annotations

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--dataset", metavar="FILE", help="Labelled questions, unanswerable ones among them.")
@click.option("--split", metavar="NAME", help="Of the dataset; never the one that is reported on.")
@click.option(
    "--out", default="build/calibration.json", show_default=True, metavar="FILE", help="Where it is kept."
)
def calibrate(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    dataset: str | None,
    split: str | None,
    out: str,
) -> None:
    """Fit how likely the passages answer a question, and say how well that tells.

    Example: citeqa calibrate --split train --out build/calibration.json
    """
    settings = read_settings(config, overrides, evaluation__dataset=dataset, evaluation__split=split)

    from pathlib import Path

    from eval.calibrating import calibrate_to

    click.echo(calibrate_to(settings, Path(out)).render())
    click.echo(f"Kept in {out}. Use it: --set reader.calibration={out} --set reader.abstain_below=0.5")

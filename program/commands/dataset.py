"""`citeqa dataset`: look after a ground truth."""

from __future__ import annotations

import click

from program.commands.dataset_check import check
from program.commands.dataset_convert import convert
from program.commands.dataset_generate import generate
from program.commands.dataset_split import split
from program.commands.dataset_stats import stats


@click.group()
def dataset() -> None:
    """Check, split, count, convert and draft the questions of a ground truth.

    Example: citeqa dataset check questions.jsonl
    """


for command in (check, stats, split, convert, generate):
    dataset.add_command(command)

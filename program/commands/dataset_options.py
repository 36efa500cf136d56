"""What the commands of `citeqa dataset` share: formats, and what is read where none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from eval.formats.choice import Format
    from eval.ground_truth import GroundTruth
    from program.settings import Settings

FORMATS = ("jsonl", "table", "beir", "trec", "squad", "mlflow")


def how_to_read(settings: Settings, path: str | None, format: Format | None) -> tuple[str, dict[str, Any]]:
    """What is to be read, and how: the configured dataset where none is named."""
    from eval.formats.choice import format_of

    source = path or settings.evaluation.dataset
    columns = settings.evaluation.columns or None
    format = format or format_of(source, has_columns=columns is not None)
    columns = columns if format == "table" else None
    return source, {"format": format, "columns": columns, "store": settings.tracking.uri}


def read_all(source: str, reading: dict[str, Any]) -> GroundTruth:
    """The questions of all splits."""
    from eval.ground_truth import read_every_split

    return read_every_split(source, **reading)


def point_mlflow(settings: Settings, target: str) -> None:
    """Where a dataset of MLflow is written, its store and experiment are made ready."""
    if target.startswith("mlflow:"):
        from program.tracking import connect

        connect(settings.tracking)


def echo_json(value: dict[str, Any]) -> None:
    """A value for a machine, on stdout."""
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2))

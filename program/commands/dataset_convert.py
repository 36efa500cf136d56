"""`citeqa dataset convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from program.commands.dataset_options import FORMATS, how_to_read, point_mlflow, read_all
from program.commands.options import configured, read_settings
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    from eval.formats.choice import Format
    from program.settings import Settings

TARGETS = (*FORMATS, "trec-run")


@click.command()
@configured
@click.argument("source")
@click.argument("target")
@click.option(
    "--from", "from_format", type=click.Choice(FORMATS), help="Format of SOURCE (default: by what it is)."
)
@click.option(
    "--to",
    "to_format",
    type=click.Choice([*FORMATS, "trec-run"]),
    help="Format of TARGET (default: by its name).",
)
@click.option("--split", metavar="NAME", help="Only this split.")
@click.option(
    "--corpus", metavar="PATH", help="Documents: SQuAD needs those of the gold, BEIR gets them all."
)
@click.option("--documents", metavar="FILE", help="Write the documents, too (.jsonl, for citeqa index).")
@click.option("--overwrite", is_flag=True, help="Replace what is at TARGET.")
def convert(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    source: str,
    target: str,
    from_format: Format | None,
    to_format: str | None,
    split: str | None,
    corpus: str | None,
    documents: str | None,
    overwrite: bool,
) -> None:
    """Copy questions into another format; say what the copy lacks.

    SOURCE and TARGET: .jsonl (agent-evaluation set), .csv, .parquet, .json (SQuAD), a BEIR or TREC directory,
    trec:TOPICS,QRELS, or mlflow:NAME, an evaluation dataset. --to trec-run makes a run file of a run.

    Example: citeqa dataset convert questions.jsonl beir/ --to beir --corpus docs.jsonl
    """
    settings = read_settings(config, overrides)
    if to_format == "trec-run":
        _write_run(settings, source, target, overwrite)
        return

    from pathlib import Path

    from eval.curation.conversion import copy_ground_truth, document_reader, write_documents
    from eval.ground_truth import read_ground_truth

    source, reading = how_to_read(settings, source, from_format)
    point_mlflow(settings, target)
    ground_truth = read_ground_truth(source, split=split, **reading) if split else read_all(source, reading)
    read = document_reader(source, reading["format"], corpus)
    if documents and read is None:
        raise ConfigurationError("--documents: the source brings no documents. Name them with --corpus.")
    copy = copy_ground_truth(
        ground_truth,
        source,
        target,
        source_format=reading["format"],
        to_format=to_format,  # type: ignore[arg-type]  # checked by click
        columns=reading["columns"],
        corpus=corpus,
        store=reading["store"],
        overwrite=overwrite,
    )
    for warning in copy.warnings():
        click.echo(f"Warning: {warning}", err=True)
    written = f", {copy.documents} documents" if copy.documents else ""
    click.echo(f"{target}: {copy.questions} questions{written}")
    if documents and read is not None:
        click.echo(f"{documents}: {write_documents(read(), Path(documents))} documents")


def _write_run(settings: Settings, source: str, target: str, overwrite: bool) -> None:
    from eval.comparison.loading import read_scored_run
    from eval.curation.conversion import check_free
    from eval.formats.trec_runs import write_trec_run
    from eval.uris import UriNormalization, uri_normalizer

    check_free(target, "trec", overwrite)
    run = read_scored_run(source, settings.tracking)
    uris = run.uris or UriNormalization(**settings.evaluation.uris.model_dump())
    written = write_trec_run(run, target, uri_normalizer(uris))
    if written.without_lines:
        click.echo(
            f"Warning: {len(written.without_lines)} questions have no line, as they failed or found nothing, first "
            f"{written.without_lines[0]!r}. trec_eval counts them as zero only with -c.",
            err=True,
        )
    click.echo(f"{target}: {written.questions} questions")

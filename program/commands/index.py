"""`citeqa index`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from program.commands.index_duplicates import duplicates
from program.commands.index_stats import stats
from program.commands.options import advance, configured, fail, read_settings

if TYPE_CHECKING:
    from program.settings import Settings
    from retrieval.local_index import IndexReport


@click.group(invoke_without_command=True)
@configured
@click.option(
    "--corpus", metavar="PATH", help="Folder or file to read; docs/documents.md tells of what kinds."
)
@click.option("--base-url", metavar="URL", help="doc_uri of a document without one: URL and its path.")
@click.option("--index", metavar="PATH", help="Where the index is.")
@click.option("--rebuild", is_flag=True, help="Index everything anew, not just what changed.")
@click.option("--strict", is_flag=True, help="Let a bad document be an error, and change nothing then.")
@click.option("--watch", is_flag=True, help="Keep the index up to date as documents change, until Ctrl-C.")
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="spark: into a Delta table, with a Vector Search index behind it; docs/corpus-pipeline.md.",
)
@click.option("--to", metavar="PLACE", help="spark: catalog.schema.table, or a directory.")
@click.option("--json", "as_json", is_flag=True, help="spark: the report as JSON on stdout.")
@click.pass_context
def index(
    context: click.Context,
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    corpus: str | None,
    base_url: str | None,
    index: str | None,
    rebuild: bool,
    strict: bool,
    watch: bool,
    engine: str,
    to: str | None,
    as_json: bool,
) -> None:
    """Index documents, or bring the index up to date with them.

    Example: citeqa index --corpus docs/ --base-url https://docs.example.com
    """
    if context.invoked_subcommand is not None:
        return
    settings = read_settings(
        config,
        overrides,
        corpus__path=corpus,
        corpus__base_url=base_url,
        retrieval__index=index,
        pipeline__table=to,
    )
    if engine == "spark":
        if watch:
            fail("Error: --watch follows files here. On Spark, run the command again: a job with a schedule.")
        _index_on_spark(settings, rebuild, strict, as_json)
        return
    if to is not None or as_json:
        fail(f"Error: {'--to' if to is not None else '--json'} is for Spark. Add --engine spark")
    if watch and rebuild:
        fail("Error: --watch and --rebuild do not go together. Rebuild first, then watch.")
    if watch:
        _watch(settings, strict)
    else:
        _tell(settings, _index(settings, rebuild, strict))


def _index_on_spark(settings: Settings, rebuild: bool, strict: bool, as_json: bool) -> None:
    from program.spark.corpus.run import index_on_spark

    report = index_on_spark(
        settings, rebuild=rebuild, strict=strict, tell=lambda what: click.echo(what, err=True)
    )
    for line in report.render_refusals():
        click.echo(line, err=True)
    click.echo(report.as_json() if as_json else report.render())


def _index(settings: Settings, rebuild: bool, strict: bool) -> IndexReport:
    from tqdm import tqdm

    from program.indexing import index_corpus

    with tqdm(desc="indexing", unit=" documents", file=sys.stderr, disable=None, leave=False) as bar:
        return index_corpus(
            settings, rebuild=rebuild, strict=strict, on_progress=lambda count: advance(bar, count)
        )


def _tell(settings: Settings, report: IndexReport) -> None:
    from program.indexing import render_refusals, render_report

    for line in render_refusals(report):
        click.echo(line, err=True)
    click.echo(render_report(settings, report))


def _watch(settings: Settings, strict: bool) -> None:
    from pathlib import Path

    from program.indexing import watched_paths
    from program.watching import keep_in_step

    paths = watched_paths(settings)
    is_first = True
    refused: object = None

    def update() -> None:
        nonlocal is_first, refused
        report = _index(settings, rebuild=False, strict=strict)
        # A file that was only touched is nothing to speak of.
        if is_first or report.added or report.replaced or report.deleted or report.refused != refused:
            _tell(settings, report)
        if is_first:
            click.echo(f"Watching {', '.join(map(str, paths))}; Ctrl-C ends it.", err=True)
        is_first, refused = False, report.refused

    keep_in_step(
        update, paths, Path(settings.retrieval.index), tell=lambda reason: click.echo(reason, err=True)
    )
    click.echo("Stopped.", err=True)


index.add_command(stats)
index.add_command(duplicates)

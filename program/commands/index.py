"""`citeqa index`."""

from __future__ import annotations

import sys

import click

from program.commands.options import advance, configured, read_settings


@click.command()
@configured
@click.option("--corpus", metavar="PATH", help="Folder, JSON Lines file or BEIR directory to read.")
@click.option("--base-url", metavar="URL", help="doc_uri of a document without one: URL and its path.")
@click.option("--index", metavar="PATH", help="Where the index is.")
@click.option("--rebuild", is_flag=True, help="Index everything anew, not just what changed.")
def index(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    corpus: str | None,
    base_url: str | None,
    index: str | None,
    rebuild: bool,
) -> None:
    """Index documents, or bring the index up to date with them.

    Example: citeqa index --corpus docs/ --base-url https://docs.example.com
    """
    from tqdm import tqdm

    from program.settings import chunking_settings
    from retrieval.corpus import read_documents
    from retrieval.local_index import LocalIndex

    settings = read_settings(
        config, overrides, corpus__path=corpus, corpus__base_url=base_url, retrieval__index=index
    )
    source = settings.corpus
    documents = read_documents(source.path, base_url=source.base_url, layout=source.layout)
    write = LocalIndex.build if rebuild else LocalIndex.sync
    with tqdm(desc="indexing", unit=" documents", file=sys.stderr, disable=None, leave=False) as bar:
        report = write(
            settings.retrieval.index,
            documents,
            chunking=chunking_settings(settings),
            on_progress=lambda count: advance(bar, count),
        )
    click.echo(
        f"{settings.retrieval.index}: {report.documents} documents, {report.passages} passages "
        f"({report.added} added, {report.replaced} replaced, {report.deleted} deleted, "
        f"{report.unchanged} unchanged) in {report.seconds:.1f} s"
    )

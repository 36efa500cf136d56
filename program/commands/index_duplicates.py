"""`citeqa index duplicates`."""

from __future__ import annotations

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--index", metavar="PATH", help="Where the index is.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="The cosine of two passages from which they are nearly the same.",
)
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="How many groups to show."
)
@click.option("--json", "as_json", is_flag=True, help="All groups as JSON on stdout.")
def duplicates(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    index: str | None,
    threshold: float,
    limit: int,
    as_json: bool,
) -> None:
    """Find passages that several documents have in common, or nearly.

    Example: citeqa index duplicates --threshold 0.95
    """
    settings = read_settings(config, overrides, retrieval__index=index)

    import json

    from program.retrievers import open_own_index
    from retrieval.duplicates import find_duplicates, render_duplicates

    report = find_duplicates(open_own_index(settings, "citeqa index duplicates"), threshold)
    if not as_json:
        click.echo(render_duplicates(report, limit))
        return
    groups = [
        {
            "similarity": group.similarity,
            "passages": [
                {"chunk_id": one.chunk_id, "doc_uri": one.doc_uri, "url": one.url, "text": one.text}
                for one in group.passages
            ],
        }
        for group in report.groups
    ]
    found = {"passages": report.passages, "compared": report.compared, "groups": groups}
    click.echo(json.dumps(found, ensure_ascii=False, indent=2))

"""`citeqa index stats`."""

from __future__ import annotations

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--index", metavar="PATH", help="Where the index is.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on stdout.")
def stats(
    config: str | None, overrides: tuple[str, ...], debug: bool, index: str | None, as_json: bool
) -> None:
    """Say what the index holds, how large it is, and what it was made with.

    Example: citeqa index stats --json
    """
    settings = read_settings(config, overrides, retrieval__index=index)

    import json
    from dataclasses import asdict

    from program.retrievers import open_own_index
    from retrieval.index_stats import describe_index, render_stats

    found = describe_index(open_own_index(settings, "citeqa index stats"))
    click.echo(json.dumps(asdict(found), ensure_ascii=False, indent=2) if as_json else render_stats(found))

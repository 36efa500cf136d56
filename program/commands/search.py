"""`citeqa search`."""

from __future__ import annotations

import click

from program.commands.filters import filtered, parse_filters
from program.commands.options import configured, read_settings


@click.command()
@configured
@click.argument("query")
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are found.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "lexical", "dense", "hybrid"]),
    help="By words, vectors or both. Default: retrieval.mode.",
)
@filtered
@click.option("--explain", is_flag=True, help="Ranks and scores of each stage, and the terms that matched.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def search(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    query: str,
    k: int | None,
    mode: str | None,
    filters: tuple[str, ...],
    explain: bool,
    as_json: bool,
) -> None:
    """Find passages without answering, and see why each is where it is.

    Example: citeqa search "redact personal data" --explain
    """
    settings = read_settings(config, overrides, retrieval__k=k, retrieval__mode=mode)
    conditions = {**settings.retrieval.filters, **parse_filters(filters)}

    from program.retrievers import open_retriever
    from program.search_results import query_terms, render_explanation, render_json, render_results
    from retrieval.errors import ConfigurationError
    from retrieval.local_retriever import Explanation, RankedRetriever

    retriever = open_retriever(settings)
    if not explain:
        found = [
            Explanation(one) for one in retriever.search(query, settings.retrieval.k, conditions or None)
        ]
        used = retriever.identity["mode"]
        click.echo(render_json(used, query, conditions, found) if as_json else render_results(found))
        return
    if not isinstance(retriever, RankedRetriever):
        raise ConfigurationError(
            f"--explain: only an index that is ranked here tells how, and retrieval.backend is "
            f"{settings.retrieval.backend}."
        )
    found = retriever.explain(query, settings.retrieval.k, conditions or None)
    if as_json:
        terms = query_terms(retriever, query)
        click.echo(render_json(retriever.mode, query, conditions, found, terms))
    else:
        click.echo(render_explanation(retriever, query, conditions, found))

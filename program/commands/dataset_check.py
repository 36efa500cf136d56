"""`citeqa dataset check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from program.commands.dataset_options import FORMATS, echo_json, how_to_read, read_all
from program.commands.options import configured, read_settings
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    from eval.formats.choice import Format


@click.command()
@configured
@click.argument("path", required=False)
@click.option("--format", "format", type=click.Choice(FORMATS), help="Default: by what the path is.")
@click.option("--corpus", metavar="PATH", help="Documents to look gold up in, instead of an index.")
@click.option("--index", metavar="PATH", help="Index to look gold up in (default: the configured one).")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="COSINE",
    help="Questions at least so alike are one (default: 0.9).",
)
@click.option(
    "--same-gold-threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="COSINE",
    help="Likewise, with the same gold (default: 0.75).",
)
@click.option(
    "--pool", "runs", multiple=True, metavar="RUN", help="List what runs rank high and nobody judged."
)
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Ranks that are high.")
@click.option(
    "--at-least",
    type=click.IntRange(1),
    metavar="N",
    help="Runs that must agree (default: 2, or all of one).",
)
@click.option("--pool-out", metavar="FILE", help="Write the list to judge: .jsonl or .csv.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on stdout.")
def check(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    path: str | None,
    format: Format | None,
    corpus: str | None,
    index: str | None,
    threshold: float | None,
    same_gold_threshold: float | None,
    runs: tuple[str, ...],
    depth: int,
    at_least: int | None,
    pool_out: str | None,
    as_json: bool,
) -> None:
    """Find leaks between splits, and gold that nobody can find.

    Exit code 1 when there are any: they make an evaluation dishonest. With --pool, also the documents that several
    runs rank high and nobody judged; a RUN is what citeqa compare takes, or a TREC run file.

    Example: citeqa dataset check questions.jsonl --pool build/runs/a --pool build/runs/b --pool-out judge.csv
    """
    settings = read_settings(config, overrides)

    from eval.curation.check_report import check_as_json, render_check
    from eval.curation.checking import check_ground_truth
    from eval.curation.known_documents import find_documents
    from eval.curation.leaks import NEAR_DUPLICATE, SAME_GOLD
    from eval.curation.pooling import find_unjudged
    from eval.curation.rankings import read_rankings
    from eval.uris import UriNormalization, uri_normalizer

    source, reading = how_to_read(settings, path, format)
    ground_truth = read_all(source, reading)
    normalize = uri_normalizer(UriNormalization(**settings.evaluation.uris.model_dump()))
    known = find_documents(
        source, reading["format"], corpus=corpus, index=index, default_index=settings.retrieval.index
    )
    result = check_ground_truth(
        ground_truth,
        known.doc_uris,
        normalize,
        threshold=threshold or NEAR_DUPLICATE,
        same_gold_threshold=same_gold_threshold or SAME_GOLD,
    )
    unjudged = None
    if runs:
        rankings = {run: read_rankings(run, settings.tracking, normalize) for run in runs}
        unjudged = find_unjudged(
            ground_truth.questions,
            rankings,
            normalize,
            depth=depth,
            at_least=min(2, len(rankings)) if at_least is None else at_least,
        )
    elif pool_out:
        raise ConfigurationError("--pool-out needs runs to pool: --pool RUN")
    if pool_out:
        from eval.curation.judging_list import write_judging_list

        write_judging_list(unjudged or [], known.describe, pool_out)
    if as_json:
        echo_json(check_as_json(result, unjudged, known.describe))
    else:
        click.echo(render_check(result, known.source, unjudged))
    if not result.honest:
        sys.exit(1)

"""`citeqa index` as a function: the documents that the settings name, in the index that they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from program.embedding import open_configured_embedder
from program.settings import Settings, chunking_settings, reading_settings
from retrieval.corpus import read_groups
from retrieval.errors import ConfigurationError
from retrieval.local_index import IndexReport, LocalIndex, Progress

_MOST_REFUSALS = 100


def index_corpus(
    settings: Settings, *, rebuild: bool = False, strict: bool = False, on_progress: Progress | None = None
) -> IndexReport:
    """Bring the index up to date with the corpus, or make it anew.

    Raises:
        CorpusError: if there is nothing to index; with `strict`, if any document is bad.
        IndexUnusableError, StorageError: if the index cannot be written.
        ConfigurationError, EmbeddingError: if an embedding model is configured and cannot be used; the first also if
            the index is made elsewhere.
    """
    if settings.retrieval.backend == "pgvector":
        from program.postgres import index_into_postgres

        return index_into_postgres(settings, rebuild=rebuild, strict=strict, on_progress=on_progress)
    if settings.retrieval.backend == "vector_search":
        raise ConfigurationError(
            "retrieval.backend is vector_search: such an index follows a table, which `citeqa index --engine spark "
            "--to catalog.schema.table` makes (docs/corpus-pipeline.md). For an index here, set it to local."
        )
    write = LocalIndex.build if rebuild else LocalIndex.sync
    return write(
        settings.retrieval.index,
        read_groups(settings.corpus.path, reading_settings(settings)),
        chunking=chunking_settings(settings),
        on_progress=on_progress,
        strict=strict,
        embedder=open_configured_embedder(settings.embedder),
    )


def watched_paths(settings: Settings) -> list[Path]:
    """The files and folders that the index depends on."""
    corpus = settings.corpus
    return [Path(path) for path in (corpus.path, corpus.pages) if path]


def render_report(settings: Settings, report: IndexReport) -> str:
    """One line for a person."""
    refused = f", {len(report.refused)} refused" if report.refused else ""
    cut = (
        f"; of {report.truncated} passages the embedding model read only the beginning"
        if report.truncated
        else ""
    )
    return (
        f"{_place(settings)}: {report.documents} documents, {report.passages} passages "
        f"({report.added} added, {report.replaced} replaced, {report.deleted} deleted, "
        f"{report.unchanged} unchanged{refused}) in {report.seconds:.1f} s{cut}"
    )


def _place(settings: Settings) -> str:
    if settings.retrieval.backend == "pgvector":
        return f"table {settings.retrieval.pgvector.table}"
    return settings.retrieval.index


def render_refusals(report: IndexReport) -> Iterator[str]:
    """A line for each document that was refused, up to a hundred."""
    for refused in report.refused[:_MOST_REFUSALS]:
        kept = " Its last good version stays in the index." if refused.is_kept else ""
        yield f"Refused: {refused.reason}{kept}"
    if len(report.refused) > _MOST_REFUSALS:
        yield f"Refused: {len(report.refused) - _MOST_REFUSALS} more."

"""The `retrieval.pgvector` section of the settings as a retriever over PostgreSQL, and the corpus that it searches."""

from __future__ import annotations

from functools import lru_cache

from program.embedding import open_configured_embedder
from program.remote_settings import PgVectorSettings, ResilienceSettings
from program.retrievers import open_models, ranking_settings
from program.settings import Settings, chunking_settings, reading_settings
from retrieval.corpus import read_sources
from retrieval.indexing import IndexReport, Progress
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.retriever import PostgresRetriever
from retrieval.postgres.writing import write_corpus
from retrieval.resilience import Limits


def open_postgres(settings: Settings) -> PostgresRetriever:
    """The retriever over the table that the settings name, ranked as they say.

    Raises:
        ConfigurationError: if the database or a model cannot be found by them, or an extra is not installed.
        IndexMissingError, IndexUnusableError: if there is no corpus, or it lacks what the mode needs.
        RetrievalError: if the database refuses or cannot be reached.
    """
    pgvector = settings.retrieval.pgvector
    index = PostgresIndex.open(open_database(pgvector), pgvector.table)
    embedder, reranker = open_models(settings)
    return PostgresRetriever(
        index, ranking_settings(settings.retrieval), embedder=embedder, reranker=reranker
    )


def index_into_postgres(
    settings: Settings, *, rebuild: bool = False, strict: bool = False, on_progress: Progress | None = None
) -> IndexReport:
    """Bring the table up to date with the corpus, or make it anew. Raises as `write_corpus`, and as `open_postgres`."""
    pgvector = settings.retrieval.pgvector
    return write_corpus(
        open_database(pgvector),
        pgvector.table,
        read_sources(settings.corpus.path, reading_settings(settings)),
        chunking=chunking_settings(settings),
        embedder=open_configured_embedder(settings.embedder),
        rebuild=rebuild,
        strict=strict,
        on_progress=on_progress,
    )


def open_database(pgvector: PgVectorSettings) -> Database:
    """The database, whose connections all who ask in this process share. Nothing is connected yet.

    Raises:
        ConfigurationError: if it cannot be read where it is, or the extra `postgres` is not installed.
    """
    address = Address(pgvector.dsn or "", pgvector.lakebase_instance)
    return _open_once(address, limits_of(pgvector.resilience), pgvector.max_connections)


def limits_of(resilience: ResilienceSettings) -> Limits:
    """The settings as retrieval takes them."""
    return Limits(**resilience.model_dump())


@lru_cache(maxsize=8)
def _open_once(address: Address, limits: Limits, max_connections: int) -> Database:
    return Database(address, limits, most_connections=max_connections)

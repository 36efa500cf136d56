"""A corpus in a real PostgreSQL, written and searched as users do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import pytest
from given_sources import source_of

from retrieval.chunking import ChunkingSettings
from retrieval.indexing import IndexReport
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.writing import write_corpus
from retrieval.resilience import Limits
from retrieval.sources import Source
from retrieval.types import Document

Write: TypeAlias = Callable[..., IndexReport]

QUICK = Limits(timeout_s=5, attempt_timeout_s=2, num_retries=3)


@pytest.fixture
def database(postgres: str) -> Iterator[Database]:
    """An empty database."""
    database = Database(Address(postgres), QUICK)
    yield database
    database.close()


@pytest.fixture
def write(database: Database) -> Write:
    """Brings the table `passages` up to date with documents or sources; settings as `write_corpus` has them."""

    def write(corpus: Iterable[Document | Source], **how: Any) -> IndexReport:
        sources = [one if isinstance(one, Source) else source_of(one) for one in corpus]
        return write_corpus(database, "passages", sources, **{"chunking": ChunkingSettings(), **how})

    return write


@pytest.fixture
def index(database: Database, write: Write) -> Callable[[Iterable[Document]], PostgresIndex]:
    """The index of documents."""

    def index(documents: Iterable[Document], **how: Any) -> PostgresIndex:
        write(documents, **how)
        return PostgresIndex.open(database, "passages")

    return index

"""The one row that says what a corpus in PostgreSQL was made with, and how much it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings
from retrieval.errors import IndexMissingError, IndexUnusableError
from retrieval.postgres.schema import FORMAT, Tables, exists
from retrieval.postgres.weights import Averages

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """The row. `averaged` is how many passages the averages were taken of; `embedder` is a fingerprint, "" for none."""

    format: int
    analyzer: int
    max_tokens: int
    overlap_tokens: int
    chunker: str
    embedder_name: str
    embedder: str
    dimension: int
    average_words: float
    average_names: float
    average_grams: float
    averaged: int
    documents: int
    passages: int
    languages: list[str]
    content_hash: str

    @property
    def averages(self) -> Averages:
        """What the lengths of passages are measured by."""
        return Averages(self.average_words, self.average_names, self.average_grams)

    def is_of(self, chunking: ChunkingSettings, embedder: str) -> bool:
        """Whether what is there was made by these settings and the program as it is, and can be brought up to date."""
        return (
            (self.format, self.analyzer) == (FORMAT, ANALYZER_VERSION)
            and (self.max_tokens, self.overlap_tokens, self.chunker)
            == (chunking.max_tokens, chunking.overlap_tokens, chunking.chunker)
            and self.embedder == embedder
        )

    def write(self, connection: Connection, tables: Tables) -> None:
        """Put this row in the place of the one that is there."""
        places = ", ".join("%s" for _ in fields(self))
        connection.execute(f"DELETE FROM {tables.corpus}")
        connection.execute(f"INSERT INTO {tables.corpus} VALUES ({places})", astuple(self))


COLUMNS = ", ".join(field.name for field in fields(CorpusRow))


def check_corpus(connection: Connection, tables: Tables, database: str) -> None:
    """Refuse to search what is not there, or not ours.

    Raises:
        IndexMissingError: if there are no such tables.
        IndexUnusableError: if they are somebody else's.
    """
    if exists(connection, tables.corpus):
        return
    if exists(connection, tables.passages):
        raise somebody_elses(tables, database)
    raise IndexMissingError(
        f"No corpus in the table '{tables}' of {database}. Put it there: citeqa index --config …"
    )


def read_corpus(
    connection: Connection, tables: Tables, database: str, terms: Sequence[str] = ()
) -> tuple[CorpusRow, dict[str, int]]:
    """The row of a corpus, and how many passages hold each of the terms that any holds.

    Raises:
        IndexUnusableError: if it is of another version.
    """
    query = (
        f"SELECT (SELECT jsonb_object_agg(term, passages) FROM {tables.terms} WHERE term = ANY(%s)), {COLUMNS} "
        f"FROM {tables.corpus}"
    )
    row = connection.execute(query.encode(), [list(terms)]).fetchone()
    if row is None:
        raise IndexUnusableError(
            f"The table '{tables.corpus}' of {database} is empty. Make it anew: citeqa index --rebuild"
        )
    corpus = CorpusRow(*row[1:])
    if (corpus.format, corpus.analyzer) != (FORMAT, ANALYZER_VERSION):
        raise IndexUnusableError(
            f"The corpus in '{tables}' of {database} is of format {corpus.format}.{corpus.analyzer}, and this "
            f"program reads {FORMAT}.{ANALYZER_VERSION}. Make it anew: citeqa index --rebuild"
        )
    return corpus, row[0] or {}


def somebody_elses(tables: Tables, database: str) -> IndexUnusableError:
    """The error for a table that is there and not ours."""
    return IndexUnusableError(
        f"The table '{tables}' of {database} is not one that citeqa made; it is not touched. "
        "Name another: retrieval.pgvector.table"
    )

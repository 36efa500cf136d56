"""What a corpus in PostgreSQL knows of itself: how many passages hold a term, weights, languages, its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings
from retrieval.postgres.passage_writer import AVERAGED
from retrieval.postgres.schema import FORMAT, Tables
from retrieval.postgres.weights import DIMENSIONS, Averages, Terms, average_of
from retrieval.types import Passage

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection

_ROWS_AT_ONCE = 2_000


def count_terms(connection: Connection, tables: Tables, change: Mapping[str, int]) -> None:
    """Add to the numbers of passages that hold a term, or take from them."""
    connection.execute("CREATE TEMP TABLE changed_terms (term text, passages bigint) ON COMMIT DROP")
    with connection.cursor().copy("COPY changed_terms FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text", "int8"])
        for term, passages in change.items():
            if passages:
                copy.write_row((term, passages))
    connection.execute(
        f"""
        INSERT INTO {tables.terms} AS known SELECT term, passages FROM changed_terms
        ON CONFLICT (term) DO UPDATE SET passages = known.passages + excluded.passages;
        DELETE FROM {tables.terms} WHERE passages <= 0
        """.encode()
    )


def weigh_again(connection: Connection, tables: Tables) -> tuple[Averages, int]:
    """Give all passages the weights that they have by the averages of the first of them, and of how many that is."""
    from pgvector import SparseVector

    averages = None
    count = 0
    connection.execute(
        f"CREATE TEMP TABLE weighed (id bigint, weights sparsevec({DIMENSIONS})) ON COMMIT DROP".encode()
    )
    for rows in _all_terms(connection, tables):
        if averages is None:
            averages, count = average_of(terms for _, terms in rows[:AVERAGED]), len(rows[:AVERAGED])
        with connection.cursor().copy("COPY weighed FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "sparsevec"])
            for row, terms in rows:
                copy.write_row((row, SparseVector(terms.weights(averages), DIMENSIONS)))
    update = f"UPDATE {tables.passages} AS known SET weights = weighed.weights FROM weighed"
    connection.execute(f"{update} WHERE known.id = weighed.id".encode())
    return averages or Averages(0, 0, 0), count


def _all_terms(connection: Connection, tables: Tables) -> Iterator[list[tuple[int, Terms]]]:
    last = -1
    query = f"SELECT id, text, title, headings FROM {tables.passages} WHERE id > %s ORDER BY id LIMIT {_ROWS_AT_ONCE}"
    while rows := connection.execute(query.encode(), [last]).fetchall():
        yield [
            (row, Terms.of(Passage("", "", text, title, headings=tuple(headings))))
            for row, text, title, headings in rows
        ]
        last = rows[-1][0]


def languages_of(connection: Connection, tables: Tables) -> list[str]:
    """The languages that documents say they are in, of those with a two-letter code, in order."""
    query = f"SELECT DISTINCT lang FROM {tables.passages} WHERE lang ~ '^[a-z]{{2}}$' ORDER BY lang"
    return [lang for (lang,) in connection.execute(query.encode())]


def content_hash_of(
    connection: Connection, tables: Tables, chunking: ChunkingSettings, embedder: str, averages: Averages
) -> str:
    """Equal for the same documents, cut, analyzed, weighed and embedded alike."""
    made_with = f"postgres {FORMAT} {ANALYZER_VERSION} {chunking} {embedder} {averages}\n".encode()
    digest = hashlib.blake2b(made_with, digest_size=16)
    rows = iter(connection.execute(f"SELECT digest FROM {tables.documents} ORDER BY digest".encode()))
    while some := list(islice(rows, 100_000)):
        digest.update(np.array([row[0] for row in some], "<i8").tobytes())
    return digest.hexdigest()

"""Passages into the table: analyzed, weighed, embedded and copied, many at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import CorpusError, EmbeddingError
from retrieval.lexical import indexed_text
from retrieval.postgres.schema import Tables
from retrieval.postgres.storable import storable
from retrieval.postgres.weights import DIMENSIONS, Averages, Terms, average_of
from retrieval.types import Passage

if TYPE_CHECKING:
    from retrieval.embedders import Embedder
    from retrieval.postgres.connections import Connection

AVERAGED = 2_000
"""The averages that lengths are measured by are those of so many passages, the first: a corpus is one kind of text."""

_AT_ONCE = 512
_COLUMNS = (
    ("doc_uri", "text"),
    ("start", "int4"),
    ('"end"', "int4"),
    ("chunk_id", "text"),
    ("title", "text"),
    ("lang", "text"),
    ("fragment", "text"),
    ("headings", "text[]"),
    ("metadata", "jsonb"),
    ("text", "text"),
    ("terms", "tsvector"),
    ("weights", "sparsevec"),
    ("embedding", "vector"),
)


class PassageWriter:
    """Adds passages to a table, and takes them out.

    `change` is by how many there are more, `holding` by how many more hold a term.
    """

    def __init__(
        self, connection: Connection, tables: Tables, embedder: Embedder | None, averages: Averages | None
    ) -> None:
        """Without `averages`, they become those of the first passages that are added."""
        self._connection = connection
        self._tables = tables
        self._embedder = embedder
        self.averages = averages
        self.averaged = 0
        self.holding: Counter[str] = Counter()
        self.change = 0
        self._waiting: list[tuple[Passage, Terms]] = []

    def add(self, passages: Iterable[Passage]) -> None:
        """Write the passages, some time before `finish` returns.

        Raises:
            CorpusError: if one has metadata that PostgreSQL cannot keep.
            EmbeddingError: if the model fails.
        """
        self._waiting += [(passage, Terms.of(passage)) for passage in passages]
        enough = _AT_ONCE if self.averages is not None else AVERAGED
        if len(self._waiting) >= enough:
            self._write()

    def remove(self, doc_uris: Sequence[str]) -> None:
        """Take out the passages of documents that were there before."""
        if not doc_uris:
            return
        query = (
            f"DELETE FROM {self._tables.passages} WHERE doc_uri = ANY(%s) RETURNING tsvector_to_array(terms)"
        )
        for (terms,) in self._connection.execute(query.encode(), [list(doc_uris)]):
            self.holding.subtract(terms)
            self.change -= 1

    def finish(self) -> Averages:
        """Write what is left; the averages that lengths are measured by."""
        self._write()
        return self.averages or Averages(0, 0, 0)

    def _write(self) -> None:
        if self.averages is None and self._waiting:
            first = self._waiting[:AVERAGED]
            self.averages, self.averaged = average_of(terms for _, terms in first), len(first)
        waiting = iter(self._waiting)
        while batch := list(islice(waiting, _AT_ONCE)):
            self._copy(batch)
        self._waiting.clear()

    def _copy(self, batch: Sequence[tuple[Passage, Terms]]) -> None:
        from pgvector import SparseVector
        from psycopg.types.json import Jsonb

        from retrieval.postgres.lexemes import Lexemes

        assert self.averages is not None
        vectors = self._embed([passage for passage, _ in batch])
        columns = ", ".join(name for name, _ in _COLUMNS)
        statement = f"COPY {self._tables.passages} ({columns}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor().copy(statement.encode()) as copy:
            copy.set_types([kind for _, kind in _COLUMNS])
            for (passage, terms), vector in zip(batch, vectors, strict=True):
                held = terms.distinct()
                copy.write_row(
                    (
                        storable(passage.doc_uri),
                        passage.start,
                        passage.end,
                        storable(passage.chunk_id),
                        storable(passage.title),
                        storable(passage.lang),
                        storable(passage.fragment),
                        [storable(heading) for heading in passage.headings],
                        Jsonb(_storable_metadata(passage)),
                        storable(passage.text),
                        Lexemes(held),
                        SparseVector(terms.weights(self.averages), DIMENSIONS),
                        vector,
                    )
                )
                self.holding.update(held)
                self.change += 1

    def _embed(self, passages: Sequence[Passage]) -> Sequence[Any]:
        if self._embedder is None:
            return [None] * len(passages)
        vectors = self._embedder.embed_passages([indexed_text(passage) for passage in passages])
        expected = (len(passages), self._embedder.dimension)
        if vectors.shape != expected:
            raise EmbeddingError(
                f"The embedding model '{self._embedder.name}' gave vectors of the shape {vectors.shape} "
                f"instead of {expected}."
            )
        return list(np.asarray(vectors, np.float32))


def _storable_metadata(passage: Passage) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in passage.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise CorpusError(
                f"{passage.doc_uri}: the metadata {name} = {value} is no number that PostgreSQL's JSON knows. "
                "Leave it out."
            )
        found[storable(name)] = storable(value) if isinstance(value, str) else value
    return found

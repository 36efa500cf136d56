"""What became of each source: the rows that executors write, of one schema for sources, documents and passages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from program.spark.corpus.passages import PassageRows
from retrieval.chunking import ChunkingSettings, chunk
from retrieval.errors import CorpusError
from retrieval.indexing import hash_document
from retrieval.sources import Source

SAME, READ, BAD = "same", "read", "bad"
"""The `status` of a source: as it is known, read anew, or not readable."""

_OF_ALL = (("ordinal", pa.int64()), ("place", pa.string()), ("fingerprint", pa.string()))
_OF_SOURCES = (
    ("size", pa.int64()),
    ("modified", pa.int64()),
    ("status", pa.string()),
    ("reason", pa.string()),
)
_OF_DOCUMENTS = (("position", pa.int32()), ("hash", pa.int64()))
_AT_ONCE = 2000


def outcome_schema(rows: PassageRows) -> pa.Schema:
    """The schema of all rows: `kind` is source, document or passage, and the columns of other kinds are null."""
    fixed = [("kind", pa.string()), *_OF_ALL, *_OF_SOURCES, *_OF_DOCUMENTS]
    return pa.schema([*fixed, *((field.name, field.type) for field in rows.schema)])


class OutcomeWriter:
    """Collects what became of sources, and gives it away as record batches.

    Sources are read, and cut into passages, here: by the code that builds an index without Spark.
    """

    def __init__(self, rows: PassageRows, chunking: ChunkingSettings) -> None:
        self._rows = rows
        self._chunking = chunking
        self._schema = outcome_schema(rows)
        of_all, fields = [name for name, _ in _OF_ALL], rows.schema.names
        self._names = {
            "source": [*of_all, *(name for name, _ in _OF_SOURCES)],
            "document": [*of_all, "position", "hash", "doc_uri"],
            "passage": [*of_all, "position", *fields],
        }
        self._pending: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in self._names}

    def same(
        self, ordinal: int, place: str, fingerprint: str, size: int | None = None, modified: int | None = None
    ) -> None:
        """Note a source that is as it is known."""
        self._pending["source"].append((ordinal, place, fingerprint, size, modified, SAME, None))

    def bad(self, ordinal: int, place: str, fingerprint: str, reason: str) -> None:
        """Note a source that is not readable."""
        reason = reason.encode("utf-8", "replace").decode("utf-8")
        self._pending["source"].append((ordinal, place, fingerprint, None, None, BAD, reason))

    def read(
        self,
        ordinal: int,
        place: str,
        source: Source,
        size: int | None = None,
        modified: int | None = None,
    ) -> None:
        """Load a source, and note its documents and their passages, or why there are none."""
        try:
            documents = source.load()
        except CorpusError as error:
            self.bad(ordinal, place, source.fingerprint, str(error).replace(source.place, place))
            return
        key = (ordinal, place, source.fingerprint)
        self._pending["source"].append((*key, size, modified, READ, None))
        for position, document in enumerate(documents):
            # Spark has no unsigned numbers.
            digest = int(np.uint64(hash_document(document)).astype(np.int64))
            self._pending["document"].append((*key, position, digest, document.doc_uri))
            self._pending["passage"] += [
                (*key, position, *self._rows.row(passage)) for passage in chunk(document, self._chunking)
            ]

    def full(self) -> Iterator[pa.RecordBatch]:
        """What was collected, once it is much."""
        if sum(map(len, self._pending.values())) >= _AT_ONCE:
            yield from self.rest()

    def rest(self) -> Iterator[pa.RecordBatch]:
        """What was collected."""
        for kind, rows in self._pending.items():
            if rows:
                yield self._batch(kind, rows)
                self._pending[kind] = []

    def _batch(self, kind: str, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        cells = dict(zip(self._names[kind], zip(*rows, strict=True), strict=True))
        cells["kind"] = (kind,) * len(rows)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(cells[field.name], field.type)
                if field.name in cells
                else pa.nulls(len(rows), field.type)
                for field in self._schema
            ],
            schema=self._schema,
        )

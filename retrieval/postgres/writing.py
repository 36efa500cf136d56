"""Bring the tables of a corpus up to date with its documents, or make them anew, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings, chunk
from retrieval.errors import CorpusError, StorageError
from retrieval.extras import needs_extra
from retrieval.indexing import IndexReport, Progress, RefusedDocument, hash_document
from retrieval.postgres.corpus_row import COLUMNS, CorpusRow, somebody_elses
from retrieval.postgres.database import Database
from retrieval.postgres.passage_writer import AVERAGED, PassageWriter
from retrieval.postgres.schema import (
    FORMAT,
    Tables,
    create,
    create_indexes,
    create_vector_index,
    exists,
    put_in_place,
)
from retrieval.postgres.statistics import content_hash_of, count_terms, languages_of, weigh_again
from retrieval.postgres.storable import storable
from retrieval.sources import Source
from retrieval.types import Document

if TYPE_CHECKING:
    from retrieval.embedders import Embedder
    from retrieval.postgres.connections import Connection

_SOURCES_AT_ONCE = 256
_PGVECTOR = (0, 8)
_UNKNOWN = ""
"""The fingerprint of a source that must be read again, whatever it holds."""

_SIGN = 1 << 63


def write_corpus(
    database: Database,
    table: str,
    sources: Iterable[Source],
    *,
    chunking: ChunkingSettings,
    embedder: Embedder | None = None,
    rebuild: bool = False,
    strict: bool = False,
    on_progress: Progress | None = None,
) -> IndexReport:
    """Bring the corpus in `table` up to date with `sources`, as `LocalIndex.sync` does an index on disk.

    What did not change is neither loaded nor written. A source that is bad, or has a document with the `doc_uri` of
    one before it, is reported and the rest goes on, with what was there before it turned bad; `strict` makes that
    an error. Searches find what was there before until all is written; when it fails, nothing has changed. With
    `rebuild`, or where the tables were made with other settings or another model, they are made anew.

    Raises:
        ConfigurationError: if `table` is no name, or the extra `postgres` is missing.
        CorpusError: if there is no document, none that can be read, or none with text; and as `strict` says.
        EmbeddingError: if the model fails; what it made stays in its cache, where it has one.
        IndexUnusableError: if the table is somebody else's; it is not touched.
        StorageError: if the database refuses, lacks pgvector, or another process is writing there.
    """
    started = time.perf_counter()
    tables = Tables.of(table)
    with database.writing() as connection:
        _lock(connection, tables, database.name)
        _prepare(connection, database.name)
        current = _current(connection, tables, database.name)
        if (
            rebuild
            or current is None
            or not current.is_of(chunking, embedder.fingerprint if embedder else "")
        ):
            current = None
        if current is None:
            _make_schema(connection, tables)
            create(connection, tables.beside())
        changes = _Changes(connection, tables, chunking, embedder, current)
        changes.read(sources, strict, on_progress or _no_progress)
        return changes.finish(started)


class _Changes:
    """The difference between the corpus as it is and as it shall be, written as it becomes known."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        chunking: ChunkingSettings,
        embedder: Embedder | None,
        current: CorpusRow | None,
    ) -> None:
        self._connection = connection
        self._place = tables
        self._tables = tables if current is not None else tables.beside()
        self._chunking = chunking
        self._embedder = embedder
        self._truncated_before = embedder.truncated if embedder else 0
        self._current = current
        self._passages = PassageWriter(
            connection, self._tables, embedder, current.averages if current and current.averaged else None
        )
        self._counts = {"added": 0, "replaced": 0, "deleted": 0, "unchanged": 0}
        self._documents: list[tuple[str, int, str, str]] = []
        self._place_of: dict[str, str] = {}
        self._bad: list[tuple[str, CorpusError]] = []
        self._second: list[tuple[str, str]] = []
        self._is_kept: set[str] = set()

    def read(self, sources: Iterable[Source], strict: bool, progress: Progress) -> None:
        """Write what the sources have that is not there, and forget what they do not have."""
        items = iter(sources)
        while batch := list(islice(items, _SOURCES_AT_ONCE)):
            self._read_batch(batch, strict, progress)
        self._keep_what_turned_bad()
        self._delete_the_rest()

    def finish(self, started: float) -> IndexReport:
        """Make the changes the corpus, and tell of them.

        Raises:
            CorpusError: if it would hold nothing.
        """
        if not self._place_of:
            raise CorpusError(
                f"There is no document to index in '{self._place}'. Check where the corpus is read from."
            )
        passages = self._finish_passages()
        if not passages:
            raise CorpusError(
                f"None of the {len(self._place_of)} documents holds any text to index. Check the path of the corpus."
            )
        return IndexReport(
            **self._counts,
            documents=len(self._place_of),
            passages=passages,
            seconds=time.perf_counter() - started,
            refused=tuple(self._refusals()),
            truncated=self._embedder.truncated - self._truncated_before if self._embedder else 0,
        )

    def _read_batch(self, batch: Sequence[Source], strict: bool, progress: Progress) -> None:
        known = self._known_sources([source.fingerprint for source in batch])
        for source in batch:
            documents = known.get(source.fingerprint)
            if documents and self._place_of.keys().isdisjoint(documents):
                self._put_known(source, documents)
            else:
                self._load(source, strict)
            progress(len(self._place_of))
        self._write_documents()

    def _load(self, source: Source, strict: bool) -> None:
        try:
            documents = source.load()
        except CorpusError as error:
            if strict:
                raise
            self._bad.append((source.place, error))
        else:
            self._put_loaded(source, documents, strict)

    def _put_known(self, source: Source, documents: dict[str, str]) -> None:
        moved = [doc_uri for doc_uri, place in documents.items() if place != source.place]
        if moved:
            query = f"UPDATE {self._tables.documents} SET place = %s WHERE doc_uri = ANY(%s)"
            self._connection.execute(query.encode(), [storable(source.place), moved])
        self._place_of.update(dict.fromkeys(documents, source.place))
        self._counts["unchanged"] += len(documents)

    def _put_loaded(self, source: Source, documents: Sequence[Document], strict: bool) -> None:
        known = self._known_documents([storable(document.doc_uri) for document in documents])
        put: list[tuple[str, int, Document]] = []
        for document in documents:
            doc_uri = storable(document.doc_uri)
            if doc_uri in self._place_of:
                self._second.append((source.place, doc_uri))
                continue
            self._place_of[doc_uri] = source.place
            put.append((doc_uri, _signed(hash_document(document)), document))
        if strict and len(put) < len(documents):
            raise CorpusError(next(self._refusals()).reason)
        self._passages.remove([uri for uri, digest, _ in put if uri in known and known[uri] != digest])
        for doc_uri, digest, document in put:
            old = known.get(doc_uri)
            what = "added" if old is None else "unchanged" if old == digest else "replaced"
            self._counts[what] += 1
            if what != "unchanged":
                self._passages.add(chunk(document, self._chunking))
        fingerprint = source.fingerprint if len(put) == len(documents) else _UNKNOWN
        self._documents += [(uri, digest, fingerprint, storable(source.place)) for uri, digest, _ in put]

    def _write_documents(self) -> None:
        query = (
            f"INSERT INTO {self._tables.documents} "
            "SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[]) "
            "ON CONFLICT (doc_uri) DO UPDATE SET digest = excluded.digest, source = excluded.source, "
            "place = excluded.place"
        )
        if self._documents:
            columns = [list(column) for column in zip(*self._documents, strict=True)]
            self._connection.execute(query.encode(), columns)
            self._documents.clear()

    def _known_sources(self, fingerprints: Sequence[str]) -> dict[str, dict[str, str]]:
        """The documents of each source that is known, with the place where it was."""
        found: dict[str, dict[str, str]] = {}
        if self._current is not None:
            query = f"SELECT source, doc_uri, place FROM {self._tables.documents} WHERE source = ANY(%s)"
            for source, doc_uri, place in self._connection.execute(query.encode(), [list(fingerprints)]):
                found.setdefault(source, {})[doc_uri] = place
        return found

    def _known_documents(self, doc_uris: Sequence[str]) -> dict[str, int]:
        if self._current is None:
            return {}
        query = f"SELECT doc_uri, digest FROM {self._tables.documents} WHERE doc_uri = ANY(%s)"
        return dict(self._connection.execute(query.encode(), [list(doc_uris)]).fetchall())

    def _keep_what_turned_bad(self) -> None:
        if self._bad and not self._place_of:
            raise CorpusError(f"None of {len(self._bad)} documents can be read. The first: {self._bad[0][1]}")
        places = [storable(place) for place, _ in self._bad if place]
        if not places or self._current is None:
            return
        # Read again when it is as it was: some of its documents may be another source's by then.
        query = (
            f"UPDATE {self._tables.documents} SET source = %s WHERE place = ANY(%s) RETURNING doc_uri, place"
        )
        for doc_uri, place in self._connection.execute(query.encode(), [_UNKNOWN, places]).fetchall():
            if doc_uri not in self._place_of:
                self._place_of[doc_uri] = place
                self._is_kept.add(place)
                self._counts["unchanged"] += 1

    def _delete_the_rest(self) -> None:
        if self._current is None:
            return
        kept = self._counts["unchanged"] + self._counts["replaced"]
        if kept == self._current.documents:
            return
        self._connection.execute('CREATE TEMP TABLE seen (doc_uri text COLLATE "C") ON COMMIT DROP')
        with self._connection.cursor().copy("COPY seen FROM STDIN") as copy:
            for doc_uri in self._place_of:
                copy.write_row((doc_uri,))
        query = (
            f"DELETE FROM {self._tables.documents} AS known WHERE NOT EXISTS "
            "(SELECT FROM seen WHERE seen.doc_uri = known.doc_uri) RETURNING doc_uri"
        )
        gone = [doc_uri for (doc_uri,) in self._connection.execute(query.encode())]
        self._counts["deleted"] += len(gone)
        self._passages.remove(gone)

    def _finish_passages(self) -> int:
        """How many there are, with everything that is made of them written."""
        averages, averaged = self._passages.finish(), self._passages.averaged
        before = self._current.passages if self._current else 0
        passages = before + self._passages.change
        if self._current is not None and not any(
            self._counts[what] for what in ("added", "replaced", "deleted")
        ):
            return passages
        if self._current is not None and self._current.averaged:
            averaged = self._current.averaged
            if averaged < AVERAGED and not averaged / 2 <= passages <= averaged * 2:
                averages, averaged = weigh_again(self._connection, self._tables)
        count_terms(self._connection, self._tables, self._passages.holding)
        if self._current is None:
            create_indexes(self._connection, self._tables)
        dimension = self._embedder.dimension if self._embedder else 0
        create_vector_index(self._connection, self._tables, dimension, passages)
        fingerprint = self._embedder.fingerprint if self._embedder else ""
        CorpusRow(
            format=FORMAT,
            analyzer=ANALYZER_VERSION,
            max_tokens=self._chunking.max_tokens,
            overlap_tokens=self._chunking.overlap_tokens,
            chunker=self._chunking.chunker,
            embedder_name=self._embedder.name if self._embedder else "",
            embedder=fingerprint,
            dimension=dimension,
            average_words=averages.words,
            average_names=averages.names,
            average_grams=averages.grams,
            averaged=averaged,
            documents=len(self._place_of),
            passages=passages,
            languages=languages_of(self._connection, self._tables),
            content_hash=content_hash_of(
                self._connection, self._tables, self._chunking, fingerprint, averages
            ),
        ).write(self._connection, self._tables)
        # What the planner knows of a table that was just filled is that it is empty.
        self._connection.execute(f"ANALYZE {self._tables.passages}; ANALYZE {self._tables.terms}".encode())
        if self._current is None:
            put_in_place(self._connection, self._place)
        return passages

    def _refusals(self) -> Iterator[RefusedDocument]:
        for place, error in self._bad:
            yield RefusedDocument(place, str(error), is_kept=storable(place) in self._is_kept)
        for place, doc_uri in self._second:
            yield RefusedDocument(
                place,
                f"{place}: the doc_uri '{doc_uri}' is already that of {self._place_of[doc_uri]}. "
                "Give each document its own.",
            )


def _lock(connection: Connection, tables: Tables, database: str) -> None:
    query = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
    row = connection.execute(query, [f"citeqa {tables}"]).fetchone()
    if not (row and row[0]):
        raise StorageError(
            f"Another process is writing to '{tables}' of {database}. Try again when it has ended."
        )


def _prepare(connection: Connection, database: str) -> None:
    """Have pgvector there, in a version that knows sparse vectors and filtered searches, and its types known."""
    with needs_extra("postgres", "retrieval.backend = pgvector"):
        from pgvector.psycopg import register_vector

        from retrieval.postgres.lexemes import register_lexemes

    query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    if connection.execute(query).fetchone() is None:
        connection.execute("CREATE EXTENSION vector")
    row = connection.execute(query).fetchone()
    version = str(row[0]) if row else "0"
    if tuple(int(part) for part in version.split(".")[:2]) < _PGVECTOR:
        needed = ".".join(map(str, _PGVECTOR))
        raise StorageError(
            f"{database} has pgvector {version}, and {needed} is needed. ALTER EXTENSION vector UPDATE"
        )
    register_vector(connection)
    register_lexemes(connection)


def _current(connection: Connection, tables: Tables, database: str) -> CorpusRow | None:
    """The corpus that is there, if it is one of this program's format."""
    import psycopg

    if not exists(connection, tables.corpus):
        if exists(connection, tables.passages):
            raise somebody_elses(tables, database)
        return None
    try:
        with connection.transaction():
            row = connection.execute(f"SELECT {COLUMNS} FROM {tables.corpus}".encode()).fetchone()
    except psycopg.errors.UndefinedColumn:  # of another version
        return None
    return None if row is None else CorpusRow(*row)


def _make_schema(connection: Connection, tables: Tables) -> None:
    row = connection.execute("SELECT to_regnamespace(%s) IS NULL", [tables.schema]).fetchone()
    if tables.schema and row and row[0]:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{tables.schema}"'.encode())


def _signed(number: int) -> int:
    return number - 2 * _SIGN if number >= _SIGN else number


def _no_progress(_: int) -> None:
    pass

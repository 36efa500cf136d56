"""Write an embedded index: all of it, or what has changed, always as a new generation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tantivy

from retrieval import generations
from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings, chunk
from retrieval.embedders import Embedder
from retrieval.errors import CorpusError, IndexMissingError, IndexUnusableError
from retrieval.filters import FACETS, facet
from retrieval.generations import EmbeddedWith, Manifest
from retrieval.lexical import build_schema, register_tokenizers, to_index_document
from retrieval.registry import (
    UNKNOWN,
    KnownSources,
    Registry,
    RegistryDraft,
    Rows,
)
from retrieval.sources import Source, SourceGroup
from retrieval.types import Document, Passage
from retrieval.vectors import VectorDraft

Corpus: TypeAlias = Iterable[Document] | Iterable[Source | SourceGroup]
"""What an index is made of: documents, or sources, of which those are loaded that the index does not know."""

Progress = Callable[[int], None]
"""Called with the number of documents so far, after each that was read and after many that were known."""

DOCUMENTS = "documents.zip"
"""The file of a generation that is its `Registry`."""

_HEAP_BYTES = 128_000_000
_FINGERPRINT_DIGITS = 32


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """What could not be indexed, where it is, and why.

    `is_kept` says that the index still has what was there before it turned bad.
    """

    place: str
    reason: str
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a build or an update did. `documents` and `passages` are what the index holds afterwards.

    `truncated` counts the passages that were embedded by their beginning, being longer than the model reads.
    """

    added: int
    replaced: int
    deleted: int
    unchanged: int
    documents: int
    passages: int
    seconds: float
    refused: tuple[RefusedDocument, ...] = ()
    truncated: int = 0


def build(
    path: Path,
    corpus: Corpus,
    chunking: ChunkingSettings,
    progress: Progress | None,
    *,
    strict: bool = False,
    embedder: Embedder | None = None,
) -> IndexReport:
    """Index a corpus afresh: the contract is that of `LocalIndex.build`."""
    with generations.writing(path), _Changes(path, chunking, embedder) as changes:
        return _replace_all(changes, corpus, progress, strict)


def sync(
    path: Path,
    corpus: Corpus,
    chunking: ChunkingSettings,
    progress: Progress | None,
    *,
    strict: bool = False,
    embedder: Embedder | None = None,
) -> IndexReport:
    """Index what differs: the contract is that of `LocalIndex.sync`."""
    with generations.writing(path):
        current = _reusable(path, chunking, embedder)
        with _Changes(path, chunking, embedder, current) as changes:
            return _replace_all(changes, corpus, progress, strict)


def update(
    path: Path, add_or_replace: Iterable[Document], delete: Iterable[str], embedder: Embedder | None = None
) -> IndexReport:
    """Index some documents and forget others: the contract is that of `LocalIndex.update`."""
    generations.read_manifest(path)  # before the lock, which would make the directory
    with generations.writing(path):
        base = generations.read_manifest(path)
        generations.check_files(path, base)
        _check_embedder(path, base, embedder)
        try:
            registry = _read_registry(path, base)
        except (OSError, ValueError) as error:
            raise generations.unusable(path, error) from error
        with _Changes(path, base.chunking, embedder, (base, registry)) as changes:
            for doc_uri in delete:
                changes.delete(doc_uri)
            for document in add_or_replace:
                changes.read(document, _no_progress, strict=True)
            changes.keep_the_rest()
            return changes.finish()


def _replace_all(changes: _Changes, corpus: Corpus, progress: Progress | None, strict: bool) -> IndexReport:
    for item in corpus:
        changes.read(item, progress or _no_progress, strict=strict)
    changes.keep_what_turned_bad()
    changes.delete_the_rest()
    return changes.finish(may_be_empty=False)


def _check_embedder(path: Path, manifest: Manifest, embedder: Embedder | None) -> None:
    ours, theirs = embedder and embedder.fingerprint, manifest.embedder and manifest.embedder.fingerprint
    if ours != theirs:
        built = f"with the embedding model {manifest.embedder}" if manifest.embedder else "without vectors"
        given = f"with {describe_embedder(embedder)}" if embedder else "without a model"
        raise IndexUnusableError(
            f"The index at '{path}' was built {built}, and is to be updated {given}. Use the same, or bring the "
            "whole index up to date with the other: citeqa index --config …"
        )


def describe_embedder(embedder: Embedder) -> EmbeddedWith:
    """What an index remembers of the model that made its vectors."""
    return EmbeddedWith(embedder.name, embedder.fingerprint, embedder.dimension)


def _reusable(
    path: Path, chunking: ChunkingSettings, embedder: Embedder | None
) -> tuple[Manifest, Registry] | None:
    """The index, where it can be brought up to date; None when it has to be built again."""
    try:
        manifest = generations.read_manifest(path)
        if manifest.tantivy_version != generations.TANTIVY_VERSION or manifest.chunking != chunking:
            return None
        if (embedder and embedder.fingerprint) != (manifest.embedder and manifest.embedder.fingerprint):
            return None
        generations.check_files(path, manifest)
        return manifest, _read_registry(path, manifest)
    except (IndexMissingError, IndexUnusableError, OSError, ValueError):
        return None


def _read_registry(path: Path, manifest: Manifest) -> Registry:
    return Registry.read(path / manifest.generation / DOCUMENTS)


class _Changes:
    """The difference between the current generation and the next one, written as it becomes known.

    Nothing is on disk before the first difference, and nothing is visible before `finish`. Of documents with
    the same doc_uri, the first to be read has it.
    """

    def __init__(
        self,
        path: Path,
        chunking: ChunkingSettings,
        embedder: Embedder | None = None,
        current: tuple[Manifest, Registry] | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self._path = path
        self._chunking = chunking
        self._embedder = embedder
        self._truncated_before = embedder.truncated if embedder else 0
        self._base: Manifest | None = current[0] if current else None
        self._known = current[1] if current else Registry.empty()
        self._sources = KnownSources(self._known)
        self._draft = RegistryDraft(self._known)
        # Whether a document of the index is in the next one, or is not to be: bytes for Python, and the same for numpy.
        self._marks = bytearray(len(self._known.uris))
        self._is_put = np.frombuffer(self._marks, bool)
        self._rows: dict[str, int] | None = None
        self._added: set[str] = set()
        self._has_new_source = False
        self._bad: list[tuple[str, CorpusError]] = []
        self._second: list[tuple[str, str]] = []
        self._is_kept: set[str] = set()
        self._counts = {"added": 0, "replaced": 0, "deleted": 0, "unchanged": 0}
        self._segments: _Segments | None = None

    def __enter__(self) -> _Changes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._segments:
            self._segments.close()

    def read(self, item: Document | Source | SourceGroup, progress: Progress, *, strict: bool) -> None:
        """Put the documents of it, and load those alone that are not known.

        Raises:
            CorpusError: if `strict` and one is bad; if two have a doc_uri that were given as documents.
        """
        if isinstance(item, SourceGroup):
            self._read_group(item, progress, strict)
        else:
            self._read_one(item, strict)
            progress(self._draft.documents)

    def delete(self, doc_uri: str) -> None:
        """Forget a document of the index, if it is there."""
        row = self._row_by_uri().pop(doc_uri, None)
        if row is not None:
            self._forget(row)
            self._is_put[row] = True  # which is: neither to be kept nor to be forgotten

    def keep_the_rest(self) -> None:
        """Put what the index holds and was not put."""
        self._keep(np.flatnonzero(~self._is_put))

    def keep_what_turned_bad(self) -> None:
        """Put what was in places that are bad now, unless it was found elsewhere.

        Raises:
            CorpusError: if all places are bad.
        """
        if self._bad and not self._draft.documents:
            raise CorpusError(f"None of {len(self._bad)} documents can be read. The first: {self._bad[0][1]}")
        if not self._bad or not len(self._is_put):
            return
        bad = {place for place, _ in self._bad if place}
        places = self._known.places.all()
        was_there = np.fromiter((place in bad for place in places), bool, len(places))
        rows = np.flatnonzero(was_there[self._sources.owners()] & ~self._is_put)
        self._is_kept = {places[source] for source in self._sources.owners()[rows].tolist()}
        self._keep(rows)
        self._counts["unchanged"] += len(rows)

    def delete_the_rest(self) -> None:
        """Forget what the index holds and was not put."""
        for row in np.flatnonzero(~self._is_put).tolist():
            self._forget(row)

    def finish(self, *, may_be_empty: bool = True) -> IndexReport:
        """Make the changes the index.

        Raises:
            CorpusError: if it would hold nothing, and must not; the old index stays.
        """
        documents = self._draft.documents
        if not documents and not may_be_empty:
            raise CorpusError(
                f"There is no document to index at '{self._path}'. Check where the corpus is read from."
            )
        passages = self._base.passages if self._base else 0
        if self._segments:
            passages = self._segments.commit()
            if not passages and not may_be_empty:
                raise CorpusError(
                    f"None of the {documents} documents holds any text to index. Check the path of the corpus."
                )
            self._publish(self._segments.directory, passages, self._segments.next_row)
        elif self._base and self._has_new_source:
            self._publish(generations.new_generation(self._path, like=self._base), passages, self._base.rows)
        seconds = time.perf_counter() - self._started
        return IndexReport(
            **self._counts,
            documents=documents,
            passages=passages,
            seconds=seconds,
            refused=tuple(self._refusals()),
            truncated=self._embedder.truncated - self._truncated_before if self._embedder else 0,
        )

    def _read_group(self, group: SourceGroup, progress: Progress, strict: bool) -> None:
        first, refused = self._draft.sources, len(self._bad) + len(self._second)
        fingerprint = _number(group.fingerprint)
        known = self._sources.find_group(fingerprint)
        if known >= 0:
            places = None if self._known.group_places[known] == group.place else group.places()
            if self._put_known(self._sources.of_group(known), places):
                self._draft.end_group(fingerprint, group.place, first)
                progress(self._draft.documents)
                return
        for source in group.load():
            self._read_one(source, strict)
            progress(self._draft.documents)
        is_whole = len(self._bad) + len(self._second) == refused
        self._draft.end_group(fingerprint if is_whole else UNKNOWN, group.place, first)
        self._has_new_source = self._has_new_source or (known < 0 and is_whole)

    def _put_known(self, sources: slice, places: Sequence[str] | None) -> bool:
        """Put the documents of known sources as they are, or at other `places`; False if one was put already."""
        documents = self._sources.documents(sources)
        count = documents.stop - documents.start
        if 1 in self._marks[documents]:
            return False
        self._marks[documents] = b"\1" * count
        if places is None:
            self._draft.keep(sources)
        else:
            self._draft.keep_elsewhere(sources, places)
        self._counts["unchanged"] += count
        return True

    def _read_one(self, item: Document | Source, strict: bool) -> None:
        if isinstance(item, Document):
            place, fingerprint = "", hash_document(item)
        else:
            place, fingerprint = item.place, _number(item.fingerprint)
        known = self._sources.find(fingerprint)
        if known >= 0:
            places = None if self._known.places[known] == place else (place,)
            if self._put_known(slice(known, known + 1), places):
                return
        contents: list[tuple[str, int, Document | None]]
        if isinstance(item, Document):
            contents = [(item.doc_uri, fingerprint, item)]
        elif known >= 0:
            rows = self._sources.documents(slice(known, known + 1))
            contents = [
                (self._known.uris[row], int(self._known.hashes[row]), None)
                for row in range(rows.start, rows.stop)
            ]
        else:
            try:
                contents = [(one.doc_uri, hash_document(one), one) for one in item.load()]
            except CorpusError as error:
                if strict:
                    raise
                self._bad.append((item.place, error))
                return
        put = [(uri, digest) for uri, digest, document in contents if self._put(uri, digest, document, place)]
        if len(put) < len(contents):
            if isinstance(item, Document):
                raise CorpusError(
                    f"Two documents have the doc_uri '{item.doc_uri}'. Give each document its own."
                )
            if strict:
                raise CorpusError(next(self._refusals()).reason)
            fingerprint = UNKNOWN
        self._has_new_source = self._has_new_source or (known < 0 and fingerprint != UNKNOWN)
        self._draft.add(fingerprint, place, [uri for uri, _ in put], [digest for _, digest in put])

    def _put(self, doc_uri: str, digest: int, document: Document | None, place: str) -> bool:
        """Whether the document is the first of its doc_uri, and so now in the index; None: as it is there."""
        row = self._row_of(doc_uri)
        if doc_uri in self._added or (row is not None and self._is_put[row]):
            self._second.append((place, doc_uri))
            return False
        if row is None:
            self._added.add(doc_uri)
            what = "added"
        else:
            self._is_put[row] = True
            what = "unchanged" if document is None or self._known.hashes[row] == digest else "replaced"
        self._counts[what] += 1
        if document and what != "unchanged":
            self._writable().put(doc_uri, chunk(document, self._chunking), is_new=row is None)
        return True

    def _keep(self, rows: Rows) -> None:
        """Put documents of the index as they are. Their source is known again only if it keeps all of them."""
        self._is_put[rows] = True
        owners = self._sources.owners()[rows]
        sources, counts = np.unique(owners, return_counts=True)
        is_whole = counts == self._known.counts[sources]
        whole = sources[is_whole]
        for run in np.split(whole, np.flatnonzero(np.diff(whole) != 1) + 1):
            if len(run):
                self._draft.keep(slice(int(run[0]), int(run[-1]) + 1))
        for source in sources[~is_whole].tolist():
            some = rows[owners == source].tolist()
            uris = [self._known.uris[row] for row in some]
            hashes = [int(self._known.hashes[row]) for row in some]
            self._draft.add(UNKNOWN, self._known.places[source], uris, hashes)

    def _forget(self, row: int) -> None:
        self._counts["deleted"] += 1
        self._writable().delete(self._known.uris[row])

    def _row_of(self, doc_uri: str) -> int | None:
        """The row of a document that the index holds; mostly, the one that stood where it stands."""
        if not self._marks:
            return None
        if self._rows is None:
            missed = self._sources.missed()
            expected: int = self._sources.documents(slice(missed, missed)).start
            if expected < len(self._known.uris) and self._known.uris[expected] == doc_uri:
                return expected
        return self._row_by_uri().get(doc_uri)

    def _row_by_uri(self) -> dict[str, int]:
        """The row of each document that the index holds, made when it is first needed: it is not small."""
        if self._rows is None:
            self._rows = {uri: row for row, uri in enumerate(self._known.uris.all())}
        return self._rows

    def _refusals(self) -> Iterator[RefusedDocument]:
        for place, error in self._bad:
            yield RefusedDocument(place, str(error), is_kept=place in self._is_kept)
        firsts = self._draft.places_of({doc_uri for _, doc_uri in self._second})
        for place, doc_uri in self._second:
            first = firsts.get(doc_uri, place)
            yield RefusedDocument(
                place,
                f"{place}: the doc_uri '{doc_uri}' is already that of {first}. Give each document its own.",
            )

    def _writable(self) -> _Segments:
        if self._segments is None:
            directory = generations.new_generation(self._path, like=self._base)
            first_row = self._base.rows if self._base else 0
            vectors = None
            if self._embedder:
                base = self._path / self._base.generation if self._base else None
                with generations.storage_errors(self._path):
                    vectors = VectorDraft(directory, self._embedder, base, first_row)
            self._segments = _Segments(self._path, directory, first_row, vectors)
        return self._segments

    def _publish(self, directory: Path, passages: int, rows: int) -> None:
        with generations.storage_errors(self._path):
            self._draft.write(directory / DOCUMENTS)
            files = generations.file_sizes(directory)
        embedder = describe_embedder(self._embedder) if self._embedder else None
        vectors = embedder.fingerprint if embedder else ""
        made_with = f"{ANALYZER_VERSION} {self._chunking} {vectors}\n".encode()
        content_hash = hashlib.blake2b(made_with + self._draft.digest_documents(), digest_size=16)
        manifest = Manifest(
            generation=directory.name,
            chunking=self._chunking,
            documents=self._draft.documents,
            passages=passages,
            rows=rows,
            content_hash=content_hash.hexdigest(),
            files=files,
            embedder=embedder,
        )
        generations.publish(self._path, manifest)


class _Segments:
    """The tantivy files of a generation in the making. What tantivy cannot write is a StorageError."""

    def __init__(self, path: Path, directory: Path, first_row: int, vectors: VectorDraft | None) -> None:
        self.directory = directory
        self.next_row = first_row
        self._path = path
        self._vectors = vectors
        with self._refusals():
            self._index = tantivy.Index(build_schema(), path=str(directory))
            register_tokenizers(self._index)
            # One thread, so that equal corpora make equal segments.
            self._writer: Any = self._index.writer(_HEAP_BYTES, 1)

    def put(self, doc_uri: str, passages: Iterable[Passage], *, is_new: bool) -> None:
        if not is_new:
            self.delete(doc_uri)
        for passage in passages:
            document = to_index_document(passage, self.next_row)
            try:
                self._writer.add_document(document)
            except ValueError as error:  # as `_refusals`, which would cost each passage a microsecond
                raise generations.refused(self._path, error) from error
            self.next_row += 1
            if self._vectors:
                with generations.storage_errors(self._path):
                    self._vectors.add(passage)

    def delete(self, doc_uri: str) -> None:
        with self._refusals():
            self._writer.delete_documents_by_term(FACETS, facet("doc_uri", doc_uri))

    def commit(self) -> int:
        """The number of passages in the generation, which is on disk now."""
        with self._refusals():
            self._writer.commit()
            self._writer.wait_merging_threads()
            self._writer = None
            self._index.reload()
            passages = int(self._index.searcher().num_docs)
        if self._vectors:
            with generations.storage_errors(self._path):
                self._vectors.finish(self._index)
        return passages

    def close(self) -> None:
        """End tantivy's threads, so that the files of an abandoned generation can be removed."""
        self._writer = None
        if self._vectors:
            self._vectors.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:  # tantivy's only error, which carries the operating system's as text
            raise generations.refused(self._path, error) from error


def hash_document(document: Document) -> int:
    """A digest of all that a document is, of 64 bits."""
    uri, text, title, lang = document.doc_uri, document.text, document.title, document.lang
    # Lengths tell where one ends and the next begins.
    whole = f"{len(uri)} {len(title)} {len(lang)} {len(text)} {uri}{title}{lang}{text}"
    if document.metadata:
        whole += json.dumps(sorted(document.metadata.items()))
    if document.anchors:
        whole += json.dumps([[anchor.start, anchor.fragment] for anchor in document.anchors])
    digest = hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _number(fingerprint: str) -> int:
    """The first 64 bits of the fingerprint of a source."""
    if len(fingerprint) != _FINGERPRINT_DIGITS:
        raise ValueError(f"The fingerprint of a source has {_FINGERPRINT_DIGITS} hexadecimal digits.")
    return int.from_bytes(bytes.fromhex(fingerprint[:16]), "little")


def _no_progress(_: int) -> None:
    pass

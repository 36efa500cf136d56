"""Write an embedded index: all of it, or what has changed, always as a new generation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
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
from retrieval.registry import UNKNOWN, Digests, KnownSources, Registry, RegistryDraft, Rows
from retrieval.sources import Source
from retrieval.types import Document, Passage
from retrieval.vectors import VectorDraft

Corpus: TypeAlias = Iterable[Document] | Iterable[Source]
"""What an index is made of: documents, or sources, of which those are loaded that the index does not know."""

Progress = Callable[[int], None]
"""Called with the number of documents so far, after each that was read and after many that were known."""

DOCUMENTS = "documents.zip"
"""The file of a generation that is its `Registry`."""

_HEAP_BYTES = 128_000_000
_SOURCES_AT_ONCE = 128


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
                changes.read([document], _no_progress, strict=True)
            changes.keep_the_rest()
            return changes.finish()


def _replace_all(changes: _Changes, corpus: Corpus, progress: Progress | None, strict: bool) -> IndexReport:
    for batch in _batches(corpus):
        changes.read(batch, progress or _no_progress, strict=strict)
    changes.keep_what_turned_bad()
    changes.delete_the_rest()
    return changes.finish(may_be_empty=False)


def _batches(corpus: Corpus) -> Iterator[list[Any]]:
    items: Iterator[Any] = iter(corpus)
    while batch := list(islice(items, _SOURCES_AT_ONCE)):
        yield batch


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
        self._is_put = np.zeros(len(self._known.uris), bool)
        self._rows: dict[str, int] | None = None
        self._added: set[str] = set()
        self._draft = RegistryDraft()
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

    def read(self, batch: Sequence[Document] | Sequence[Source], progress: Progress, *, strict: bool) -> None:
        """Put the documents of each, and load those alone that are not known.

        Raises:
            CorpusError: if `strict` and one is bad; if two have a doc_uri that were given as documents.
        """
        digests = _fingerprints(batch)
        found = self._sources.find(digests)
        rows, fingerprints = found.tolist(), digests.tolist()
        is_source_known = found >= 0
        position = 0
        for end in [*(np.flatnonzero(np.diff(is_source_known)) + 1).tolist(), len(batch)]:
            if not is_source_known[position] or not self._put_known(found[position:end], batch[position:end]):
                for i in range(position, end):
                    self._read_one(batch[i], rows[i], fingerprints[i], strict)
                    progress(self._draft.documents)
            else:
                progress(self._draft.documents)
            position = end

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
        places = self._known.places()
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

    def _put_known(self, sources: Rows, items: Sequence[Document] | Sequence[Source]) -> bool:
        """Put the documents of known sources as they are; False if one of them was put already."""
        documents = self._sources.documents(sources)
        is_in_order = bool((np.diff(sources) > 0).all())
        if self._is_put[documents].any() or not (is_in_order or len(np.unique(sources)) == len(sources)):
            return False
        self._is_put[documents] = True
        places = [item.place for item in items] if isinstance(items[0], Source) else [""] * len(items)  # type: ignore[union-attr]
        self._draft.add_known(self._known, sources, documents, places)
        self._counts["unchanged"] += len(documents)
        return True

    def _read_one(self, item: Document | Source, known: int, fingerprint: int, strict: bool) -> None:
        contents: list[tuple[str, int, Document | None]]
        if isinstance(item, Document) and item.doc_uri not in self._row_by_uri():
            known = -1  # deleted before it came again
        if known >= 0:
            rows = self._sources.documents(np.array([known])).tolist()
            contents = [(self._known.uris[row], int(self._known.hashes[row]), None) for row in rows]
        elif isinstance(item, Document):
            contents = [(item.doc_uri, fingerprint, item)]
        else:
            try:
                contents = [(one.doc_uri, hash_document(one), one) for one in item.load()]
            except CorpusError as error:
                if strict:
                    raise
                self._bad.append((item.place, error))
                return
        place = _place(item)
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
        row = self._row_by_uri().get(doc_uri)
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
        places = self._known.places()
        whole = sources[is_whole]
        self._draft.add_known(
            self._known, whole, self._sources.documents(whole), [places[source] for source in whole.tolist()]
        )
        for source in sources[~is_whole].tolist():
            some = rows[owners == source].tolist()
            uris, hashes = (
                [self._known.uris[row] for row in some],
                [int(self._known.hashes[row]) for row in some],
            )
            self._draft.add(UNKNOWN, places[source], uris, hashes)

    def _forget(self, row: int) -> None:
        self._counts["deleted"] += 1
        self._writable().delete(self._known.uris[row])

    def _row_by_uri(self) -> dict[str, int]:
        """The row of each document that the index holds, made when it is first needed: it is not small."""
        if self._rows is None:
            self._rows = {uri: row for row, uri in enumerate(self._known.uris)}
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


def _fingerprints(batch: Sequence[Document] | Sequence[Source]) -> Digests:
    """The first 64 bits of the fingerprint of each; a document's is its hash."""
    if isinstance(batch[0], Document):
        return np.fromiter(map(hash_document, batch), np.uint64, len(batch))  # type: ignore[arg-type]
    joined = bytes.fromhex("".join([source.fingerprint for source in batch]))  # type: ignore[union-attr]
    if len(joined) != 16 * len(batch):
        raise ValueError("The fingerprint of a source has 32 hexadecimal digits.")
    return np.frombuffer(joined, "<u8")[::2]


def _no_progress(_: int) -> None:
    pass


def _place(item: Document | Source) -> str:
    return "" if isinstance(item, Document) else item.place

"""Write an embedded index: all of it, or what has changed, always as a new generation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tantivy

from retrieval import generations
from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings, chunk
from retrieval.errors import CorpusError, IndexMissingError, IndexUnusableError
from retrieval.filters import FACETS, facet
from retrieval.generations import Manifest
from retrieval.lexical import build_schema, register_tokenizers, to_index_document
from retrieval.types import Document, Passage

Progress = Callable[[int], None]
"""Called after each document with the number of documents read so far."""

DOCUMENTS = "documents.jsonl"
"""The file of a generation with one line `[doc_uri, hash]` a document."""

_HEAP_BYTES = 128_000_000


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a build or an update did. `documents` and `passages` are what the index holds afterwards."""

    added: int
    replaced: int
    deleted: int
    unchanged: int
    documents: int
    passages: int
    seconds: float


def build(
    path: Path, documents: Iterable[Document], chunking: ChunkingSettings, progress: Progress | None
) -> IndexReport:
    """Index `documents` afresh: the contract is that of `LocalIndex.build`."""
    with generations.writing(path), _Changes(path, chunking) as changes:
        return _replace_all(changes, documents, progress)


def sync(
    path: Path, documents: Iterable[Document], chunking: ChunkingSettings, progress: Progress | None
) -> IndexReport:
    """Index what differs: the contract is that of `LocalIndex.sync`."""
    with generations.writing(path), _Changes(path, chunking, _reusable(path, chunking)) as changes:
        return _replace_all(changes, documents, progress)


def update(path: Path, add_or_replace: Iterable[Document], delete: Iterable[str]) -> IndexReport:
    """Index some documents and forget others: the contract is that of `LocalIndex.update`."""
    generations.read_manifest(path)  # before the lock, which would make the directory
    with generations.writing(path):
        base = generations.read_manifest(path)
        generations.check_files(path, base)
        with _Changes(path, base.chunking, base) as changes:
            for doc_uri in delete:
                changes.delete(doc_uri)
            for document in add_or_replace:
                changes.put(document)
            return changes.finish()


def _replace_all(changes: _Changes, documents: Iterable[Document], progress: Progress | None) -> IndexReport:
    for count, document in enumerate(documents, start=1):
        changes.put(document)
        if progress:
            progress(count)
    changes.delete_all_but_put()
    return changes.finish(may_be_empty=False)


def _reusable(path: Path, chunking: ChunkingSettings) -> Manifest | None:
    """The manifest of an index that can be brought up to date; None when it has to be built again."""
    try:
        manifest = generations.read_manifest(path)
        generations.check_files(path, manifest)
    except (IndexMissingError, IndexUnusableError):
        return None
    same = manifest.tantivy_version == generations.TANTIVY_VERSION and manifest.chunking == chunking
    return manifest if same else None


class _Changes:
    """The difference between the current generation and the next one, written as it becomes known.

    Nothing is on disk before the first difference, and nothing is visible before `finish`.
    """

    def __init__(self, path: Path, chunking: ChunkingSettings, base: Manifest | None = None) -> None:
        self._started = time.perf_counter()
        self._path = path
        self._chunking = chunking
        self._base = base
        self._hashes = _read_hashes(path, base) if base else {}
        self._put: set[str] = set()
        self._counts = {"added": 0, "replaced": 0, "deleted": 0, "unchanged": 0}
        self._segments: _Segments | None = None

    def __enter__(self) -> _Changes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._segments:
            self._segments.close()

    def put(self, document: Document) -> None:
        """Add `document`, or replace the one of its doc_uri, unless they are equal."""
        uri, digest = document.doc_uri, hash_document(document)
        if uri in self._put:
            raise CorpusError(f"Two documents have the doc_uri '{uri}'. Give each document its own.")
        self._put.add(uri)
        known = self._hashes.get(uri)
        self._counts["added" if known is None else "unchanged" if known == digest else "replaced"] += 1
        if known != digest:
            self._hashes[uri] = digest
            self._writable().put(uri, chunk(document, self._chunking), is_new=known is None)

    def delete(self, doc_uri: str) -> None:
        """Forget the document, if it is there."""
        if self._hashes.pop(doc_uri, None) is not None:
            self._counts["deleted"] += 1
            self._writable().delete(doc_uri)

    def delete_all_but_put(self) -> None:
        """Forget the documents that were not put."""
        for doc_uri in sorted(self._hashes.keys() - self._put):
            self.delete(doc_uri)

    def finish(self, *, may_be_empty: bool = True) -> IndexReport:
        """Make the changes the index.

        Raises:
            CorpusError: if it would hold nothing, and must not; the old index stays.
        """
        if not self._hashes and not may_be_empty:
            raise CorpusError(
                f"There is no document to index at '{self._path}'. Check where the corpus is read from."
            )
        passages = self._base.passages if self._base else 0
        if self._segments:
            passages = self._segments.commit()
            if not passages and not may_be_empty:
                raise CorpusError(
                    f"None of the {len(self._hashes)} documents holds any text to index. "
                    "Check the path of the corpus."
                )
            self._publish(self._segments, passages)
        seconds = time.perf_counter() - self._started
        return IndexReport(**self._counts, documents=len(self._hashes), passages=passages, seconds=seconds)

    def _writable(self) -> _Segments:
        if self._segments is None:
            directory = generations.new_generation(self._path, like=self._base)
            self._segments = _Segments(self._path, directory, first_row=self._base.rows if self._base else 0)
        return self._segments

    def _publish(self, segments: _Segments, passages: int) -> None:
        directory = segments.directory
        with generations.storage_errors(self._path):
            content_hash = _write_hashes(directory, self._hashes, self._chunking)
            files = generations.file_sizes(directory)
        manifest = Manifest(
            generation=directory.name,
            chunking=self._chunking,
            documents=len(self._hashes),
            passages=passages,
            rows=segments.next_row,
            content_hash=content_hash,
            files=files,
        )
        generations.publish(self._path, manifest)


class _Segments:
    """The tantivy files of a generation in the making. What tantivy cannot write is a StorageError."""

    def __init__(self, path: Path, directory: Path, first_row: int) -> None:
        self.directory = directory
        self.next_row = first_row
        self._path = path
        with self._refusals():
            self._index = tantivy.Index(build_schema(), path=str(directory))
            register_tokenizers(self._index)
            # One thread, so that equal corpora make equal segments.
            self._writer: Any = self._index.writer(_HEAP_BYTES, 1)

    def put(self, doc_uri: str, passages: Iterable[Passage], *, is_new: bool) -> None:
        if not is_new:
            self.delete(doc_uri)
        with self._refusals():
            for passage in passages:
                self._writer.add_document(to_index_document(passage, self.next_row))
                self.next_row += 1

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
            return int(self._index.searcher().num_docs)

    def close(self) -> None:
        """End tantivy's threads, so that the files of an abandoned generation can be removed."""
        self._writer = None

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:  # tantivy's only error, which carries the operating system's as text
            raise generations.refused(self._path, error) from error


def hash_document(document: Document) -> str:
    """A digest of all that a document is."""
    parts = [
        document.doc_uri,
        document.text,
        document.title,
        document.lang,
        sorted(document.metadata.items()),
        [[anchor.start, anchor.fragment] for anchor in document.anchors],
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _read_hashes(path: Path, manifest: Manifest) -> dict[str, str]:
    with (path / manifest.generation / DOCUMENTS).open(encoding="utf-8") as lines:
        return dict(map(json.loads, lines))


def _write_hashes(directory: Path, hashes: Mapping[str, str], chunking: ChunkingSettings) -> str:
    """Write the hashes of the documents; returns the hash of them all and of what made passages and terms."""
    # A new file: this one may be a link to that of the generation before.
    (directory / DOCUMENTS).unlink(missing_ok=True)
    overall = hashlib.blake2b(f"{ANALYZER_VERSION} {chunking}\n".encode(), digest_size=16)
    with (directory / DOCUMENTS).open("w", encoding="utf-8", newline="\n") as file:
        for item in sorted(hashes.items()):
            line = json.dumps(item) + "\n"
            file.write(line)
            overall.update(line.encode())
    return overall.hexdigest()

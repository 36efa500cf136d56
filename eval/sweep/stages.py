"""What configurations share is done once: indexes, searches, language-model calls and answers, by their content.

    <cache>/indexes/<key>/   an index for each chunking and embedding model of a corpus
    <cache>/stages.db        searches, calls and answers, by the hash of all that they depend on

A configuration that differs only in a later stage redoes nothing earlier. All of it can be deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from eval.run_identity import code_hash, run_identity
from program.content_store import ContentStore, content_key
from program.identity import embedder_identity
from program.retrievers import corpus_hash
from program.settings import Settings
from retrieval.errors import IndexMissingError, IndexUnusableError
from retrieval.generations import check_files, read_manifest, storage_errors

if TYPE_CHECKING:
    from eval.sweep.searches import RecentSearches

INDEX_SECTIONS = ("corpus", "chunking", "embedder")
"""Settings that an index is made by: where a factor is among them, the sweep makes its own indexes."""


class Stages:
    """The cache of a sweep. Used by one sweep or several at once, in one process or several."""

    def __init__(self, directory: Path, *, own_indexes: bool) -> None:
        """With `own_indexes`, each chunking and embedding model has an index here; else the configured one serves all.

        Raises:
            StorageError: if the directory cannot be used.
        """
        self.directory = directory
        self.own_indexes = own_indexes
        self.store = ContentStore(directory / "stages.db")
        self._corpora: dict[str, str] = {}

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @cached_property
    def recent_searches(self) -> RecentSearches:
        """What agents of one process remember of their searches, together."""
        from eval.sweep.searches import RecentSearches

        return RecentSearches()

    def with_index(self, settings: Settings, on_build: Callable[[], None] = lambda: None) -> Settings:
        """`settings` with the index that they need, which is there afterwards.

        Raises:
            IndexMissingError, IndexUnusableError: if the configured index cannot be used.
            CorpusError, StorageError: if an index has to be made and cannot.
        """
        if not self.own_indexes:
            return settings
        key = content_key(
            self._corpus_state(settings),
            settings.model_dump(include={"corpus", "chunking"}),
            embedder_identity(settings),
            code_hash(),
        )
        path = self.directory / "indexes" / key
        if not _is_index(path):
            # Whoever comes second waits, and finds it made.
            with storage_errors(path), _alone(path):
                if not _is_index(path):
                    on_build()
                    _build_index(settings, path)
        retrieval = settings.retrieval.model_copy(update={"index": str(path)})
        return settings.model_copy(update={"retrieval": retrieval})

    def identity(self, settings: Settings) -> dict[str, Any]:
        """All that an answer depends on besides the question; `settings` have their index.

        Raises:
            IndexMissingError, IndexUnusableError: if the index cannot be used.
        """
        return run_identity(settings, corpus_hash(settings))

    def _corpus_state(self, settings: Settings) -> str:
        """Changes whenever a file of the corpus does; looked at once for each corpus."""
        path = settings.corpus.path
        if path not in self._corpora:
            self._corpora[path] = content_key(sorted(_file_states(Path(path))))
        return self._corpora[path]


def _file_states(path: Path) -> Iterable[tuple[str, int, int]]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns


def _is_index(path: Path) -> bool:
    try:
        check_files(path, read_manifest(path))
    except (IndexMissingError, IndexUnusableError):
        return False
    return True


def _alone(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))


def _build_index(settings: Settings, path: Path) -> None:
    from program.indexing import index_corpus

    retrieval = settings.retrieval.model_copy(update={"index": str(path)})
    index_corpus(settings.model_copy(update={"retrieval": retrieval}), rebuild=True)

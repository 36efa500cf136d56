"""A retriever for processes that live long: it follows its index as that is written anew."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import CiteqaError
from retrieval.generations import MANIFEST
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever
from retrieval.types import CorpusFacts, Filters, Passage

logger = logging.getLogger(__name__)

Compose = Callable[[LocalIndex], LocalRetriever]
"""The retriever over a snapshot of the index; models are not opened again for it."""

_RETRY_S = 10.0

_Stamp = tuple[int, int, int]


class LiveRetriever:
    """A `Retriever` that searches the index as it is now, not as it was when it was opened.

    Each search first looks whether the index has been written anew, which costs one `stat`. What is under way
    goes on with the snapshot that it began with. An index that cannot be opened, or searched as before, is told
    in the log, and the last one that could be serves until there is another.
    """

    def __init__(self, path: str | Path, compose: Compose) -> None:
        """Open the index at `path`.

        Raises:
            IndexMissingError, IndexUnusableError: as `LocalIndex.open` and `compose` do.
        """
        self._path = Path(path)
        self._compose = compose
        self._opening = threading.Lock()
        self._not_before = 0.0
        # Looked at first: what is written between the two is then seen as new.
        self._stamp = self._look()
        self._retriever = compose(LocalIndex.open(self._path))

    def current(self) -> LocalRetriever:
        """The retriever over the newest snapshot; whoever needs one for several searches keeps it."""
        stamp = self._look()
        if stamp is not None and stamp != self._stamp and time.monotonic() >= self._not_before:
            self._follow(stamp)
        return self._retriever

    @property
    def index(self) -> LocalIndex:
        """The newest snapshot."""
        return self.current().index

    @property
    def identity(self) -> dict[str, Any]:
        """As `LocalRetriever.identity`, now."""
        return self.current().identity

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """As `LocalRetriever.search`."""
        return self.current().search(query, k, filters)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As `LocalRetriever.search_many`."""
        return self.current().search_many(queries, k, filters)

    def idf(self, terms: Sequence[str]) -> list[float]:
        """As `LocalRetriever.idf`."""
        return self.current().idf(terms)

    @property
    def content_hash(self) -> str:
        """That of the index, now."""
        return self.index.content_hash

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """As `LocalRetriever.passages_of`."""
        return self.index.passages_of(doc_uri)

    def doc_uris(self) -> set[str]:
        """As `LocalRetriever.doc_uris`."""
        return self.index.doc_uris()

    def facts(self) -> CorpusFacts:
        """As `LocalRetriever.facts`, now."""
        return self.index.facts()

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveRetriever:
        """Itself: copies of a program follow the index together."""
        return self

    def __repr__(self) -> str:
        return f"LiveRetriever({self._retriever!r})"

    def _look(self) -> _Stamp | None:
        try:
            found = os.stat(self._manifest)  # noqa: PTH116 - each search waits for it
        except OSError:  # gone: what is open serves on
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    @property
    def _manifest(self) -> str:
        return f"{self._path}{os.sep}{MANIFEST}"

    def _follow(self, stamp: _Stamp) -> None:
        # One opens the new snapshot; meanwhile the others search the old one.
        if not self._opening.acquire(blocking=False):
            return
        try:
            index = LocalIndex.open(self._path)
            if index.manifest != self._retriever.index.manifest:
                self._retriever = self._compose(index)
                logger.info("The index at '%s' was written anew: searching %r.", self._path, index)
            self._stamp = stamp
        except CiteqaError as error:
            # Not at each search; and once more later, since a disk may have been the reason.
            self._not_before = time.monotonic() + _RETRY_S
            logger.warning("The new index is not used, the one before serves on: %s", error)
        finally:
            self._opening.release()

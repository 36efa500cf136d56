"""What was computed once, by the hash of what it was computed from: one SQLite file for many threads and processes.

A content store can be deleted at any time, and nothing is lost but time (and money, where a language model answered).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from program.files import to_json
from retrieval.errors import StorageError

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS contents "
    "(kind TEXT, key TEXT, value BLOB, check_ BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
)
_BUSY_S = 60
_DIGEST_BYTES = 8


def content_key(*parts: Any) -> str:
    """A hash of values that JSON can hold: the same for the same content, in any process; 32 characters."""
    content = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ContentStore:
    """JSON objects by kind and key. What is put is on disk when `put` returns, whatever then ends the process.

    A value that does not match its checksum is as one that is not there, and counted in `damaged`.

    Raises:
        StorageError: if the file cannot be read or written, is locked for a minute, or is no store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._lock = threading.Lock()
        with self._refusals():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # Bytes, whatever a damaged value passes for: SQLite would decode it as text, and refuse.
            self._connection.text_factory = bytes
            # A log beside the file instead of a rollback journal: readers and the one writer do not wait for
            # each other, and a commit costs no sync, which protects from a power cut and not from a kill.
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute(_SCHEMA)
            except sqlite3.Error:
                self._connection.close()
                raise

    def __enter__(self) -> ContentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The value; None where there is none, or only a damaged one."""
        with self._lock, self._refusals():
            row = self._connection.execute(
                "SELECT value, check_ FROM contents WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        if row is None:
            return None
        packed, checksum = row
        if not isinstance(packed, bytes) or checksum != _checksum(kind, key, packed):
            self.damaged += 1
            return None
        value: dict[str, Any] = json.loads(zlib.decompress(packed))
        return value

    def put(self, kind: str, key: str, value: dict[str, Any]) -> None:
        """Keep a value, in place of one that is there."""
        self.put_all(kind, {key: value})

    def put_all(self, kind: str, values: Mapping[str, dict[str, Any]]) -> None:
        """Keep values by key, all or none of them, in one transaction."""
        rows = [(kind, key, packed, _checksum(kind, key, packed)) for key, packed in _packed(values)]
        with self._lock, self._refusals():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", rows)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Closing twice is no error; whoever asks afterwards, a thread left behind say, is refused.

        It waits for what is being read or written: SQLite crashes where a connection is closed under a query.
        """
        with self._lock:
            self._connection.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The cache '{self.path}' cannot be used ({error}). Free it, name another place, or delete it: "
                "nothing but time is lost."
            ) from error


def _packed(values: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    for key, value in values.items():
        yield key, zlib.compress(to_json(value), 1)


def _checksum(kind: str, key: str, packed: bytes) -> bytes:
    # With its address, so that a value cannot pass for another's.
    content = b"\0".join((kind.encode(), key.encode(), packed))
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()

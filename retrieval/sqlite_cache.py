"""A cache in one SQLite file, for many threads and processes: what the caches of all kinds have in common."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.errors import StorageError
from retrieval.sqlite_files import begin_log, transaction

_BUSY_S = 60


class SqliteCache:
    """The file, for a cache to derive from. What is written is there when the call returns, whatever ends the process.

    Raises:
        StorageError: if the file cannot be read or written, is locked for a minute, or is something else.
    """

    def __init__(self, path: Path, schema: str) -> None:
        """Open the file at `path`, which is made when it is not there, with the table of `schema` in it."""
        self.path = path
        self._lock = threading.Lock()
        with self._refusals():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # Bytes, whatever a damaged value passes for: SQLite would decode it as text, and refuse.
            self._connection.text_factory = bytes
            try:
                begin_log(self._connection, _BUSY_S)
                # With it, a commit needs no sync, which protects from a power cut and not from a kill.
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute(schema)
            except sqlite3.Error:
                self._connection.close()
                raise

    def _read(self, query: str, values: Sequence[Any]) -> list[Any]:
        """The rows that a query finds."""
        with self._lock, self._refusals():
            return self._connection.execute(query, values).fetchall()

    def _write_all(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute the statement for each row, all or none of them, in one transaction."""
        with self._lock, self._refusals(), transaction(self._connection) as connection:
            connection.executemany(statement, rows)

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

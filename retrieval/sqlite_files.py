"""What every SQLite file of ours needs that many processes share: a log beside it, and whole transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE_S = 0.01


def begin_log(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Have a log beside the file instead of a rollback journal: readers and the one writer do not wait for each other.

    Raises:
        sqlite3.Error: if the file cannot be written, or is locked for so long.
    """
    # SQLite does not wait here: of two processes that make one file at once, the second is refused.
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Within, all or none of what is written; for connections with `isolation_level=None`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")

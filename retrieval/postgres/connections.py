"""Connections to PostgreSQL that many threads share, each with a time that is waited for it.

Not psycopg's own pool: it connects in threads of its own and keeps to its log why a server refused it, so that
whoever waits learns only that nothing came.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.abc import PQGen

RV = TypeVar("RV")
Parameters: TypeAlias = Callable[[], dict[str, Any]]

_CANCELLING_S = 0.5
_OLDEST_S = 1800
_LONGEST_IDLE_S = 300


class Connection(psycopg.Connection[Any]):
    """A connection in autocommit mode that is waited for `patience_s` in all; None: as long as it takes.

    What the program does between its questions does not count.
    """

    patience_s: float | None = None
    made_at: float = 0.0
    used_at: float = 0.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg, which itself waits for ever for a server that has gone silent.

        Raises:
            psycopg.errors.ConnectionTimeout: when patience ends; the connection is closed then.
        """
        if timeout is not None or self.patience_s is None:
            return super().wait(gen, interval, timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval, max(self.patience_s, 0.001))
        except psycopg.errors._WaitTimeout:
            # Nobody reads what the server is still at; and whatever came now would answer another question.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCELLING_S)
            self.pgconn.finish()
            raise psycopg.errors.ConnectionTimeout("it did not answer in time") from None
        finally:
            self.patience_s -= time.monotonic() - began


class Connections:
    """Up to `most` connections, made when they are needed and kept for the next who needs one."""

    def __init__(self, parameters: Parameters, most: int) -> None:
        """`parameters` are asked for at each new connection."""
        self._parameters = parameters
        self._places = threading.BoundedSemaphore(most)
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    @contextmanager
    def one(self, timeout_s: float | None) -> Iterator[Connection]:
        """A connection for the block, which is waited for so long in all; None: as long as it takes.

        Raises:
            psycopg.errors.TooManyConnections: if all of them are used for so long.
            psycopg.Error: if there is no connection to be had.
        """
        began = time.monotonic()
        if not self._places.acquire(timeout=timeout_s):
            raise psycopg.errors.TooManyConnections(f"all {self._most} connections are in use")
        try:
            left_s = None if timeout_s is None else timeout_s - (time.monotonic() - began)
            connection = self._take(left_s)
            is_well = False
            try:
                connection.patience_s = left_s
                yield connection
                is_well = True
            finally:
                connection.patience_s = None
                self._put_back(connection, is_well)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close what is idle; what is in use is closed by itself, if this is called when nothing is."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        self.close()

    def _take(self, timeout_s: float | None) -> Connection:
        now = time.monotonic()
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if now - connection.made_at < _OLDEST_S and now - connection.used_at < _LONGEST_IDLE_S:
                    return connection
                connection.close()
        parameters = dict(self._parameters())
        if timeout_s is not None:
            # Libpq takes whole seconds, two at the least.
            parameters["connect_timeout"] = str(
                max(2, min(int(parameters["connect_timeout"]), round(timeout_s)))
            )
        # Nothing is prepared: a plan depends on how many passages hold a term, and a pooler between forgets.
        connection = Connection.connect(autocommit=True, prepare_threshold=None, **parameters)
        connection.made_at = now
        return connection

    def _put_back(self, connection: Connection, is_well: bool) -> None:
        if connection.closed:
            if not is_well:  # mostly, the server went away, and with it all that waits here
                self.close()
            return
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            # What was begun is not finished: the server takes it back when the connection ends.
            connection.close()
            return
        connection.used_at = time.monotonic()
        with self._lock:
            self._idle.append(connection)

"""A PostgreSQL database: reads and small writes within limits, long writes in one transaction."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval.errors import CiteqaError, RetrievalError, StorageError
from retrieval.postgres.address import Address, connection_parameters, describe
from retrieval.postgres.failures import explain, is_passing
from retrieval.resilience import Limits, PassingError, Resilience

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection, Connections

T = TypeVar("T")

MOST_CONNECTIONS = 32
"""What `citeqa serve` answers at once by default; PostgreSQL itself takes 100 by default, from all."""

_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITING = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"


class Database:
    """One database for all threads of a process; processes that are forked connect anew.

    Raises:
        ConfigurationError: when it is made, if the address cannot be read or the extra `postgres` is missing.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        most_connections: int = MOST_CONNECTIONS,
        refusal: type[CiteqaError] = RetrievalError,
    ) -> None:
        """`refusal` is the error that says what the server does not do."""
        self.address = address
        self.limits = limits or Limits()
        self._parameters = connection_parameters(address)
        self._most = most_connections
        self._refusal = refusal
        self._resilience = Resilience(
            f"PostgreSQL ({self.name})", self.limits, settings=f"{address.setting}.resilience"
        )
        self._lock = threading.Lock()
        self._connections: Connections | None = None
        self._process = 0

    @property
    def name(self) -> str:
        """What people call it: `citeqa at db.example.com`."""
        if self.address.lakebase is not None:
            return f"Lakebase {self.address.lakebase}"
        return describe(self._parameters())

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` makes of the database as it is at one moment. It is called again when a connection breaks.

        Raises:
            ServiceUnavailableError: if the database stays away or too slow.
            CiteqaError: of the type `refusal`, if it refuses.
        """

        def attempt(connection: Connection) -> T:
            connection.execute(_SNAPSHOT)
            found = work(connection)
            connection.execute("COMMIT")
            return found

        return self._within_limits(attempt)

    def read_rows(self, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """The rows of one query. Raises as `read`."""
        return self._within_limits(lambda connection: connection.execute(query.encode(), values).fetchall())

    def change(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, which changes a little, in one transaction; it must be safe to do twice.

        A connection that breaks at the end leaves open whether all was done: it is done again then.

        Raises:
            CiteqaError: as `read`.
        """

        def attempt(connection: Connection) -> T:
            with connection.transaction():
                return work(connection)

        return self._within_limits(attempt)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction for a change that takes long: committed at the end of the block, or nothing of it is done.

        Raises:
            StorageError: if the database refuses or breaks the connection.
        """
        with self._refusals(StorageError), self._open().one(None) as connection:
            connection.execute(_WRITING)
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            connections, self._connections = self._connections, None
        if connections is not None and self._process == os.getpid():
            connections.close()

    def _within_limits(self, attempt: Callable[[Connection], T]) -> T:
        import psycopg

        def one_attempt(timeout_s: float) -> T:
            try:
                with self._open().one(timeout_s) as connection:
                    return attempt(connection)
            except psycopg.Error as error:
                if (busy := is_passing(error)) is not None:
                    raise PassingError(explain(error), busy=busy) from error
                raise self._refusal(f"PostgreSQL ({self.name}): {explain(error, self.address)}") from error

        return self._resilience.call(one_attempt)

    def _open(self) -> Connections:
        from retrieval.postgres.connections import Connections

        with self._lock:
            # A connection that two processes share mixes up their answers.
            if self._connections is None or self._process != os.getpid():
                self._connections, self._process = Connections(self._parameters, self._most), os.getpid()
            return self._connections

    @contextmanager
    def _refusals(self, error_type: type[CiteqaError]) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise error_type(f"PostgreSQL ({self.name}): {explain(error, self.address)}") from error

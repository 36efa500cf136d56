"""A store of each kind, empty: a SQLite file, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from program.memory.conversations import ConversationStore
from program.memory.opening import open_store
from program.remote_settings import MemorySettings

OpenAgain: TypeAlias = Callable[..., ConversationStore]


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The empty database as an address."""
    said = dict(part.split("=") for part in postgres.split())
    return f"postgresql://{said['user']}@{said['host']}:{said['port']}/{said['dbname']}"


@pytest.fixture(params=["sqlite", "postgres"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenAgain]:
    """Opens the one place of the test as another process would; settings as `memory` has them."""
    place = (
        f"sqlite:///{tmp_path}/memory.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    opened: list[ConversationStore] = []

    def open_again(**how: object) -> ConversationStore:
        opening = open_store.__globals__["_open_once"]
        opening.cache_clear()
        store = open_store(MemorySettings.model_validate({"store": place, **how}))
        assert store is not None
        opened.append(store)
        return store

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_again: OpenAgain) -> ConversationStore:
    """An empty store."""
    return open_again()

"""The `memory` section of the settings as the store that it names."""

from __future__ import annotations

from functools import lru_cache

from program.memory.conversations import ConversationStore
from program.remote_settings import MemorySettings
from retrieval.errors import ConfigurationError

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def open_store(settings: MemorySettings) -> ConversationStore | None:
    """Where conversations are kept, opened once for all who ask in this process; None where they are not kept.

    Raises:
        ConfigurationError: if `memory.store` names nothing that can be used, or an extra is not installed.
        StorageError: if a file cannot be opened.
    """
    return None if settings.store is None else _open_once(settings)


@lru_cache(maxsize=4)
def _open_once(settings: MemorySettings) -> ConversationStore:
    store = settings.store or ""
    expire_s = settings.expire_days * 86_400
    if store.startswith(_SQLITE):
        from program.memory.sqlite_store import SqliteConversations

        if settings.lakebase_instance is not None:
            raise ConfigurationError(
                "memory.lakebase_instance is for PostgreSQL, and memory.store is SQLite."
            )
        return SqliteConversations(store.removeprefix(_SQLITE), expire_s)
    if store.startswith(_POSTGRES):
        from program.memory.postgres_store import PostgresConversations
        from program.postgres import limits_of
        from retrieval.errors import StorageError
        from retrieval.postgres.address import Address
        from retrieval.postgres.database import Database

        address = Address(store, settings.lakebase_instance, setting="memory")
        database = Database(address, limits_of(settings.resilience), refusal=StorageError)
        return PostgresConversations(database, expire_s)
    raise ConfigurationError(
        f"memory.store = {store.partition('://')[0]}…: is neither sqlite:///path nor postgresql://user@host/name."
    )

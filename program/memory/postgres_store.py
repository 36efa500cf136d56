"""Conversations in PostgreSQL, or Lakebase: for any number of replicas."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from program.memory.conversations import Conversation, StoredConversation
from program.memory.housekeeping import Housekeeping
from program.types import Message
from retrieval.postgres.storable import storable

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection
    from retrieval.postgres.database import Database

_SCHEMA = """
SELECT pg_advisory_xact_lock(hashtextextended('citeqa conversations', 0));
CREATE TABLE IF NOT EXISTS citeqa_conversations (
    user_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    last_turn text NOT NULL,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX IF NOT EXISTS citeqa_conversations_by_time ON citeqa_conversations (updated_at);
CREATE TABLE IF NOT EXISTS citeqa_messages (
    user_id text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    role text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (user_id, conversation, number),
    FOREIGN KEY (user_id, conversation) REFERENCES citeqa_conversations (user_id, id) ON DELETE CASCADE
)
"""


class PostgresConversations:
    """A `ConversationStore` in two tables, which are made when they are not there. Time is the database's."""

    def __init__(self, database: Database, expire_s: float) -> None:
        """A conversation expires so long after its last message. Nothing is connected yet."""
        self._database = database
        self._expire_s = expire_s
        self._housekeeping = Housekeeping(self.expire)
        self._lock = threading.Lock()
        self._is_prepared = False

    def messages(self, conversation: Conversation, most: int) -> tuple[Message, ...]:
        """The latest messages, oldest first; none where there is no such conversation."""
        query = (
            "SELECT role, text FROM citeqa_messages AS m JOIN citeqa_conversations AS c "
            "ON c.user_id = m.user_id AND c.id = m.conversation "
            "WHERE c.user_id = %s AND c.id = %s AND updated_at > now() - make_interval(secs => %s) "
            "ORDER BY number DESC LIMIT %s"
        )
        rows = self._ready().read_rows(query, [*_key(conversation), self._expire_s, most])
        return tuple(Message(role, text) for role, text in reversed(rows))

    def add(
        self,
        conversation: Conversation,
        turn_id: str,
        messages: Sequence[Message],
        instead_of_all: bool = False,
    ) -> None:
        """Append messages, or put them in the place of all that were there. The same turn is added once."""
        key = _key(conversation)

        def change(connection: Connection) -> None:
            # The row is locked until the end: turns that come at once are appended one after the other.
            connection.execute(
                "INSERT INTO citeqa_conversations VALUES (%s, %s, now(), '') ON CONFLICT DO NOTHING", key
            )
            row = connection.execute(
                "SELECT last_turn, updated_at <= now() - make_interval(secs => %s) "
                "FROM citeqa_conversations WHERE user_id = %s AND id = %s FOR UPDATE",
                [self._expire_s, *key],
            ).fetchone()
            if row is None or row[0] == turn_id:
                return
            if instead_of_all or row[1]:
                connection.execute(
                    "DELETE FROM citeqa_messages WHERE user_id = %s AND conversation = %s", key
                )
            connection.execute(
                "UPDATE citeqa_conversations SET updated_at = now(), last_turn = %s WHERE user_id = %s AND id = %s",
                [turn_id, *key],
            )
            _append(connection, key, messages)

        self._ready().change(change)
        self._housekeeping.when_due()

    def conversations(self, user: str | None = None) -> list[StoredConversation]:
        """The conversations of a user, or of all, the latest first."""
        query = (
            "SELECT c.user_id, c.id, count(number), updated_at FROM citeqa_conversations AS c "
            "LEFT JOIN citeqa_messages AS m ON m.user_id = c.user_id AND m.conversation = c.id "
            "WHERE updated_at > now() - make_interval(secs => %s) AND (%s::text IS NULL OR c.user_id = %s) "
            "GROUP BY c.user_id, c.id ORDER BY updated_at DESC, c.user_id, c.id"
        )
        name = None if user is None else storable(user)
        rows = self._ready().read_rows(query, [self._expire_s, name, name])
        return [StoredConversation(Conversation(owner, id_), count, at) for owner, id_, count, at in rows]

    def delete(self, user: str, conversation_id: str | None = None) -> int:
        """Forget a conversation of a user, or all of theirs; how many there were."""
        name = None if conversation_id is None else storable(conversation_id)
        query = "DELETE FROM citeqa_conversations WHERE user_id = %s AND (%s::text IS NULL OR id = %s)"
        return self._delete(query, [storable(user), name, name])

    def expire(self) -> int:
        """Forget what has expired; how many conversations that were."""
        query = "DELETE FROM citeqa_conversations WHERE updated_at <= now() - make_interval(secs => %s)"
        return self._delete(query, [self._expire_s])

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _delete(self, query: str, values: list[Any]) -> int:
        return self._ready().change(lambda connection: connection.execute(query.encode(), values).rowcount)

    def _ready(self) -> Database:
        """The database, with the tables in it."""
        with self._lock:
            if not self._is_prepared:
                self._database.change(_make_tables)
                self._is_prepared = True
        return self._database


def _make_tables(connection: Connection) -> None:
    # Looked for first: who may use the tables need not be allowed to make any.
    row = connection.execute("SELECT to_regclass('citeqa_messages') IS NULL").fetchone()
    if row and row[0]:
        connection.execute(_SCHEMA)


def _append(connection: Connection, key: tuple[str, str], messages: Sequence[Message]) -> None:
    row = connection.execute(
        "SELECT coalesce(max(number), 0) FROM citeqa_messages WHERE user_id = %s AND conversation = %s", key
    ).fetchone()
    last = row[0] if row else 0
    connection.cursor().executemany(
        "INSERT INTO citeqa_messages VALUES (%s, %s, %s, %s, %s)",
        [
            (*key, last + i, message.role, storable(message.text))
            for i, message in enumerate(messages, start=1)
        ],
    )


def _key(conversation: Conversation) -> tuple[str, str]:
    return storable(conversation.user), storable(conversation.id)

"""Conversations in a SQLite file: for one machine."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from program.memory.conversations import Conversation, StoredConversation
from program.memory.housekeeping import Housekeeping
from program.types import Message
from program.well_formed import well_formed
from retrieval.errors import StorageError
from retrieval.sqlite_files import begin_log, transaction

_BUSY_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (
    user TEXT NOT NULL,
    id TEXT NOT NULL,
    updated_at REAL NOT NULL,
    last_turn TEXT NOT NULL,
    PRIMARY KEY (user, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS conversations_by_time ON conversations (updated_at);
CREATE TABLE IF NOT EXISTS messages (
    user TEXT NOT NULL,
    conversation TEXT NOT NULL,
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (user, conversation, number),
    FOREIGN KEY (user, conversation) REFERENCES conversations (user, id) ON DELETE CASCADE
) WITHOUT ROWID;
"""


class SqliteConversations:
    """A `ConversationStore` in one file."""

    def __init__(self, path: str | Path, expire_s: float, clock: Callable[[], float] = time.time) -> None:
        """Open the file, which is made when it is not there. A conversation expires so long after its last message.

        Raises:
            StorageError: if that cannot be done.
        """
        self._path = Path(path)
        self._expire_s = expire_s
        self._clock = clock
        self._housekeeping = Housekeeping(self.expire)
        self._lock = threading.Lock()
        with self._refusals():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # What others may not read is not for them: a conversation is more private than documents are.
            self._path.chmod(0o600)
            begin_log(self._connection, _BUSY_S)
            self._connection.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten, and not only let go of.
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.executescript(_SCHEMA)

    def messages(self, conversation: Conversation, most: int) -> tuple[Message, ...]:
        """The latest messages, oldest first; none where there is no such conversation."""
        query = (
            "SELECT role, text FROM messages JOIN conversations AS c ON c.user = messages.user "
            "AND c.id = conversation WHERE c.user = ? AND c.id = ? AND updated_at > ? ORDER BY number DESC LIMIT ?"
        )
        with self._lock, self._refusals():
            rows = self._connection.execute(query, (*_key(conversation), self._oldest(), most)).fetchall()
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
        with self._changing() as connection:
            row = connection.execute(
                "SELECT updated_at, last_turn FROM conversations WHERE user = ? AND id = ?", key
            ).fetchone()
            if row is not None and row[1] == turn_id:
                return
            if row is not None and (instead_of_all or row[0] <= self._oldest()):
                connection.execute("DELETE FROM messages WHERE user = ? AND conversation = ?", key)
            connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?) ON CONFLICT (user, id) "
                "DO UPDATE SET updated_at = excluded.updated_at, last_turn = excluded.last_turn",
                (*key, self._clock(), turn_id),
            )
            (number,) = connection.execute(
                "SELECT coalesce(max(number), 0) FROM messages WHERE user = ? AND conversation = ?", key
            ).fetchone()
            connection.executemany(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
                [
                    (*key, number + i, one.role, well_formed(one.text))
                    for i, one in enumerate(messages, start=1)
                ],
            )
        self._housekeeping.when_due()

    def conversations(self, user: str | None = None) -> list[StoredConversation]:
        """The conversations of a user, or of all, the latest first."""
        query = (
            "SELECT c.user, c.id, count(number), updated_at FROM conversations AS c LEFT JOIN messages "
            "ON messages.user = c.user AND conversation = c.id WHERE updated_at > ? AND (? IS NULL OR c.user = ?) "
            "GROUP BY c.user, c.id ORDER BY updated_at DESC, c.user, c.id"
        )
        with self._lock, self._refusals():
            rows = self._connection.execute(query, (self._oldest(), user, user)).fetchall()
        return [
            StoredConversation(Conversation(owner, name), count, datetime.fromtimestamp(at, timezone.utc))
            for owner, name, count, at in rows
        ]

    def delete(self, user: str, conversation_id: str | None = None) -> int:
        """Forget a conversation of a user, or all of theirs; how many there were."""
        query = "DELETE FROM conversations WHERE user = ? AND (? IS NULL OR id = ?)"
        return self._delete(query, (user, conversation_id, conversation_id))

    def expire(self) -> int:
        """Forget what has expired; how many conversations that were."""
        return self._delete("DELETE FROM conversations WHERE updated_at <= ?", (self._oldest(),))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _delete(self, query: str, values: tuple[object, ...]) -> int:
        with self._changing() as connection:
            deleted = connection.execute(query, values).rowcount
        if deleted:
            with self._lock, self._refusals():
                # Out of the log beside the file, too.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def _oldest(self) -> float:
        return self._clock() - self._expire_s

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._refusals(), transaction(self._connection) as connection:
            yield connection

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The conversations in '{self._path}' cannot be used ({error}). Free the file, or name another with "
                "memory.store."
            ) from error


def _key(conversation: Conversation) -> tuple[str, str]:
    return well_formed(conversation.user), well_formed(conversation.id)

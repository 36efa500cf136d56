"""The nouns of memory: a conversation of a user, its messages, and what keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from program.types import Message

NOBODY = ""
"""The user of requests that name none."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation is known by both: the same id is another conversation for another user."""

    user: str
    id: str


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """What a list of conversations tells of one."""

    conversation: Conversation
    messages: int
    updated_at: datetime


class ConversationStore(Protocol):
    """Keeps conversations until they are deleted, or nothing was said in them for as long as is configured.

    Safe for many threads and for many processes at once.

    Raises:
        StorageError: by all methods, if the store refuses.
        ServiceUnavailableError: by all methods, if it is elsewhere and stays away.
    """

    def messages(self, conversation: Conversation, most: int) -> tuple[Message, ...]:
        """The latest messages, oldest first; none where there is no such conversation."""
        ...

    def add(
        self,
        conversation: Conversation,
        turn_id: str,
        messages: Sequence[Message],
        instead_of_all: bool = False,
    ) -> None:
        """Append messages, or put them in the place of all that were there. The same turn is added once."""
        ...

    def conversations(self, user: str | None = None) -> list[StoredConversation]:
        """The conversations of a user, or of all, the latest first."""
        ...

    def delete(self, user: str, conversation_id: str | None = None) -> int:
        """Forget a conversation of a user, or all of theirs; how many there were."""
        ...

    def expire(self) -> int:
        """Forget what has expired, which nobody is shown any more; how many conversations that were."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

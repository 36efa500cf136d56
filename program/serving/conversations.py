"""`/api/conversations`: a user's kept conversations, to look at and to have forgotten."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from program.memory.conversations import NOBODY, Conversation, ConversationStore
from program.serving.asking_user import user_by_header
from program.serving.failures import Failure, RequestFailedError, bad_request

_MOST_MESSAGES = 1000


def add_conversation_routes(app: FastAPI, store: ConversationStore, user_header: str | None) -> None:
    """Serve the conversations of `store`, to each user theirs alone.

    Who asks is what `user_header` says, where there is one, else the query parameter `user_id`.
    """

    def asking(request: Request, user_id: str | None) -> str:
        return user_by_header(request.headers, user_header) if user_header else user_id or NOBODY

    def named(request: Request, user_id: str | None) -> str:
        user = asking(request, user_id)
        if user == NOBODY:
            # What belongs to nobody is known by its id alone: who lists it could read all of it.
            raise bad_request("user_id: is missing. Say whose conversations: ?user_id=…")
        return user

    @app.get("/api/conversations")
    def conversations(request: Request, user_id: str | None = None) -> dict[str, Any]:
        """The user's conversations, the latest first."""
        found = store.conversations(named(request, user_id))
        return {
            "conversations": [
                {
                    "id": one.conversation.id,
                    "messages": one.messages,
                    "updated_at": one.updated_at.isoformat(),
                }
                for one in found
            ]
        }

    @app.delete("/api/conversations")
    def forget_all(request: Request, user_id: str | None = None) -> dict[str, int]:
        """Forget all of the user's conversations."""
        return {"deleted": store.delete(named(request, user_id))}

    @app.get("/api/conversations/{conversation_id:path}")
    def conversation(request: Request, conversation_id: str, user_id: str | None = None) -> dict[str, Any]:
        """The latest messages of a conversation, oldest first."""
        kept = Conversation(asking(request, user_id), conversation_id)
        messages = store.messages(kept, _MOST_MESSAGES)
        if not messages:
            raise _unknown(conversation_id)
        shown = [{"role": message.role, "content": message.text} for message in messages]
        return {"id": conversation_id, "messages": shown}

    @app.delete("/api/conversations/{conversation_id:path}")
    def forget(request: Request, conversation_id: str, user_id: str | None = None) -> dict[str, int]:
        """Forget one of the user's conversations."""
        if not (deleted := store.delete(asking(request, user_id), conversation_id)):
            raise _unknown(conversation_id)
        return {"deleted": deleted}


def _unknown(conversation_id: str) -> RequestFailedError:
    # The same for what is not there and what is another user's.
    return RequestFailedError(
        Failure(404, "conversation_unknown", f"You have no conversation '{conversation_id}'.")
    )

"""Answer with what was said before in the conversation, and keep what is said now."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from uuid import uuid4

from mlflow.types.responses import ResponsesAgentRequest

from program.memory.conversations import NOBODY, Conversation, ConversationStore
from program.responses import CustomInputs
from program.types import Answerer, CitedAnswer, Emit, Message, Recalled, Turn
from retrieval.errors import CiteqaError, RequestError

logger = logging.getLogger(__name__)

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Memory:
    """A store, and how many of a conversation's latest messages are recalled from it."""

    store: ConversationStore
    recalled: int

    def remembering(self, answerer: Answerer, conversation: Conversation) -> Answerer:
        """The answerer, which goes on with the conversation and whose answers become part of it.

        A request that brings earlier messages itself is answered with these, and they become the conversation: a
        client that keeps it knows it better, after an edit say. An answer that cannot be kept is given all the
        same, and says so (`CitedAnswer.memory`).

        Raises:
            StorageError, ServiceUnavailableError: by the answerer, if the conversation cannot be read.
        """

        def answer(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
            history = turn.history or self.store.messages(conversation, self.recalled)
            given = answerer(replace(turn, history=history), emit)
            said = (Message("user", turn.question), Message("assistant", given.text))
            recalled = 0 if turn.history else len(history)
            return replace(given, memory=Recalled(recalled, self._keep(conversation, turn, said)))

        return answer

    def _keep(self, conversation: Conversation, turn: Turn, said: tuple[Message, ...]) -> bool:
        try:
            self.store.add(conversation, uuid4().hex, (*turn.history, *said), bool(turn.history))
        except CiteqaError as error:
            logger.warning("An answer is missing in its conversation: %s", error)
            return False
        return True


def conversation_of(request: ResponsesAgentRequest, custom: CustomInputs) -> Conversation | None:
    """The conversation that a request belongs to; None where it names none.

    Raises:
        RequestError: if a name is longer than 256 characters.
    """
    context = request.context
    conversation = custom.session_id or (context.conversation_id if context else None)
    user = custom.user_id or (context.user_id if context else None) or NOBODY
    if not conversation:
        return None
    for name, value in (("conversation_id", conversation), ("user_id", user)):
        if len(value) > _LONGEST_NAME:
            raise RequestError(f"context: {name} is longer than {_LONGEST_NAME} characters.")
    return Conversation(user, conversation)

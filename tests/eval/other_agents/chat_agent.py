"""A ChatAgent, the interface before ResponsesAgent, that retrieves as LangChain does."""

from __future__ import annotations

import os
from typing import Any

import mlflow
from mlflow.entities import SpanType
from mlflow.pyfunc import ChatAgent
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse, ChatContext


class Chat(ChatAgent):
    @mlflow.trace(span_type=SpanType.AGENT)
    def predict(  # type: ignore[override]
        self,
        messages: list[ChatAgentMessage],
        context: ChatContext | None = None,
        custom_inputs: dict[str, Any] | None = None,
    ) -> ChatAgentResponse:
        if messages[-1].content == "crash":
            os._exit(1)
        with mlflow.start_span("files", span_type=SpanType.RETRIEVER) as span:
            source = f"https://chat/{messages[-1].content}"
            span.set_outputs([{"page_content": "x", "metadata": {"source": source}}])
        said = f"{len(messages)} turns, {custom_inputs}"
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content=said, id="1")])


mlflow.models.set_model(Chat())

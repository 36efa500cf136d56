"""What stands behind serving endpoints: models that chat and embed, and agents that return their traces.

The requests are Databricks': by the endpoint's own path, or OpenAI's with the endpoint as the model. Whoever asks
needs CAN_QUERY; foundation models are open to all users.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Reply, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_CHAT = (
    *(
        "messages",
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "n",
        "stream",
        "stream_options",
    ),
    *("tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "reasoning_effort", "thinking"),
)
_EMBEDDINGS = ("input", "model", "instruction", "encoding_format", "dimensions", "usage_context")
_RESPONSES = (
    *(
        "input",
        "model",
        "stream",
        "custom_inputs",
        "context",
        "metadata",
        "databricks_options",
        "max_output_tokens",
    ),
    *(
        "instructions",
        "temperature",
        "top_p",
        "tools",
        "tool_choice",
        "store",
        "previous_response_id",
        "user",
    ),
    *("parallel_tool_calls", "reasoning", "text", "truncation"),
)
_BATCH = 150

Answer = Callable[[Mapping[str, Any], str], "str | Mapping[str, Any]"]
"""Of the body of a request and the user who sent it."""


@dataclass
class _Endpoint:
    kind: str
    answer: Any
    can_query: set[str] | None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class Endpoints:
    """Endpoints by name. `asked(name)` is who asked what, in the order in which it came."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._endpoints: dict[str, _Endpoint] = {}
        self._numbers = itertools.count(1)
        route = workspace.router.add
        route("POST", "/serving-endpoints/chat/completions", self._by_model("chat"))
        route("POST", "/serving-endpoints/embeddings", self._by_model("embeddings"))
        route("POST", "/serving-endpoints/responses", self._by_model("agent"))
        route("POST", "/serving-endpoints/{name}/invocations", self._invoke)

    def add_chat(self, name: str, answer: Answer, can_query: set[str] | None = None) -> None:
        """A chat model that says what `answer` gives, in deltas of eight characters where it is streamed."""
        self._add(name, _Endpoint("chat", answer, can_query))

    def add_embeddings(
        self,
        name: str,
        embed: Callable[[Sequence[str]], Sequence[Sequence[float]]],
        can_query: set[str] | None = None,
    ) -> None:
        """An embedding model that takes up to 150 texts at once."""
        self._add(name, _Endpoint("embeddings", embed, can_query))

    def add_agent(self, name: str, answer: Answer, can_query: set[str] | None = None) -> None:
        """An agent; `answer` gives its whole response, with `databricks_output` where the body asks for a trace."""
        self._add(name, _Endpoint("agent", answer, can_query))

    def asked(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """The users who asked an endpoint, and their requests."""
        return self._endpoints[name].asked

    def _add(self, name: str, endpoint: _Endpoint) -> None:
        self._endpoints[name] = endpoint
        if name not in self._workspace.model_serving.endpoints:
            self._workspace.model_serving.add_foundation_model(name)

    def _by_model(self, kind: str) -> Callable[[Request], Reply | Mapping[str, Any]]:
        def handle(request: Request) -> Reply | Mapping[str, Any]:
            name = json.loads(request.body or b"{}").get("model")
            if not name:
                raise ApiError("INVALID_PARAMETER_VALUE", "Missing required fields: ['model']")
            return self._ask(str(name), request, kind)

        return handle

    def _invoke(self, request: Request) -> Reply | Mapping[str, Any]:
        return self._ask(request.parameters["name"], request, None)

    def _ask(self, name: str, request: Request, kind: str | None) -> Reply | Mapping[str, Any]:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"The endpoint '{name}' does not exist.")
        if endpoint.can_query is not None and request.user not in endpoint.can_query:
            raise ApiError("PERMISSION_DENIED", f"You do not have CAN_QUERY on the endpoint '{name}'.")
        if kind not in (None, endpoint.kind):
            raise ApiError("BAD_REQUEST", f"The endpoint '{name}' does not support this API.")
        match endpoint.kind:
            case "chat":
                return self._chat(name, endpoint, request)
            case "embeddings":
                return self._embed(name, endpoint, request)
            case _:
                return self._answer(endpoint, request)

    def _chat(self, name: str, endpoint: _Endpoint, request: Request) -> Reply | Mapping[str, Any]:
        body = request.json(known=_CHAT, required=("messages",))
        endpoint.asked.append((request.user, body))
        said = endpoint.answer(body, request.user)
        message = {"role": "assistant", **(said if isinstance(said, Mapping) else {"content": said})}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        base = {"id": f"chatcmpl_{next(self._numbers)}", "created": 0, "model": name}
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        counts = bool((body.get("stream_options") or {}).get("include_usage"))
        return Reply(stream=_chunks(base, message, reason, usage if counts else None))

    def _embed(self, name: str, endpoint: _Endpoint, request: Request) -> Mapping[str, Any]:
        body = request.json(known=_EMBEDDINGS, required=("input",))
        endpoint.asked.append((request.user, body))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if len(texts) > _BATCH:
            raise ApiError("BAD_REQUEST", f"The batch of {len(texts)} is larger than the maximum {_BATCH}.")
        if not all(isinstance(text, str) and text for text in texts):
            raise ApiError("INVALID_PARAMETER_VALUE", "input: every text must be a string that is not empty.")
        rows = [
            {"object": "embedding", "index": number, "embedding": [float(x) for x in vector]}
            for number, vector in enumerate(endpoint.answer(texts))
        ]
        count = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": rows, "model": name, "usage": usage}

    def _answer(self, endpoint: _Endpoint, request: Request) -> Mapping[str, Any]:
        body = request.json(known=_RESPONSES, required=("input",))
        endpoint.asked.append((request.user, body))
        said = endpoint.answer(body, request.user)
        assert isinstance(said, Mapping)
        return said


def _chunks(
    base: dict[str, Any], message: dict[str, Any], reason: str, usage: dict[str, int] | None
) -> Iterator[bytes]:
    text = message.get("content") or ""
    deltas: list[dict[str, Any]] = [{"content": text[start : start + 8]} for start in range(0, len(text), 8)]
    for number, call in enumerate(message.get("tool_calls") or []):
        deltas.append({"tool_calls": [{"index": number, **call}]})
    for delta in deltas:
        yield _event(base, [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}])
    yield _event(base, [{"index": 0, "delta": {}, "finish_reason": reason}])
    if usage is not None:
        yield _event(base, [], usage=usage)
    yield b"data: [DONE]\n\n"


def _event(base: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {**base, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"

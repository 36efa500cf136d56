"""Between the Responses wire format and our nouns: a request becomes a turn, an answer becomes items and events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
    create_annotation_added,
    create_function_call_item,
    create_function_call_output_item,
    create_text_delta,
    create_text_output_item,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from program.types import Citation, CitedAnswer, Message, Piece, ToolCall, ToolStep, Turn
from program.well_formed import shorten as shorten
from retrieval.errors import RequestError
from retrieval.types import Passage

_TEXT_PARTS = ("input_text", "output_text", "text")
_SNIPPET_CHARACTERS = 300
_VALUE_CHARACTERS = 80


class CustomInputs(BaseModel):
    """What a request may say beside its messages."""

    model_config = ConfigDict(extra="forbid", strict=True)

    k: int | None = Field(None, ge=1, le=100, description="how many passages are read")
    filters: dict[str, Any] | None = Field(None, description="metadata conditions that every passage meets")
    program: str | None = Field(None, description="the name of a compiled program")
    session_id: str | None = Field(None, max_length=256)
    user_id: str | None = Field(None, max_length=256)


def parse_custom_inputs(values: Mapping[str, Any] | None) -> CustomInputs:
    """The request's `custom_inputs`, checked.

    Raises:
        RequestError: naming each wrong key with its value, and the keys there are.
    """
    try:
        return CustomInputs.model_validate(values or {})
    except ValidationError as error:
        problems = "; ".join(_describe(dict(problem)) for problem in error.errors())
        known = ", ".join(CustomInputs.model_fields)
        raise RequestError(f"custom_inputs: {problems}. Known: {known}.") from None


def _describe(problem: Mapping[str, Any]) -> str:
    key = ".".join(map(str, problem["loc"]))
    reason = "unknown" if problem["type"] == "extra_forbidden" else problem["msg"].lower()
    return f"{key} = {shorten(repr(problem['input']), _VALUE_CHARACTERS)}: {reason}"


def parse_turn(request: ResponsesAgentRequest, custom: CustomInputs) -> Turn:
    """The question is the last user message; the user and assistant messages before it are the history.

    Other items (tool calls, reasoning) are no part of the conversation as a person saw it and are skipped.

    Raises:
        RequestError: if there is no user message at the end, it is empty, or it holds more than text.
    """
    messages = [message for item in request.input if (message := _message(item.model_dump())) is not None]
    if not messages:
        raise RequestError("input: holds no message. Send at least one with role 'user'.")
    last = messages[-1]
    if last.role != "user":
        raise RequestError(f"input: the last message has role '{last.role}'. It must be the user's question.")
    if not last.text.strip():
        raise RequestError("input: the question is empty. Ask something.")
    return Turn(last.text, tuple(messages[:-1]), custom.k, custom.filters)


def _message(item: Mapping[str, Any]) -> Message | None:
    role = item.get("role")
    if role not in ("user", "assistant"):
        return None
    return Message(role, _text(item.get("content")))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for part in content or ():
        if part.get("type") not in _TEXT_PARTS:
            raise RequestError(f"input: content of type '{part.get('type')}' cannot be read. Send text only.")
        texts.append(str(part.get("text") or ""))
    return "\n".join(texts)


def render_response(answer: CitedAnswer, item_id: str) -> ResponsesAgentResponse:
    """The whole answer: the tools that were called, the text with its annotations, sources in `custom_outputs`."""
    return ResponsesAgentResponse(
        output=[*map(render_step, answer.steps), render_item(answer, item_id)],
        status="completed",
        model=answer.reader,
        usage=_usage(answer),
        custom_outputs=render_sources(answer),
    )


def render_events(
    pieces: Iterable[Piece], answer: Iterable[CitedAnswer], item_id: str
) -> Iterator[ResponsesAgentStreamEvent]:
    """Stream events of an answer that is still being written.

    An item for each tool's call and result, a text delta for each text piece, right after a marker its
    `url_citation` annotation, and at last the finished item, whose text is exactly the concatenated deltas.
    `answer` is read once, after the pieces.
    """
    annotations = 0
    for piece in pieces:
        event: dict[str, Any]
        if isinstance(piece, str):
            event = create_text_delta(piece, item_id)
        elif isinstance(piece, Citation):
            event = create_annotation_added(item_id, render_annotation(piece), annotations)
            annotations += 1
        else:
            event = {"type": "response.output_item.done", "item": render_step(piece)}
        yield ResponsesAgentStreamEvent(**event)
    for final in answer:
        yield ResponsesAgentStreamEvent(
            type="response.output_item.done",
            item=render_item(final, item_id),
            custom_outputs=render_sources(final),
        )


def render_item(answer: CitedAnswer, item_id: str) -> dict[str, Any]:
    """The answer as a message item."""
    annotations = [render_annotation(citation) for citation in answer.citations]
    return create_text_output_item(answer.text, item_id, annotations)


def render_step(step: ToolStep) -> dict[str, Any]:
    """A tool's call as a `function_call` item, what it came to as a `function_call_output`, both with ids of one call.

    The output is JSON: `passages`, each with its number in the answer, and `problem` where there was one.
    """
    id_ = step.call_id.removeprefix("call_")
    if isinstance(step, ToolCall):
        arguments = json.dumps(step.arguments, ensure_ascii=False, default=str)
        item = create_function_call_item(f"fc_{id_}", step.call_id, step.name, arguments)
        return {**item, "status": "completed"}
    passages = [_render_found(number, passage) for number, passage in step.found.items()]
    output = {"passages": passages, **({"problem": step.problem} if step.problem else {})}
    item = create_function_call_output_item(step.call_id, json.dumps(output, ensure_ascii=False))
    return {**item, "id": f"fco_{id_}", "status": "completed"}


def render_annotation(citation: Citation) -> dict[str, Any]:
    """A citation as a `url_citation`; `start_index` and `end_index` are the marker's place in the text.

    `url` opens the document at the section that is cited, `doc_uri` is its identity.
    """
    passage = citation.passage
    return {
        "type": "url_citation",
        "url": passage.url,
        "doc_uri": passage.doc_uri,
        "title": passage.title or passage.doc_uri,
        "start_index": citation.start,
        "end_index": citation.end,
        "number": citation.number,
        "chunk_id": passage.chunk_id,
        "quote": citation.quote,
    }


def render_sources(answer: CitedAnswer) -> dict[str, Any]:
    """`custom_outputs`: every retrieved passage with whether it was cited, who answered, and at what cost.

    Where the conversation is kept, `memory` says how much of it was recalled, and whether the answer is part of it.
    """
    cited = {citation.number for citation in answer.citations}
    memory = answer.memory
    return {
        **(
            {}
            if memory is None
            else {"memory": {"recalled_messages": memory.messages, "kept": memory.is_kept}}
        ),
        "reader": answer.reader,
        "abstained": answer.abstained,
        "query": answer.query,
        "dropped_markers": answer.dropped_markers,
        "fallback_reason": answer.fallback_reason or None,
        "timings_ms": dict(answer.timings_ms),
        "sources": [
            _render_source(number, passage, number in cited)
            for number, passage in enumerate(answer.passages, start=1)
        ],
    }


def _render_source(number: int, passage: Passage, cited: bool) -> dict[str, Any]:
    return {
        "number": number,
        "cited": cited,
        "doc_uri": passage.doc_uri,
        "url": passage.url,
        "title": passage.title,
        "chunk_id": passage.chunk_id,
        "score": round(passage.score, 4),
        "snippet": shorten(passage.text, _SNIPPET_CHARACTERS),
    }


def _render_found(number: int, passage: Passage) -> dict[str, Any]:
    snippet = shorten(passage.text, _SNIPPET_CHARACTERS)
    return {"number": number, "title": passage.title, "url": passage.url, "snippet": snippet}


def _usage(answer: CitedAnswer) -> dict[str, Any] | None:
    if not answer.usage:
        return None
    return {
        "input_tokens": answer.usage.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.usage.get("total_tokens", 0),
    }

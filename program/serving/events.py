"""The Responses API's events of one answer, in its order, numbered; and the body of a whole one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from program.responses import render_annotation, render_response, render_step
from program.serving.failures import Failure
from program.types import Citation, CitedAnswer, Piece, ToolStep

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": still there\n\n"
"""A comment: readers of event streams skip it, and proxies see that the connection lives."""

Event = dict[str, Any]


class ResponseEvents:
    """Makes the events of one streamed answer; each method gives the next ones.

    `response.created` and `response.in_progress`; an item for each tool's call and result, added and done; then the
    message: `response.output_item.added` and `response.content_part.added`, a delta for each text, its annotation
    right after its marker, and the same closed. Its `response.output_item.done`, and at last
    `response.completed`, carry `custom_outputs`. The text of the finished item is exactly the concatenated deltas.
    """

    def __init__(self, item_id: str, model: str) -> None:
        self._item_id = item_id
        self._response_id = new_response_id()
        self._created_at = int(time.time())
        self._model = model
        self._number = 0
        self._annotations = 0
        self._output_index = 0
        self._is_message_open = False

    def opening(self, trace_id: str | None = None) -> Iterator[Event]:
        """What comes before any text; the trace id here too, so that an answer that breaks off has one."""
        response = {**self._envelope("in_progress", trace_id), "output": []}
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def pieces(self, pieces: Sequence[Piece]) -> Iterator[Event]:
        """Text, citations and tools as they came; texts next to each other become one delta."""
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            yield from self._delta(text)
            text = ""
            if not isinstance(piece, Citation):
                yield from self._step(piece)
                continue
            yield self._part_event(
                "response.output_text.annotation.added",
                annotation_index=self._annotations,
                annotation=render_annotation(piece),
            )
            self._annotations += 1
        yield from self._delta(text)

    def closing(self, answer: CitedAnswer, trace_id: str | None) -> Iterator[Event]:
        """What comes after the last text."""
        yield from self._open_message()
        response = self.whole(answer, trace_id)
        item = response["output"][-1]
        [part] = item["content"]
        yield self._part_event("response.output_text.done", text=part["text"], logprobs=[])
        yield self._part_event("response.content_part.done", part=part)
        yield self._event(
            "response.output_item.done",
            output_index=self._output_index,
            item=item,
            custom_outputs=response["custom_outputs"],
        )
        yield self._event("response.completed", response=response)

    def failed(self, failure: Failure) -> Event:
        """The last event of an answer that broke off; what was said before stays said."""
        return failure.event(self._next_number())

    def whole(self, answer: CitedAnswer, trace_id: str | None) -> dict[str, Any]:
        """The response as one body; `metadata.trace_id` where a trace id is given."""
        rendered = render_response(answer, self._item_id).model_dump(exclude_none=True)
        rendered["output"][-1]["status"] = "completed"
        return {**self._envelope("completed", trace_id), **rendered}

    def _envelope(self, status: str, trace_id: str | None) -> dict[str, Any]:
        return {
            "id": self._response_id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "model": self._model,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {} if trace_id is None else {"trace_id": trace_id},
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "usage": None,
        }

    def _step(self, step: ToolStep) -> Iterator[Event]:
        """A tool's call or result: whole, since models say it whole."""
        item = render_step(step)
        begun = {**item, "status": "in_progress", **({"arguments": ""} if "arguments" in item else {})}
        yield self._item_event("response.output_item.added", item=begun)
        if "arguments" in item:
            arguments = item["arguments"]
            yield self._call_event("response.function_call_arguments.delta", item, delta=arguments)
            yield self._call_event(
                "response.function_call_arguments.done", item, arguments=arguments, name=item["name"]
            )
        yield self._item_event("response.output_item.done", item=item)
        self._output_index += 1

    def _open_message(self) -> Iterator[Event]:
        """Begin the message, if it is not; every tool was called by then."""
        if self._is_message_open:
            return
        self._is_message_open = True
        item = {
            "type": "message",
            "id": self._item_id,
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        yield self._item_event("response.output_item.added", item=item)
        part = {"type": "output_text", "text": "", "annotations": []}
        yield self._part_event("response.content_part.added", part=part)

    def _delta(self, text: str) -> Iterator[Event]:
        if text:
            yield from self._open_message()
            yield self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def _part_event(self, kind: str, **fields: Any) -> Event:
        place = {"item_id": self._item_id, "output_index": self._output_index, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _item_event(self, kind: str, item: Event) -> Event:
        return self._event(kind, output_index=self._output_index, item=item)

    def _call_event(self, kind: str, item: Event, **fields: Any) -> Event:
        return self._event(kind, item_id=item["id"], output_index=self._output_index, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "sequence_number": self._next_number(), **fields}

    def _next_number(self) -> int:
        number, self._number = self._number, self._number + 1
        return number


def encode_events(events: Iterator[Event]) -> bytes:
    """Events as server-sent events, one after the other."""
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), encode_json(event)) for event in events
    )


def encode_json(value: Any) -> bytes:
    """JSON in ASCII, so that no text, half an emoji included, can break a reader."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def new_response_id() -> str:
    """An id for one response."""
    return f"resp_{uuid4().hex}"

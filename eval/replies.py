"""What an agent said: the parts of its reply that metrics need, whatever interface it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Trace
from mlflow.types.responses import ResponsesAgentResponse
from pydantic import BaseModel, ValidationError

from retrieval.errors import DataError


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent of another process said, and the evidence that came with it.

    Attributes:
        said: its response, as JSON has it.
        traces: what it traced, in the order of its beginning.
        latency_ms: its own time, without the way to it and back.
        error: why there is no response.
        stored: whether the traces are in the tracking store already.
    """

    said: Any
    traces: tuple[Trace, ...] = ()
    latency_ms: float = 0.0
    error: Exception | None = None
    stored: bool = False


def duration_ms(trace: Trace) -> float:
    """From the beginning of a trace's first span to the end of its last; MLflow's own figure is rounded."""
    ends = [span.end_time_ns for span in trace.data.spans if span.end_time_ns]
    if not ends:
        return float(trace.info.execution_duration or 0)
    return round((max(ends) - min(span.start_time_ns for span in trace.data.spans)) / 1e6, 3)


def read_said(said: Any) -> dict[str, Any]:
    """The parts of a response as JSON has it, as fields of an `AnswerRecord`.

    Understood are a ResponsesAgent's response, a ChatAgent's (`messages`), a chat completion (`choices`), and
    text, alone or as `answer`, `response` or `output`. Only the first can cite.

    Raises:
        DataError: if it is none of these, or says something of another type than ours in `custom_outputs`.
    """
    match said:
        case ResponsesAgentResponse():
            return read_response(said)
        case {"output": list()}:
            return read_response(_validate(said))
        case {"messages": [*messages]}:
            return _read_chat(messages, said)
        case {"choices": [*choices]}:
            return _read_chat(
                [choice.get("message") for choice in choices[:1] if isinstance(choice, Mapping)], said
            )
        case str(text) | {"answer": str(text)} | {"response": str(text)} | {"output": str(text)}:
            return {"answer": text.strip()}
    shown = (
        f"an object with {', '.join(map(str, said)) or 'nothing'}"
        if isinstance(said, Mapping)
        else type(said).__name__
    )
    raise DataError(f"The agent returned {shown}, which holds no `output`, `messages` or `choices`.")


def read_response(response: ResponsesAgentResponse) -> dict[str, Any]:
    """The parts of a response that metrics need, as fields of an `AnswerRecord`.

    An agent that does not say whether it abstained (`custom_outputs.abstained`) is taken to have answered.

    Raises:
        DataError: if it is no response, or says something of another type than ours in `custom_outputs`.
    """
    if not isinstance(response, ResponsesAgentResponse):
        raise DataError(f"The agent returned {type(response).__name__}, not a ResponsesAgentResponse.")
    contents = [content for item in response.output if item.type == "message" for content in _contents(item)]
    annotations = [note for content in contents for note in content.get("annotations") or ()]
    said = _read_custom_outputs(response.custom_outputs)
    return {
        "answer": "".join(str(content.get("text") or "") for content in contents),
        "cited_uris": tuple(
            dict.fromkeys(_cited_uri(note) for note in annotations if note.get("type") == "url_citation")
        ),
        "abstained": said.abstained,
        "dropped_markers": said.dropped_markers,
        "reader": said.reader or response.model or "",
        "usage": _usage(response),
    }


def _cited_uri(note: Mapping[str, Any]) -> str:
    # Ours has both: its url opens a section of the document, whose identity is the doc_uri.
    return str(note.get("doc_uri") or note["url"])


class _CustomOutputs(BaseModel):
    """What we read of `custom_outputs`; an agent may say anything else there."""

    abstained: bool = False
    dropped_markers: int = 0
    reader: str | None = None


def _read_custom_outputs(custom_outputs: Any) -> _CustomOutputs:
    try:
        return _CustomOutputs.model_validate(custom_outputs or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"custom_outputs.{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}."
        ) from None


def _validate(said: Any) -> ResponsesAgentResponse:
    try:
        return ResponsesAgentResponse.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"The agent's response is none of a ResponsesAgent: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from None


def _contents(item: Any) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = item.model_dump().get("content") or []
    return contents


def _usage(response: ResponsesAgentResponse) -> dict[str, int]:
    if response.usage is None:
        return {}
    return {
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
        "total_tokens": response.usage.total_tokens,
    }


def _read_chat(messages: list[Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A chat's last words by the assistant; what it asked tools for on the way is none of them."""
    texts = [_text(message.get("content")) for message in messages if _is_answer(message)]
    custom = _read_custom_outputs(said.get("custom_outputs"))
    return {
        "answer": texts[-1].strip() if texts else "",
        "abstained": custom.abstained,
        "dropped_markers": custom.dropped_markers,
        "reader": custom.reader or str(said.get("model") or ""),
        "usage": _chat_usage(said.get("usage")),
    }


def _is_answer(message: Any) -> bool:
    return (
        isinstance(message, Mapping) and message.get("role") == "assistant" and bool(message.get("content"))
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content)


def _chat_usage(usage: Any) -> dict[str, int]:
    ours = {
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "total_tokens": "total_tokens",
    }
    counted = usage if isinstance(usage, Mapping) else {}
    return {name: counted[theirs] for theirs, name in ours.items() if isinstance(counted.get(theirs), int)}

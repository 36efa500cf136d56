"""The body of a request for an answer, checked: what is wrong is said before anything is begun."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mlflow.types.responses import ResponsesAgentRequest
from pydantic import ValidationError

from program.responses import parse_custom_inputs, parse_turn, shorten
from program.serving.failures import bad_request
from program.well_formed import well_formed_value

_ROLES = ("user", "assistant", "system", "developer")
_SHOWN_CHARACTERS = 80

_UNREAD = ("tools", "tool_choice", "reasoning", "truncation")
"""Of no meaning to an agent that answers from documents; MLflow would warn of values newer than itself."""
_DEEPEST = 100
"""Levels of lists and objects in a body: what handles a request later, traces included, is recursive."""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A request that can be given to the agent, and whether its answer is streamed."""

    body: ResponsesAgentRequest
    stream: bool


def parse_answer_request(content: bytes) -> AnswerRequest:
    """The request in a body of JSON.

    `input` may be a plain string, as OpenAI's client sends it. Half an emoji (a lone surrogate), which no
    store and no client can take, becomes the replacement character. What the Responses API knows and an
    agent does not (`model`, `instructions`, …) is let pass, as MLflow does.

    Raises:
        RequestFailedError: 400, saying which part is wrong and what it must be.
        RequestError: if the conversation or `custom_inputs` cannot be answered as they are.
    """
    body = _parse_json(content)
    stream = body.pop("stream", False)
    if stream is None:
        stream = False
    if not isinstance(stream, bool):
        raise bad_request(f"stream: must be true or false, not {_show(stream)}.")
    for name in _UNREAD:
        body.pop(name, None)
    body["input"] = _conversation(body.get("input"))
    try:
        request = ResponsesAgentRequest.model_validate(body)
    except ValidationError as error:
        raise bad_request(_describe(error)) from None
    # Asked again by the agent; here so that nothing wrong takes a place in the queue.
    parse_turn(request, parse_custom_inputs(request.custom_inputs))
    return AnswerRequest(request, stream)


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        # Decoded here: json.loads would take lone surrogates in UTF-8 for text.
        body = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise bad_request(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise bad_request(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.") from None
    except ValueError as error:
        raise bad_request(f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise bad_request(f'The body must be a JSON object, such as {{"input": "…"}}, not {_show(body)}.')
    # Counted first, which is quick: few bodies have so many brackets.
    if content.count(b"[") + content.count(b"{") > _DEEPEST and _is_deeper_than(_DEEPEST, body):
        raise bad_request(f"The body is nested too deeply: more than {_DEEPEST} levels.")
    # A body that holds no escape for one holds no lone surrogate either.
    return well_formed_value(body) if b"\\ud" in content.lower() else body


def _is_deeper_than(levels: int, value: Any) -> bool:
    inside = [value]
    for _ in range(levels):
        inside = [
            element
            for container in inside
            for element in (container.values() if isinstance(container, dict) else container)
            if isinstance(element, dict | list)
        ]
    return bool(inside)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _conversation(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if value is None:
        raise bad_request("input: is missing. Send the question as text, or a list of messages.")
    if not isinstance(value, list):
        raise bad_request(f"input: must be text or a list of messages, not {_show(value)}.")
    for number, item in enumerate(value):
        _check_item(f"input[{number}]", item)
    return value


def _check_item(place: str, item: Any) -> None:
    if not isinstance(item, dict):
        raise bad_request(f"{place}: must be a message, not {_show(item)}.")
    if item.get("type", "message") != "message":
        return
    if item.get("role") not in _ROLES:
        raise bad_request(f"{place}.role: {_show(item.get('role'))} is none of {', '.join(_ROLES)}.")
    content = item.get("content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _check_part(f"{place}.content[{number}]", part)
    elif not isinstance(content, str):
        raise bad_request(f"{place}.content: must be text or a list of parts, not {_show(content)}.")


def _check_part(place: str, part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else part
    if kind in ("input_image", "input_file", "input_audio"):
        raise bad_request(f"{place}: content of type '{kind}' cannot be read. Send text only.")
    if not isinstance(part, dict) or not isinstance(part.get("text", part.get("refusal")), str):
        raise bad_request(
            f'{place}: must be such as {{"type": "input_text", "text": "…"}}, not {_show(part)}.'
        )


def _describe(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if not _is_type_name(part))
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {_show(problem['input'])}."


def _is_type_name(part: int | str) -> bool:
    """Whether a part of a location is pydantic's name of a union's branch rather than a key."""
    return isinstance(part, str) and (part[:1].isupper() or "[" in part)


def _show(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    return shorten(json.dumps(value, ensure_ascii=False, default=repr), _SHOWN_CHARACTERS)

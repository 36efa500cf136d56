"""Ask an agent one question and show what it says in a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CitingAgent
from program.extractive import ExtractiveReader
from program.responses import shorten

_QUOTE_CHARACTERS = 200


def ask_agent(
    agent: CitingAgent,
    question: str,
    filters: Mapping[str, Any] | None = None,
    on_text: Callable[[str], None] | None = None,
    *,
    k: int | None = None,
    conversation: str | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """The agent's finished answer as a dictionary: `answer`, `citations`, and all of `custom_outputs`.

    `steps` are the items of the tools that were called on the way. `on_text` is given the text as it streams, and
    `on_step` each of those items; what one of them raises stops the answer. `conversation` is the id of one that the
    agent's memory keeps.

    Raises:
        CiteqaError: if the question cannot be answered.
    """
    custom = {name: value for name, value in (("k", k), ("filters", dict(filters or {}))) if value}
    request = ResponsesAgentRequest(
        input=[{"role": "user", "content": question}],
        custom_inputs=custom or None,
        context={"conversation_id": conversation} if conversation else None,
    )
    answer: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []
    with closing(agent.predict_stream(request)) as events:
        for event in events:
            body = event.model_dump()
            if event.type == "response.output_text.delta" and on_text:
                on_text(body["delta"])
            if event.type != "response.output_item.done":
                continue
            if body["item"]["type"] != "message":
                steps.append(body["item"])
                if on_step:
                    on_step(body["item"])
                continue
            content = body["item"]["content"][0]
            answer = {
                "question": question,
                "answer": content["text"],
                "citations": content["annotations"],
                **(body["custom_outputs"] or {}),
                **({"steps": steps} if steps else {}),
            }
    return answer


def render_json(answer: Mapping[str, Any]) -> str:
    """The answer for a machine."""
    return json.dumps(answer, ensure_ascii=False, indent=2)


def render_sources_list(answer: Mapping[str, Any]) -> str:
    """The sources under an answer: the cited ones with the sentence they are cited for, then the others."""
    quotes: dict[int, list[str]] = {}
    for citation in answer["citations"]:
        quotes.setdefault(citation["number"], []).append(shorten(citation["quote"], _QUOTE_CHARACTERS))
    lines = ["Sources"] if quotes else []
    for source in answer["sources"]:
        if source["cited"]:
            lines.append(_source_line(source))
            lines += [f"      “{quote}”" for quote in dict.fromkeys(quotes[source["number"]])]
    unused = [source for source in answer["sources"] if not source["cited"]]
    if unused:
        lines += ["", "Retrieved, not cited", *map(_source_line, unused)]
    if answer.get("steps"):
        lines += ["", "Searched for", *(f"  {query}" for query in answer["query"].splitlines())]
    return "\n".join([*lines, "", _reader_line(answer["reader"])]).lstrip("\n")


def _source_line(source: Mapping[str, Any]) -> str:
    return f"  [{source['number']}] {source['title']} — {source['url']}"


def _reader_line(reader: str) -> str:
    if reader == ExtractiveReader.name:
        return "Reader: extractive (sentences chosen from the documents, no language model)"
    return f"Reader: {reader}"

"""The wire: a request becomes a turn or one clear refusal, an answer becomes items and events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

from program.citations import cite
from program.responses import (
    CustomInputs,
    parse_custom_inputs,
    parse_turn,
    render_events,
    render_response,
    shorten,
)
from program.types import Message, Piece, Turn
from retrieval.errors import RequestError
from retrieval.types import Passage

PASSAGES = [
    Passage("c1", "https://e.org/1", "Water boils at 100 degrees.", "Water", score=2.34567),
    Passage("c2", "file:///notes.md", "Ice melts.\n\n" + "More of it. " * 60),
]


def turn_of(*items: Any, custom: CustomInputs | None = None) -> Turn:
    return parse_turn(ResponsesAgentRequest(input=list(items)), custom or CustomInputs())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "id": "m1", "status": "completed", "content": content}


def test_the_last_user_message_is_the_question_and_the_rest_is_history() -> None:
    turn = turn_of(user("First?"), assistant("One."), user("Second?"))
    assert turn == Turn("Second?", (Message("user", "First?"), Message("assistant", "One.")))


def test_text_parts_are_joined() -> None:
    parts = [{"type": "input_text", "text": "When"}, {"type": "input_text", "text": "does it boil?"}]
    assert turn_of(user(parts)).question == "When\ndoes it boil?"


def test_items_that_no_person_saw_are_no_history() -> None:
    items = [
        {"role": "system", "content": "Be brief."},
        user("First?"),
        {"type": "function_call", "call_id": "1", "name": "search", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "found"},
        {"type": "reasoning", "id": "r", "summary": []},
        user("Second?"),
    ]
    assert turn_of(*items).history == (Message("user", "First?"),)


def test_k_and_filters_of_the_request_are_the_turns() -> None:
    turn = turn_of(user("When?"), custom=CustomInputs(k=7, filters={"lang": "ja"}))
    assert (turn.k, turn.filters) == (7, {"lang": "ja"})


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "holds no message"),
        ([{"type": "function_call_output", "call_id": "1", "output": "x"}], "holds no message"),
        ([assistant("Hello.")], "role 'assistant'"),
        ([user("When?"), assistant("At 100.")], "role 'assistant'"),
        ([user("")], "empty"),
        ([user(" \n\u3000")], "empty"),
        ([user([])], "empty"),
        (
            [user([{"type": "input_image", "image_url": "https://e.org/x.png", "detail": "auto"}])],
            "'input_image'",
        ),
        ([user([{"type": "input_file", "file_id": "f"}]), user("When?")], "'input_file'"),
    ],
)
def test_input_that_holds_no_question_is_refused_with_its_reason(items: list[Any], reason: str) -> None:
    with pytest.raises(RequestError, match=r"^input: ") as caught:
        turn_of(*items)
    assert reason in str(caught.value)


def test_custom_inputs_may_be_absent_or_complete() -> None:
    assert parse_custom_inputs(None) == parse_custom_inputs({}) == CustomInputs()
    values = {"k": 3, "filters": {"lang": "ja"}, "program": "p", "session_id": "s", "user_id": "u"}
    assert parse_custom_inputs(values).model_dump() == values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"k": "3"}, "k = '3'"),
        ({"k": 0}, "k = 0"),
        ({"k": 101}, "k = 101"),
        ({"k": True}, "k = True"),
        ({"filters": "lang=ja"}, "filters = 'lang=ja'"),
        ({"session_id": 7}, "session_id = 7"),
        ({"user_id": "u" * 257}, "user_id = "),
        ({"top_k": 3}, "top_k = 3"),
    ],
)
def test_a_wrong_custom_input_is_named_with_its_value_and_the_keys_there_are(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_custom_inputs(values)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 300
    assert "Known: k, filters, program, session_id, user_id." in message


def test_all_wrong_custom_inputs_are_told_at_once() -> None:
    with pytest.raises(RequestError, match=r"k = '3'.*; bogus = 1.*unknown"):
        parse_custom_inputs({"k": "3", "bogus": 1})


def test_a_citation_is_a_url_citation_at_its_marker() -> None:
    answer = cite("At 100 [1]. 氷 [2].", PASSAGES, reader="r", query="q")
    [item] = [output.model_dump() for output in render_response(answer, "msg_1").output]
    text = item["content"][0]["text"]
    first, second = item["content"][0]["annotations"]
    assert (item["id"], text) == ("msg_1", "At 100 [1]. 氷 [2].")
    assert first["type"] == "url_citation"
    assert (first["url"], first["title"]) == ("https://e.org/1", "Water")
    assert text[first["start_index"] : first["end_index"]] == "[1]"
    assert first["quote"] == "Water boils at 100 degrees."
    # The wire requires a title.
    assert second["title"] == second["url"] == "file:///notes.md"


def test_a_citation_and_a_source_open_the_section_of_the_document_that_they_name() -> None:
    passage = Passage("c1", "https://e.org/1", "Water boils.", fragment="boiling")
    response = render_response(cite("It boils [1].", [passage], reader="r", query="q"), "msg_1")
    [annotation] = response.output[0].model_dump()["content"][0]["annotations"]
    assert response.custom_outputs is not None
    [source] = response.custom_outputs["sources"]
    for link in (annotation, source):
        assert (link["doc_uri"], link["url"]) == ("https://e.org/1", "https://e.org/1#boiling")


def test_the_sources_are_all_that_was_retrieved_with_what_was_cited() -> None:
    answer = cite("At 100 [1] [9].", PASSAGES, reader="r", query="q")
    custom = render_response(answer, "msg_1").custom_outputs
    assert custom is not None
    assert (custom["reader"], custom["query"], custom["dropped_markers"]) == ("r", "q", 1)
    first, second = custom["sources"]
    assert (first["number"], first["cited"], first["score"]) == (1, True, 2.3457)
    assert (second["number"], second["cited"]) == (2, False)
    assert second["snippet"].startswith("Ice melts. More of it.")
    assert len(second["snippet"]) <= 300


@given(st.lists(st.sampled_from(["At", " 100 ", "[1]", "[2]", "[9]", "。", "`[1]`", "\n"]), max_size=12))
def test_events_add_up_to_the_item_that_ends_them(parts: list[str]) -> None:
    pieces: list[Piece] = []
    answer = cite(parts, PASSAGES, reader="r", query="q", emit=pieces.append)
    *events, done = [event.model_dump() for event in render_events(pieces, [answer], "msg_1")]

    text, annotations = "", []
    for event in events:
        assert event["item_id"] == "msg_1"
        if event["type"] == "response.output_text.delta":
            text += event["delta"]
        else:
            assert event["type"] == "response.output_text.annotation.added"
            assert event["annotation_index"] == len(annotations)
            assert event["annotation"]["end_index"] == len(text)
            annotations.append(event["annotation"])
    assert done["type"] == "response.output_item.done"
    assert done["item"]["id"] == "msg_1"
    assert done["item"]["content"][0] == {"type": "output_text", "text": text, "annotations": annotations}
    assert done["custom_outputs"] == render_response(answer, "msg_1").custom_outputs


@given(st.text(), st.integers(1, 40))
def test_a_shortened_text_is_one_line_within_its_limit(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert len(short.splitlines()) <= 1
    if short != " ".join(text.split()):
        assert short.endswith("…")

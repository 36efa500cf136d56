"""What an answer looks like on the wire, whole and streamed, however its text is cut and whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.agent import new_item_id
from program.citations import cite
from program.serving.app import ANSWER_PATHS
from program.serving.events import ResponseEvents, encode_events
from program.settings import Settings
from program.types import Citation, Piece
from retrieval.types import Passage

OPENING = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
]
CLOSING = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
DELTA = "response.output_text.delta"
ANNOTATION = "response.output_text.annotation.added"
VARYING = ("id", "created_at", "timings_ms")
PASSAGES = [
    Passage("a#0", "https://docs.example/a", "Ice melts at 0 degrees. It floats.", "A", "en"),
    Passage("b#0", "file:///ü?x=1#y", "水は100度で沸騰する。", "", "ja"),
    Passage("c#0", "javascript:alert(1)", "<script>alert(1)</script> \ud83d", "C"),
]


@pytest.fixture
def server(serve: Any, make_settings: Callable[..., Settings], language_model: Any) -> Any:
    """Our program with a model that answers in small deltas and cites twice."""
    answer = "It boils at 100 degrees [1]. On Everest at 71 [2]. 沸騰 😀"
    language_model.fills({"answer": answer, "answerable": "True"}, chunk=3)
    return serve(make_settings(language_model))


def text_of(response: dict[str, Any]) -> str:
    text: str = response["output"][0]["content"][0]["text"]
    return text


def steady(value: Any) -> Any:
    """A response without what differs from one to the next."""
    if isinstance(value, dict):
        return {key: steady(element) for key, element in value.items() if key not in VARYING}
    return [steady(element) for element in value] if isinstance(value, list) else value


def check_law(events: Sequence[dict[str, Any]]) -> None:
    """What every finished stream keeps, whatever was said in it."""
    types = [event["type"] for event in events]
    assert types[:4] == OPENING
    assert types[-4:] == CLOSING
    assert set(types[4:-4]) <= {DELTA, ANNOTATION}
    assert [event["sequence_number"] for event in events] == list(range(len(events)))

    said = ""
    annotations = []
    for before, event in pairwise(events[3:-4]):
        if event["type"] == DELTA:
            assert event["delta"]
            said += event["delta"]
            continue
        annotation = event["annotation"]
        assert event["annotation_index"] == len(annotations)
        assert said[annotation["start_index"] : annotation["end_index"]] == f"[{annotation['number']}]"
        # Right after its marker: nothing was said between the two.
        assert annotation["end_index"] == len(said)
        assert before["type"] == DELTA
        annotations.append(annotation)

    *_, text_done, part_done, item_done, completed = events
    response = completed["response"]
    part = {"type": "output_text", "text": said, "annotations": annotations}
    assert text_done["text"] == said
    assert part_done["part"] == part
    assert item_done["item"]["content"] == [part]
    assert response["output"] == [item_done["item"]]
    assert response["custom_outputs"] == item_done["custom_outputs"]
    assert {event["response"]["id"] for event in (events[0], events[1], completed)} == {response["id"]}
    assert {event["item_id"] for event in events if "item_id" in event} == {item_done["item"]["id"]}
    assert events[2]["item"]["id"] == item_done["item"]["id"]


@given(data=st.data())
def test_every_stream_keeps_the_law_however_text_and_markers_are_cut(data: st.DataObject) -> None:
    fragments = st.one_of(
        st.text(max_size=8), st.sampled_from([" [1]", "[2, 3]", "[9]", "`[1]`", "\ud83d", "。"])
    )
    text = "".join(data.draw(st.lists(fragments, max_size=12)))
    pieces: list[Piece] = []
    answer = cite(data.draw(cuts_of(text)), PASSAGES, reader="test", query="q", emit=pieces.append)
    events = ResponseEvents(new_item_id(), "test")
    stream = [*events.opening()]
    for batch in data.draw(cuts_of(pieces)):
        stream += events.pieces(batch)
    stream += events.closing(answer, None)
    as_read = [
        json.loads(block.partition("data: ")[2])
        for block in encode_events(iter(stream)).decode("ascii").split("\n\n")
        if block
    ]
    assert as_read == stream
    check_law(stream)
    assert len([piece for piece in pieces if isinstance(piece, Citation)]) == len(answer.citations)
    assert text_of(stream[-1]["response"]) == answer.text


def cuts_of(sequence: Any) -> st.SearchStrategy[list[Any]]:
    """The sequence in pieces that add up to it, some of them empty."""
    places = st.lists(st.integers(0, len(sequence)), max_size=6).map(sorted)
    return places.map(
        lambda cuts: [
            sequence[start:end] for start, end in zip([0, *cuts], [*cuts, len(sequence)], strict=True)
        ]
    )


def test_a_stream_of_the_real_server_keeps_the_law_and_ends_with_done(server: Any) -> None:
    *events, done = server.events("When does water boil?")
    assert done.data == "[DONE]"
    assert [event.name for event in events] == [event.type for event in events]
    check_law([event.data for event in events])
    assert len([event for event in events if event.type == DELTA]) > 2
    assert len([event for event in events if event.type == ANNOTATION]) == 2


def test_the_completed_response_of_a_stream_is_the_whole_answer(server: Any) -> None:
    whole = server.ask("When does water boil?").json()
    completed = server.events("When does water boil?")[-2].data["response"]
    assert steady(completed) == steady(whole)
    assert text_of(whole) == "It boils at 100 degrees [1]. On Everest at 71 [2]. 沸騰 😀"
    assert (whole["object"], whole["status"], whole["model"]) == ("response", "completed", "openai/test")
    assert whole["output"][0]["status"] == "completed"
    assert whole["usage"]["input_tokens"] == 11
    assert whole["metadata"] == {}


def test_markers_are_counted_in_code_points(serve: Any) -> None:
    response = serve().ask("😀 富士山").json()
    [annotation] = response["output"][0]["content"][0]["annotations"]
    assert text_of(response)[annotation["start_index"] : annotation["end_index"]] == "[1]"


def test_custom_outputs_tell_who_answered_and_what_was_found_best_first(server: Any) -> None:
    custom = server.ask("When does water boil?").json()["custom_outputs"]
    assert (custom["reader"], custom["abstained"], custom["fallback_reason"]) == ("openai/test", False, None)
    assert custom["query"] == "When does water boil?"
    assert set(custom["timings_ms"]) == {"condense", "retrieve", "read"}
    assert [(source["number"], source["cited"]) for source in custom["sources"]] == [(1, True), (2, True)]
    scores = [source["score"] for source in custom["sources"]]
    assert scores == sorted(scores, reverse=True)
    assert all({"doc_uri", "title", "chunk_id", "snippet"} <= source.keys() for source in custom["sources"])


def test_the_chat_app_of_databricks_sees_each_link_right_after_its_marker(server: Any) -> None:
    events = server.events("When does water boil?")
    said = ""
    for event in events[:-1]:
        if event.type == DELTA:
            said += event.data["delta"]
        if event.type == ANNOTATION:
            annotation = event.data["annotation"]
            assert annotation["type"] == "url_citation"
            assert annotation["url"].startswith("https://docs.example/")
            assert annotation["title"] in ("Water", "Mountains")
            assert said.endswith(f"[{annotation['number']}]")
    [item_done] = [event.data for event in events[:-1] if event.type == "response.output_item.done"]
    assert item_done["item"]["content"][0]["text"] == said


@pytest.mark.parametrize("path", ANSWER_PATHS)
def test_each_path_answers_whole_and_streamed(serve: Any, path: str) -> None:
    server = serve()
    body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]}
    whole = server.client.post(path, json=body)
    streamed = server.client.post(path, json={**body, "stream": True})
    assert text_of(whole.json()) == "Hello said [1]."
    assert whole.headers["content-type"] == "application/json"
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert DELTA in streamed.text
    count = server.metrics()[("citeqa_requests_total", path, "200")]
    assert count == 2


def test_the_conversation_so_far_is_what_a_follow_up_is_read_against(
    serve: Any, make_settings: Callable[..., Settings], language_model: Any
) -> None:
    language_model.fills({"standalone_question": "When does water boil on Everest?"})
    language_model.fills({"answer": "At 71 degrees [1].", "answerable": "True"})
    answer = serve(make_settings(language_model)).ask(
        [
            {"role": "user", "content": "When does water boil?"},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "At 100 degrees.", "annotations": []}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "And on Everest?"}]},
        ]
    )
    assert answer.json()["custom_outputs"]["query"] == "When does water boil on Everest?"
    assert "user: When does water boil?" in language_model.prompt(0)
    assert "assistant: At 100 degrees." in language_model.prompt(0)


def test_custom_inputs_choose_how_many_passages_and_which(
    serve: Any, make_settings: Callable[..., Settings]
) -> None:
    server = serve(make_settings())
    one = server.ask("When does water boil?", custom_inputs={"k": 1}).json()
    assert len(one["custom_outputs"]["sources"]) == 1
    japanese = server.ask("富士山の高さは？", custom_inputs={"filters": {"lang": "ja"}}).json()
    assert {source["title"] for source in japanese["custom_outputs"]["sources"]} == {"富士山"}
    assert japanese["custom_outputs"]["reader"] == japanese["model"] == "extractive"


def test_an_answer_that_is_not_traced_has_no_trace_id_even_when_it_is_asked_for(serve: Any) -> None:
    server = serve()
    asked = {"x-mlflow-return-trace-id": "true"}
    assert server.ask(headers=asked).json()["metadata"] == {}
    *_, completed, done = server.events(headers=asked)
    assert (completed.type, done.data) == ("response.completed", "[DONE]")

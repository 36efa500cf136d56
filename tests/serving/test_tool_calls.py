"""The tools that an agentic answer called, over HTTP: as the OpenAI client reads them, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from program.settings import Settings

QUESTION = "When does water boil, and how high is 富士山?"
ANSWER = "It boils at 100 degrees [1]. It is 3776 metres high [2]."
ITEMS = ["function_call", "function_call_output"] * 2 + ["message"]


def decision(*queries: str) -> dict[str, Any]:
    calls = [{"name": "search", "args": {"query": query}} for query in queries]
    return {"next_thought": "…", "tool_calls": json.dumps({"tool_calls": calls}, ensure_ascii=False)}


@pytest.fixture
def server(serve: Any, make_settings: Callable[..., Settings], language_model: Any) -> Any:
    for fields in (
        decision("water boils"),
        decision("富士山の高さ"),
        decision(),
        {"answerable": True, "answer": ANSWER},
    ):
        language_model.fills(fields, chunk=4)
    return serve(make_settings(language_model, retrieval={"k": 1}, program={"kind": "react"}))


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0) as client:
        yield client


def check(response: Any) -> None:
    assert [item.type for item in response.output] == ITEMS
    assert response.output_text == ANSWER
    second, output = response.output[2:4]
    assert json.loads(second.arguments) == {"query": "富士山の高さ"}
    assert (second.name, second.call_id, second.status) == ("search", output.call_id, "completed")
    [found] = json.loads(output.output)["passages"]
    assert (found["number"], found["url"]) == (2, "https://docs.example/fuji")
    urls = [annotation.url for annotation in response.output[-1].content[0].annotations]
    assert urls == ["https://docs.example/water", "https://docs.example/fuji"]
    assert response.usage.total_tokens == 4 * 18


def test_the_whole_response_has_the_calls_before_the_message(client: openai.OpenAI) -> None:
    check(client.responses.create(model="any", input=QUESTION))


def test_the_streaming_helper_assembles_the_same_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="any", input=QUESTION) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == ANSWER
    check(final)


def test_each_item_of_the_stream_has_its_index_and_is_added_before_it_is_done(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="any", input=QUESTION, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    of_items = [event for event in events if event.type.startswith("response.output_item.")]
    assert [(event.type.rpartition(".")[2], event.output_index) for event in of_items] == [
        (state, index) for index in range(5) for state in ("added", "done")
    ]
    assert [event.item.type for event in of_items[1::2]] == ITEMS
    said = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments)["query"] for event in said] == ["water boils", "富士山の高さ"]
    of_text = [event for event in events if event.type.startswith("response.output_text.")]
    assert {event.output_index for event in of_text} == {4}
    check(events[-1].response)


def test_the_calls_come_while_the_model_is_still_deciding(
    serve: Any, make_settings: Callable[..., Settings], language_model: Any
) -> None:
    language_model.fills(decision("water boils"))
    language_model.says("the second decision breaks", status=401)
    server = serve(make_settings(language_model, program={"kind": "react"}))
    events = [event.data for event in server.events(QUESTION)]
    kinds = [event["type"] for event in events if isinstance(event, dict)]
    assert kinds.count("response.output_item.done") == 2
    assert kinds[-1] == "error"
    assert "response.output_text.delta" not in kinds


def test_when_nobody_waits_for_the_whole_answer_any_more_the_model_decides_no_further(
    serve: Any, make_settings: Callable[..., Settings], language_model: Any
) -> None:
    for query in ("water", "mountains", "everest", "thin air"):
        language_model.fills(decision(query), delay_s=0.3)
    language_model.fills({"answerable": True, "answer": ANSWER})
    server = serve(make_settings(language_model, program={"kind": "react"}), serving={"deadline_s": 0.45})
    response = server.ask(QUESTION)
    assert response.json()["error"]["code"] == "deadline_exceeded"
    server.wait_for_metric("citeqa_in_flight", value=0)
    assert len(language_model.requests) == 2, "the second was under way when the deadline passed"

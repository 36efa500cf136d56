"""The real openai client against the real server: whole, streamed, helped by `responses.stream()`, and refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from program.settings import Settings

ANSWER = "It boils at 100 degrees [1]. On Everest at 71 [2]."
IMAGE = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


@pytest.fixture
def server(serve: Any, make_settings: Callable[..., Settings], language_model: Any) -> Any:
    language_model.fills({"answer": ANSWER, "answerable": "True"}, chunk=4)
    return serve(make_settings(language_model))


@pytest.fixture(params=["", "/v1"])
def client(server: Any, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with connect(server, request.param) as client:
        yield client


def connect(server: Any, path: str = "/v1", key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + path, api_key=key, max_retries=0)


def check_answer(response: Any) -> None:
    assert response.status == "completed"
    assert response.output_text == ANSWER
    annotations = response.output[0].content[0].annotations
    assert [annotation.type for annotation in annotations] == ["url_citation"] * 2
    assert {annotation.title for annotation in annotations} == {"Water", "Mountains"}
    assert [ANSWER[a.start_index : a.end_index] for a in annotations] == ["[1]", "[2]"]
    assert response.usage.output_tokens == 7


def test_create_gives_the_whole_answer_with_its_links(client: openai.OpenAI) -> None:
    check_answer(client.responses.create(model="any", input="When does water boil?"))


def test_create_streams_typed_events(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="any", input="When does water boil?", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    check_answer(events[-1].response)


def test_the_streaming_helper_assembles_the_same_answer(client: openai.OpenAI) -> None:
    with client.responses.stream(model="any", input="When does water boil?") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == ANSWER
    check_answer(final)


def test_a_conversation_is_a_list_of_messages(server: Any, language_model: Any) -> None:
    language_model.forget()
    language_model.fills({"standalone_question": "When does water boil on Everest?"})
    language_model.fills({"answer": ANSWER, "answerable": "True"})
    with connect(server) as client:
        response = client.responses.create(
            model="any",
            instructions="is let pass",
            input=[
                {"role": "user", "content": "Tell me of Everest."},
                {"role": "assistant", "content": "It is high."},
                {"role": "user", "content": [{"type": "input_text", "text": "When does water boil there?"}]},
            ],
        )
    assert response.output_text == ANSWER
    assert response.usage is not None
    assert response.usage.output_tokens == 14, "both calls of the model count"
    assert "assistant: It is high." in language_model.prompt(0)


def test_the_asynchronous_client_streams_too(server: Any) -> None:
    async def ask() -> Any:
        async with (
            openai.AsyncOpenAI(base_url=server.url, api_key="unused", max_retries=0) as client,
            client.responses.stream(model="any", input="When does water boil?") as stream,
        ):
            return await stream.get_final_response()

    check_answer(asyncio.run(ask()))


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_is_a_bad_request_that_says_what_can_be_sent(server: Any, stream: bool) -> None:
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": IMAGE}]
    with connect(server) as client, pytest.raises(openai.BadRequestError, match="Send text only") as refused:
        client.responses.create(model="any", input=[{"role": "user", "content": parts}], stream=stream)
    assert refused.value.code == "bad_request"
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id == refused.value.response.headers["x-request-id"]


def test_a_wrong_token_is_an_authentication_error(serve: Any) -> None:
    server = serve(token="right-token")
    with connect(server, key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.responses.create(model="any", input="Hello")
    with connect(server, key="right-token") as client:
        assert client.responses.create(model="any", input="Hello").output_text == "Hello said [1]."


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limited_model_is_a_rate_limit_error_that_says_when_to_try_again(
    server: Any, language_model: Any, stream: bool
) -> None:
    language_model.forget()
    language_model.says("slow down", status=429)
    with connect(server) as client, pytest.raises(openai.RateLimitError, match="slow down") as refused:
        client.responses.create(model="any", input="When does water boil?", stream=stream)
    assert int(refused.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_model_is_a_status_error_of_a_gateway(
    server: Any, language_model: Any, stream: bool
) -> None:
    language_model.forget()
    language_model.says("out of order", status=500)
    with connect(server) as client, pytest.raises(openai.InternalServerError, match="out of order") as failed:
        client.responses.create(model="any", input="When does water boil?", stream=stream)
    assert failed.value.status_code == 502
    assert failed.value.code == "language_model_failed"


def test_a_failure_in_the_stream_is_an_error_event_and_what_was_said_stays(
    server: Any, language_model: Any
) -> None:
    language_model.forget()
    language_model.fills({"answer": "word " * 40, "answerable": "True"}, chunk=5, cut_after=20)
    with connect(server) as client:
        *events, error = client.responses.create(model="any", input="When does water boil?", stream=True)
    assert error.type == "error"
    assert error.code == "language_model_failed"
    assert "cut off" in error.message
    assert error.sequence_number == len(events)
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said.startswith("word word")


def test_the_streaming_helper_shows_an_error_event_as_well(server: Any, language_model: Any) -> None:
    language_model.forget()
    language_model.fills({"answer": "word " * 40, "answerable": "True"}, chunk=5, cut_after=20)
    with connect(server) as client, client.responses.stream(model="any", input="When?") as stream:
        assert [event.type for event in stream][-1] == "error"

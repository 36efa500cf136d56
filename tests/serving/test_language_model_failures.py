"""The language model is down, slow, rate limited, cut off or talks nonsense: who asked is told, and no secret is."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from program.serving.readiness import CHECK_AGAIN_AFTER_S, FAILURES_UNTIL_NOT_READY, ModelHealth
from program.settings import Settings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

SECRET = "sk-canary-0123456789"
MakeSettings = Callable[..., Settings]


@pytest.fixture
def nobody() -> Any:
    """An address where nothing listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        yield SimpleNamespace(url=f"http://127.0.0.1:{probe.getsockname()[1]}/v1")


def script(model: Any, how: str) -> None:
    """One way in which a model fails before it says anything."""
    match how:
        case "out of order":
            model.says("out of order", status=500)
        case "rate limited":
            model.says("slow down", status=429, headers={"Retry-After": "0"})
        case "wrong key":
            model.says(f"Incorrect API key provided: {SECRET}", status=401)
        case "slow":
            model.fills({"answer": "late", "answerable": "True"}, delay_s=1)
        case "no json":
            model.says(body=b"<html>Bad gateway</html>")
        case "empty body":
            model.says(body=b"")
        case "no choices":
            model.says(body=b'{"choices": []}')
        case "nothing said":
            model.says("")
        case "no fields":
            model.says("I would rather talk about the weather.")
        case "half its fields":
            model.says("[[ ## answerable ## ]]\nTrue\n\n[[ ## completed ## ]]")
        case "cut at once":
            model.fills({"answer": "cut", "answerable": "True"}, cut_after=0)


FAILURES = {
    "out of order": (502, "language_model_failed"),
    "rate limited": (429, "language_model_rate_limit"),
    "wrong key": (502, "language_model_failed"),
    "slow": (504, "language_model_timeout"),
    "no json": (502, "language_model_failed"),
    "empty body": (502, "language_model_failed"),
    "no choices": (502, "language_model_failed"),
    "nothing said": (502, "language_model_failed"),
    "no fields": (502, "language_model_failed"),
    "half its fields": (502, "language_model_failed"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_before_any_text_is_a_status_with_a_reason(
    serve: Any, make_settings: MakeSettings, language_model: Any, caplog: Any, how: str
) -> None:
    script(language_model, how)
    server = serve(make_settings(language_model, language_model={"timeout_s": 0.3}))
    for stream in (False, True):
        response = server.ask("When does water boil?", stream=stream)
        body = response.json()
        assert (response.status_code, body["error"]["code"]) == FAILURES[how], body
        assert body["message"].startswith("The language model")
        assert "\n" not in body["message"]
        assert ("retry-after" in response.headers) == (how == "rate limited")
        assert SECRET not in response.text
    assert SECRET not in caplog.text
    code = FAILURES[how][1]
    assert server.metrics()[("citeqa_failures_total", code)] == 2


def test_a_model_that_is_not_there_is_a_bad_gateway(
    serve: Any, make_settings: MakeSettings, nobody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(make_settings(nobody))
    for stream in (False, True):
        response = server.ask("When does water boil?", stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (502, "language_model_failed")
        assert "Check language_model.api_base" in response.json()["message"]


def test_a_model_that_is_cut_off_leaves_what_it_said_and_a_reason_in_the_stream(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    language_model.fills(
        {"answer": "It boils at 100 [1]. " * 20, "answerable": "True"}, chunk=5, cut_after=30
    )
    server = serve(make_settings(language_model))
    *events, error, done = server.events("When does water boil?")
    assert done.data == "[DONE]"
    assert error.data["type"] == error.name == "error"
    assert error.data["code"] == "language_model_failed"
    told = error.data["databricks_output"]["error"]
    assert told == {"error_code": "INTERNAL_ERROR", "message": error.data["message"]}
    assert "cut off" in error.data["message"]
    said = "".join(event.data["delta"] for event in events if event.type == "response.output_text.delta")
    assert said.startswith("It boils at 100 [1].")
    assert [event.data["sequence_number"] for event in [*events, error]] == list(range(len(events) + 1))
    assert "response.completed" not in {event.type for event in events}
    assert server.ask("When does water boil?").status_code == 200


def test_an_answer_that_never_ends_is_ended_by_the_deadline(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    language_model.fills({"answer": "again and " * 10_000, "answerable": "True"}, chunk=10, delay_s=0.001)
    server = serve(make_settings(language_model), serving={"deadline_s": 0.5})
    *_, error, _ = server.events("When does water boil?")
    assert error.data["code"] == "deadline_exceeded"
    assert language_model.wait_for_hang_up()


@pytest.mark.parametrize("how", FAILURES)
def test_the_fallback_answers_in_its_place_and_says_so(
    serve: Any, make_settings: MakeSettings, language_model: Any, how: str
) -> None:
    script(language_model, how)
    settings = make_settings(
        language_model, language_model={"timeout_s": 0.3}, reader={"fallback": "extractive"}
    )
    server = serve(settings)
    whole = server.ask("When does water boil at sea level?").json()
    *events, completed, _ = server.events("When does water boil at sea level?")
    for response in (whole, completed.data["response"]):
        custom = response["custom_outputs"]
        assert (custom["reader"], response["model"]) == ("extractive", "extractive")
        assert custom["fallback_reason"].startswith("The language model")
        assert "100 degrees" in response["output"][0]["content"][0]["text"]
        assert SECRET not in json.dumps(response)
    said = "".join(event.data["delta"] for event in events if event.type == "response.output_text.delta")
    assert said == whole["output"][0]["content"][0]["text"]
    assert server.metrics()[("citeqa_fallbacks_total",)] == 2
    assert server.client.get("/ready").status_code == 200


def test_the_fallback_answers_when_a_stream_is_cut_off_before_it_said_anything(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    script(language_model, "cut at once")
    server = serve(make_settings(language_model, reader={"fallback": "extractive"}))
    completed = server.events("When does water boil?")[-2]
    assert completed.data["response"]["custom_outputs"]["reader"] == "extractive"


def test_a_model_that_is_cut_off_in_the_middle_is_not_replaced_by_the_fallback(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    language_model.fills(
        {"answer": "It boils at 100 [1]. " * 20, "answerable": "True"}, chunk=5, cut_after=30
    )
    server = serve(make_settings(language_model, reader={"fallback": "extractive"}))
    *_, error, _ = server.events("When does water boil?")
    assert error.data["code"] == "language_model_failed"


def test_tokens_are_counted(serve: Any, make_settings: MakeSettings, language_model: Any) -> None:
    language_model.fills({"answer": "At 100 degrees [1].", "answerable": "True"})
    server = serve(make_settings(language_model))
    server.ask("When does water boil?")
    server.events("When does water boil?")
    metrics = server.metrics()
    assert metrics[("citeqa_tokens_total", "input")] == 22
    assert metrics[("citeqa_tokens_total", "output")] == 14
    assert metrics[("citeqa_time_to_first_token_seconds_count",)] == 1
    assert metrics[("citeqa_answer_seconds_count", "whole")] == 1
    assert metrics[("citeqa_answer_seconds_count", "stream")] == 1


# Whether the server says that it is ready


def test_a_model_that_keeps_failing_is_not_ready_and_says_why_until_it_answers_again(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    asked: list[str] = []
    health = ModelHealth(lambda: asked.append("ready?"))
    language_model.says("out of order", status=500)
    server = serve(make_settings(language_model), health=health)
    for _ in range(FAILURES_UNTIL_NOT_READY):
        assert server.client.get("/ready").json() == {
            "status": "ready",
            "reader": "openai/test",
            "trouble": [],
        }
        server.ask("When does water boil?")
    response = server.client.get("/ready")
    assert (response.status_code, response.json()["status"]) == (503, "not ready")
    assert "out of order" in response.json()["trouble"][0]
    assert server.client.get("/health").status_code == 200
    assert asked == [], "it has only just failed"

    language_model.forget()
    language_model.fills({"answer": "At 100 degrees [1].", "answerable": "True"})
    assert server.ask("When does water boil?").status_code == 200
    assert server.client.get("/ready").status_code == 200


def test_a_client_s_mistake_says_nothing_of_the_model(
    serve: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    server = serve(make_settings(language_model), health=ModelHealth(None))
    for _ in range(FAILURES_UNTIL_NOT_READY):
        assert server.ask("").status_code == 400
    assert server.client.get("/ready").status_code == 200


def test_a_model_that_failed_is_asked_again_when_a_while_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("program.serving.readiness.time.monotonic", lambda: now[0])
    outcomes: list[Exception | None] = [ValueError(f"still down, {SECRET}"), None]
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def probe() -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    health = ModelHealth(probe)
    for _ in range(FAILURES_UNTIL_NOT_READY):
        assert health.trouble() == ""
        health.note("down")
    assert health.trouble() == "down"
    now[0] += CHECK_AGAIN_AFTER_S
    assert health.trouble() == "still down, $OPENAI_API_KEY"
    now[0] += CHECK_AGAIN_AFTER_S
    assert health.trouble() == ""
    assert outcomes == []


def test_an_index_without_a_passage_is_not_ready(serve: Any, tmp_path: Any) -> None:
    LocalIndex.build(tmp_path / "empty", [Document("https://docs.example/gone", "Gone.", "Gone")])
    LocalIndex.update(tmp_path / "empty", delete=["https://docs.example/gone"])
    server = serve(index=LocalIndex.open(tmp_path / "empty"))
    response = server.client.get("/ready")
    assert response.status_code == 503
    assert "holds no passage" in response.json()["trouble"][0]


def test_agent_info_names_an_agent_of_mlflow(plain: Any) -> None:
    info = plain.client.get("/agent/info").json()
    assert info["agent_api"] == "responses"
    assert plain.client.get("/health").json() == {"status": "healthy"}

"""Who leaves early stops the language model; who waits too long is told; a server that ends finishes what streams."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from program.citations import cite
from program.settings import Settings

LONG = "word " * 400


@pytest.fixture
def slow_model(language_model: Any) -> Any:
    """A model that takes seconds for its answer, a word each 5 ms."""
    language_model.fills({"answer": LONG, "answerable": "True"}, chunk=5, delay_s=0.005)
    return language_model


def test_a_client_that_leaves_in_the_middle_stops_the_language_model(
    serve: Any, make_settings: Callable[..., Settings], slow_model: Any
) -> None:
    server = serve(make_settings(slow_model))
    with server.client.stream("POST", "/responses", json={"input": "water?", "stream": True}) as response:
        lines = response.iter_lines()
        while "delta" not in next(lines):
            pass
    assert slow_model.wait_for_hang_up()
    assert slow_model.deltas_sent < 100
    server.wait_for_metric("citeqa_failures_total", "cancelled", value=1)
    server.wait_for_metric("citeqa_in_flight", value=0)


def test_a_deadline_before_the_first_text_is_a_status(
    serve: Any, make_settings: Callable[..., Settings], language_model: Any
) -> None:
    language_model.fills({"answer": "late", "answerable": "True"}, delay_s=0.5)
    server = serve(make_settings(language_model), serving={"deadline_s": 0.2})
    for stream in (False, True):
        response = server.ask("water?", stream=stream)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        assert response.json()["error_code"] == "DEADLINE_EXCEEDED"
        assert "0.2 seconds" in response.json()["message"]


def test_a_deadline_after_the_first_text_is_an_error_event_and_stops_the_model(
    serve: Any, make_settings: Callable[..., Settings], slow_model: Any
) -> None:
    server = serve(make_settings(slow_model), serving={"deadline_s": 0.6})
    *events, error, done = server.events("water?")
    assert done.data == "[DONE]"
    assert (error.name, error.type, error.data["code"]) == ("error", "error", "deadline_exceeded")
    assert error.data["sequence_number"] == len(events)
    assert error.data["databricks_output"]["error"]["error_code"] == "DEADLINE_EXCEEDED"
    assert any(event.type == "response.output_text.delta" for event in events)
    assert slow_model.wait_for_hang_up()
    assert slow_model.deltas_sent < 300


def test_the_deadline_counts_the_wait_in_the_queue(serve: Any, gate: Any) -> None:
    server = serve(gate, serving={"max_concurrent": 1, "deadline_s": 0.3})
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(server.ask, ["a", "b"]))
    assert [answer.status_code for answer in answers] == [504, 504]
    assert gate.entered == 1
    gate.let()
    server.wait_for_metric("citeqa_in_flight", value=0)


def test_every_stream_that_meets_its_deadline_says_so_whatever_it_was_doing(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def chatter(turn: Any, emit: Any = None) -> Any:
        def words() -> Any:
            while True:
                time.sleep(0.0005)
                yield "word "

        return cite(words(), [], reader="endless", query=turn.question, emit=emit)

    server = serve(chatter, serving={"max_concurrent": 8, "deadline_s": 0.15})
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda _: server.events("go on"), range(64)))
    endings = {(stream[-2].data.get("code"), stream[-1].data) for stream in streams}
    assert endings == {("deadline_exceeded", "[DONE]")}
    for *events, _ in streams:
        assert [event.data["sequence_number"] for event in events] == list(range(len(events)))
    assert caplog.text == ""
    server.wait_for_metric("citeqa_in_flight", value=0)


def test_clients_that_leave_at_any_moment_leave_nothing_behind(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def chatter(turn: Any, emit: Any = None) -> Any:
        words = iter("word " * 100)
        return cite((time.sleep(0.0001) or word for word in words), [], reader="r", query="q", emit=emit)

    server = serve(chatter, serving={"max_concurrent": 4, "max_queued": 100})
    threads = threading.active_count()

    def leave_after(milliseconds: int) -> None:
        body = {"input": "go on", "stream": bool(milliseconds % 3)}
        timeout_s = (milliseconds + 1) / 1000
        with (
            suppress(httpx.TimeoutException),
            server.client.stream("POST", "/responses", json=body, timeout=timeout_s) as response,
        ):
            for _ in zip(range(milliseconds), response.iter_lines(), strict=False):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave_after, range(80)))
    server.wait_for_metric("citeqa_in_flight", value=0)
    assert server.metrics()[("citeqa_queued",)] == 0
    assert server.ask("still there").status_code == 200
    assert caplog.text == ""
    assert threading.active_count() <= threads + 4 + 40, "the workers, and those of the framework"


def test_a_stream_that_was_begun_without_text_tells_a_failure_inside(
    serve: Any, make_settings: Callable[..., Settings], language_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("program.serving.endpoint.HEADERS_AFTER_S", 0.05)
    monkeypatch.setattr("program.serving.endpoint.KEEP_ALIVE_S", 0.05)
    language_model.fills({"answer": "late", "answerable": "True"}, delay_s=1)
    server = serve(make_settings(language_model, language_model={"timeout_s": 0.5}))
    response = server.ask("water?", stream=True)
    assert response.status_code == 200
    assert ": still there\n\n" in response.text
    *_, error, done = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert done == "data: [DONE]"
    assert json.loads(error.partition("data: ")[2])["code"] == "language_model_timeout"

"""Who is answered, who waits and who is sent away; and that health checks answer all the while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.serving.admission import Admission
from program.serving.failures import RequestFailedError


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def queued(server: Any) -> float:
    return float(server.metrics()[("citeqa_queued",)])


def ask_in_turn(server: Any, pool: ThreadPoolExecutor, gate: Any, names: str) -> list[Future[httpx.Response]]:
    """A request for each name, each sent when the one before has been begun or waits in the queue."""
    answers = []
    for name in names:
        before = gate.entered + queued(server)
        answers.append(pool.submit(server.ask, name))
        while gate.entered + queued(server) == before:
            time.sleep(0.005)
    return answers


def test_beyond_the_places_and_the_queue_a_request_is_sent_away_with_when_to_come_back(
    serve: Any, gate: Any, pool: ThreadPoolExecutor
) -> None:
    server = serve(gate, serving={"max_concurrent": 2, "max_queued": 1})
    accepted = ask_in_turn(server, pool, gate, "abc")
    for stream in (False, True):
        refused = server.ask("d", stream=stream)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    metrics = server.metrics()
    assert (metrics[("citeqa_in_flight",)], metrics[("citeqa_queued",)]) == (2, 1)
    assert metrics[("citeqa_failures_total", "overloaded")] == 2
    assert metrics[("citeqa_requests_total", "/responses", "429")] == 2
    gate.let(3)
    assert [answer.result().status_code for answer in accepted] == [200] * 3
    assert sorted(gate.questions) == ["a", "b", "c"]
    server.wait_for_metric("citeqa_in_flight", value=0)


def test_those_who_wait_are_answered_in_the_order_they_came(
    serve: Any, gate: Any, pool: ThreadPoolExecutor
) -> None:
    server = serve(gate, serving={"max_concurrent": 1, "max_queued": 8})
    answers = ask_in_turn(server, pool, gate, "abcdefgh")
    for number in range(1, 9):
        gate.wait_for_entries(number)
        gate.let()
    assert [answer.result().status_code for answer in answers] == [200] * 8
    assert gate.questions == list("abcdefgh")


def test_a_request_that_waits_too_long_is_sent_away(serve: Any, gate: Any, pool: ThreadPoolExecutor) -> None:
    server = serve(gate, serving={"max_concurrent": 1, "queue_timeout_s": 0.05})
    [first] = ask_in_turn(server, pool, gate, "a")
    refused = server.ask("b")
    assert refused.status_code == 429
    assert "retry-after" in refused.headers
    gate.let(2)
    assert first.result().status_code == 200
    assert server.ask("c").status_code == 200
    assert gate.questions == ["a", "c"]


def test_a_place_is_free_when_its_worker_has_ended_not_when_its_client_has_left(
    serve: Any, gate: Any
) -> None:
    server = serve(gate, serving={"max_concurrent": 1, "max_queued": 0})
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/responses", json={"input": "a"}, timeout=0.2)
    server.wait_for_metric("citeqa_failures_total", "cancelled", value=1)
    assert server.metrics()[("citeqa_in_flight",)] == 1
    assert server.ask("b").status_code == 429
    gate.let(2)
    server.wait_for_metric("citeqa_in_flight", value=0)
    assert server.ask("c").status_code == 200


def test_a_client_that_leaves_while_it_waits_takes_no_place(
    serve: Any, gate: Any, pool: ThreadPoolExecutor
) -> None:
    server = serve(gate, serving={"max_concurrent": 1})
    [first] = ask_in_turn(server, pool, gate, "a")
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/responses", json={"input": "left"}, timeout=0.2)
    server.wait_for_metric("citeqa_queued", value=0)
    gate.let(2)
    assert first.result().status_code == 200
    assert server.ask("b").status_code == 200
    assert gate.questions == ["a", "b"]


def test_health_and_metrics_answer_while_every_worker_is_busy_and_the_queue_is_full(
    serve: Any, gate: Any, pool: ThreadPoolExecutor
) -> None:
    server = serve(gate, serving={"max_concurrent": 2, "max_queued": 2})
    answers = ask_in_turn(server, pool, gate, "abcd")
    for path in ("/health", "/ready", "/metrics", "/"):
        started = time.monotonic()
        assert server.client.get(path).status_code == 200
        assert time.monotonic() - started < 1
    assert not any(answer.done() for answer in answers)
    gate.let(4)
    assert [answer.result().status_code for answer in answers] == [200] * 4


def test_a_bad_request_is_refused_at_once_however_full_the_server_is(
    serve: Any, gate: Any, pool: ThreadPoolExecutor
) -> None:
    server = serve(gate, serving={"max_concurrent": 1, "max_queued": 0})
    [first] = ask_in_turn(server, pool, gate, "a")
    assert server.ask("").status_code == 400
    gate.let()
    assert first.result().status_code == 200


def test_never_are_more_answers_under_way_than_there_are_places(
    serve: Any, answerer: Callable[..., Any], pool: ThreadPoolExecutor
) -> None:
    lock = threading.Lock()
    running = [0, 0]

    def count(turn: Any, emit: Any = None) -> Any:
        with lock:
            running[0] += 1
            running[1] = max(running)
        try:
            return answerer(turn, emit)
        finally:
            with lock:
                running[0] -= 1

    server = serve(count, serving={"max_concurrent": 3, "max_queued": 64})
    answers = list(pool.map(lambda n: server.ask(f"q{n}", stream=bool(n % 2)), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert running[1] <= 3
    server.wait_for_metric("citeqa_in_flight", value=0)


@given(
    slots=st.integers(1, 4),
    queue_length=st.integers(0, 4),
    steps=st.lists(st.sampled_from(["enter", "leave", "abandon"]), max_size=40),
)
def test_places_and_queue_keep_their_bounds_whatever_happens(
    slots: int, queue_length: int, steps: list[str]
) -> None:
    async def check() -> None:
        admission = Admission(slots, queue_length, 30)
        inside, waiting = 0, []
        for step in steps:
            if step == "enter":
                task = asyncio.create_task(admission.enter())
                await settle()
                if not task.done():
                    waiting.append(task)
                elif (error := task.exception()) is None:
                    inside += 1
                else:
                    assert isinstance(error, RequestFailedError)
                    assert error.failure.status == 429
                    assert (inside, len(waiting)) == (slots, queue_length)
            elif step == "leave" and inside:
                admission.leave(0.1)
                await settle()
                inside -= 1
                if waiting:
                    assert waiting.pop(0).done(), "the longest in the queue is the next"
                    inside += 1
            elif step == "abandon" and waiting:
                waiting.pop().cancel()
                await settle()
            assert (admission.in_flight, admission.queued) == (inside, len(waiting))
            assert inside <= slots
            assert len(waiting) <= queue_length
            assert not waiting or inside == slots, "nobody waits while there is a place"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(check())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)

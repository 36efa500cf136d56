"""What a person says of an answer lands on its trace in a real store, and the way to that trace."""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
import pytest

from program.serving import feedback, mlflow_pages
from program.serving.failures import RequestFailedError
from program.serving.feedback import FEEDBACK_NAME
from program.serving.mlflow_pages import MlflowPages

ASK_TRACE = {"x-mlflow-return-trace-id": "true"}


@pytest.fixture
def tracing_off() -> None:
    """Here it stays on."""


def answer(server: Any) -> str:
    """The trace id of a new answer, whose trace may be on its way."""
    trace_id: str = server.ask(headers=ASK_TRACE).json()["metadata"]["trace_id"]
    return trace_id


def send(server: Any, **said: Any) -> httpx.Response:
    # As JSON in ASCII: httpx itself would not send half an emoji.
    response: httpx.Response = server.client.post(
        "/api/feedback", content=json.dumps(said).encode(), headers={"content-type": "application/json"}
    )
    return response


def current(traced: Any, trace_id: str) -> list[Any]:
    """The feedback on a trace that counts: of what was changed, the last."""
    return [said for said in traced.store.trace(trace_id).info.assessments if said.valid is not False]


def test_a_thumb_and_a_comment_land_on_the_trace_while_it_is_on_its_way(traced: Any) -> None:
    server = traced.serve()
    trace_id = answer(server)
    assert traced.recorder.is_pending(trace_id), "or this tests nothing"
    response = send(server, trace_id=trace_id, value=True, comment="とても良い 😀")
    assert response.status_code == 200, response.text
    [said] = current(traced, trace_id)
    assert said.assessment_id == response.json()["assessment_id"]
    assert (said.name, said.feedback.value, said.rationale) == (FEEDBACK_NAME, True, "とても良い 😀")
    assert said.name == "user_feedback"
    assert said.source.source_type == "HUMAN"
    assert server.metrics()[("citeqa_feedback_total", "up")] == 1


def test_a_changed_mind_takes_the_place_of_what_was_said(traced: Any) -> None:
    server = traced.serve()
    trace_id = answer(server)
    first = send(server, trace_id=trace_id, value=True).json()["assessment_id"]
    second = send(server, trace_id=trace_id, value=False, comment="On reflection.", assessment_id=first)
    assert second.status_code == 200, second.text
    [said] = current(traced, trace_id)
    assert (said.name, said.feedback.value, said.rationale) == (FEEDBACK_NAME, False, "On reflection.")
    assert said.assessment_id == second.json()["assessment_id"]
    third = send(server, trace_id=trace_id, value=True, assessment_id=said.assessment_id)
    assert third.status_code == 200, third.text
    assert [said.feedback.value for said in current(traced, trace_id)] == [True]


def test_half_an_emoji_in_a_comment_becomes_the_replacement_character(traced: Any) -> None:
    server = traced.serve()
    trace_id = answer(server)
    response = send(server, trace_id=trace_id, value=False, comment="cut \ud83d off")
    assert response.status_code == 200, response.text
    assert [said.rationale for said in current(traced, trace_id)] == ["cut \ufffd off"]


def test_an_empty_comment_is_none(traced: Any) -> None:
    server = traced.serve()
    trace_id = answer(server)
    assert send(server, trace_id=trace_id, value=False, comment="").status_code == 200
    assert [said.rationale for said in current(traced, trace_id)] == [None]


@pytest.mark.parametrize("trace_id", ["tr-0123456789abcdef0123456789abcdef", "x", "\x00", "'; --", "é"])
def test_feedback_on_an_unknown_trace_is_not_found(traced: Any, trace_id: str) -> None:
    response = send(traced.serve(), trace_id=trace_id, value=True)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "trace_unknown")
    assert "\n" not in response.json()["message"]


def test_feedback_in_the_place_of_one_that_is_not_there_is_not_found(traced: Any) -> None:
    server = traced.serve()
    response = send(server, trace_id=answer(server), value=True, assessment_id="a-unknown")
    assert response.status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"trace_id": "tr-1"},
        {"value": True},
        {"trace_id": "", "value": True},
        {"trace_id": "tr-1", "value": "perhaps"},
        {"trace_id": "tr-1", "value": None},
        {"trace_id": 1, "value": True},
        {"trace_id": "tr-1", "value": True, "comment": 7},
        {"trace_id": "tr-1", "value": True, "comment": "x" * 10_001},
        {"trace_id": "x" * 129, "value": True},
        {"trace_id": "tr-1", "value": True, "other": 1},
    ],
)
def test_feedback_that_is_none_is_a_bad_request(traced: Any, said: dict[str, Any]) -> None:
    response = send(traced.serve(), **said)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


def test_feedback_on_a_trace_that_does_not_arrive_is_to_be_tried_again(
    traced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "_PENDING_TIMEOUT_S", 0.1)
    server = traced.serve()
    monkeypatch.setitem(traced.recorder._pending, "tr-waits", 0)
    response = send(server, trace_id="tr-waits", value=True)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "trace_pending")
    assert int(response.headers["retry-after"]) >= 1


def test_feedback_that_the_store_does_not_take_is_to_be_tried_again(
    traced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "_FIRST_PAUSE_S", 0.01)
    server = traced.serve()
    trace_id = answer(server)
    assert send(server, trace_id=trace_id, value=True).status_code == 200
    traced.store.execute("ALTER TABLE assessments RENAME TO assessments_gone")
    try:
        response = send(server, trace_id=trace_id, value=True)
    finally:
        traced.store.execute("ALTER TABLE assessments_gone RENAME TO assessments")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_failed")
    assert "not kept" in response.json()["message"]


def test_a_server_without_traces_takes_no_feedback(serve: Any) -> None:
    server = serve()
    response = send(server, trace_id="tr-1", value=True)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "tracing_off")
    link = server.client.get("/api/trace-link?trace_id=tr-1")
    assert (link.status_code, link.json()["error"]["code"]) == (503, "tracing_off")


# Where MLflow shows a trace


def test_a_tracking_server_is_where_its_traces_are_shown() -> None:
    pages = MlflowPages("http://mlflow.example/", "7", address=None, may_start=True)
    assert pages.link("tr-1/&x") == (
        "http://mlflow.example/#/experiments/7/traces?selectedEvaluationId=tr-1%2F%26x"
    )
    pages = MlflowPages("sqlite:///x.db", "7", address="http://pages.example", may_start=False)
    assert pages.link("tr-1").startswith("http://pages.example/#/experiments/7/")


def test_where_no_pages_may_be_started_the_command_is_told(serve: Any) -> None:
    pages = MlflowPages("sqlite:///x.db", "7", address=None, may_start=False)
    response = serve(pages=pages).client.get("/api/trace-link?trace_id=tr-1")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_pages")
    assert "mlflow ui --backend-store-uri sqlite:///x.db" in response.json()["message"]


def test_pages_that_do_not_start_are_ended_and_the_command_is_told_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(mlflow_pages, "_START_S", 0)
    pages = MlflowPages(f"sqlite:///{tmp_path}/x.db", "7", address=None, may_start=True)
    for _ in range(2):
        with pytest.raises(RequestFailedError, match="Run: mlflow ui"):
            pages.link("tr-1")
    pages.stop()


@pytest.mark.slow
def test_mlflows_pages_are_started_show_the_trace_and_end_with_the_server(
    traced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a person who runs .venv/bin/citeqa without having activated the environment.
    monkeypatch.setenv("PATH", os.defpath)
    pages = MlflowPages(traced.store.uri, traced.store.experiment_id, address=None, may_start=True)
    server = traced.serve(pages=pages)
    trace_id = answer(server)
    response = server.client.get(f"/api/trace-link?trace_id={trace_id}", timeout=90)
    assert response.status_code == 200, response.text
    url = httpx.URL(response.json()["url"])
    assert url.host == "127.0.0.1"
    assert trace_id in url.fragment
    address = str(url.copy_with(fragment=None))
    assert "<html" in httpx.get(address).text
    assert (
        httpx.get(f"{address}api/3.0/mlflow/traces/{trace_id}").json()["trace"]["trace_info"]["trace_id"]
        == trace_id
    )
    again = server.client.get(f"/api/trace-link?trace_id={trace_id}")
    assert again.json() == response.json(), "not started twice"
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)

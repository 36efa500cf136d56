"""Every answer leaves one trace in a real SQLite store, or is counted as one that did not."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, TraceState
from mlflow.tracing.trace_manager import InMemoryTraceManager

from program.serving.run import _record
from program.serving.trace_spool import TraceSpool, abandoned_spools, spool_line
from program.settings import Settings

ASK_TRACE = {"x-mlflow-return-trace-id": "true"}
SECRET = "sk-canary-0123456789"
MakeSettings = Callable[..., Settings]


@pytest.fixture
def tracing_off() -> None:
    """Here it stays on."""


def settle(recorder: Any) -> None:
    """Wait until no trace is on its way."""
    deadline = time.monotonic() + 60
    while recorder.pending:
        assert time.monotonic() < deadline, f"{recorder.pending} traces are still on their way"
        time.sleep(0.01)


def in_memory() -> int:
    return len(InMemoryTraceManager.get_instance()._traces)


def trace_of(traced: Any, request_id: str) -> Any:
    """The one trace of a request, once it is in the store."""
    settle(traced.recorder)
    [trace_id] = traced.store.ids(request_id)
    return traced.store.trace(trace_id)


def said_in(trace: Any) -> str:
    text: str = trace.data.spans[0].outputs["output"][0]["content"][0]["text"]
    return text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_one_trace_of_an_agent_that_retrieves(traced: Any, stream: bool) -> None:
    server = traced.serve()
    response = server.ask(
        "When?",
        stream=stream,
        context={"conversation_id": "c-1", "user_id": "ann"},
        headers={"x-request-id": f"one-{stream}"},
    )
    assert response.status_code == 200
    trace = trace_of(traced, f"one-{stream}")
    assert trace.info.state == TraceState.OK
    agent, retriever = trace.data.spans
    assert (agent.span_type, agent.parent_id) == (SpanType.AGENT, None)
    assert agent.name == ("predict_stream" if stream else "predict")
    assert (retriever.span_type, retriever.parent_id) == (SpanType.RETRIEVER, agent.span_id)
    assert retriever.outputs[0]["metadata"]["doc_uri"].startswith("https://docs.example/")
    assert agent.inputs["input"] == [{"type": "message", "role": "user", "content": "When?"}]
    assert said_in(trace) == "When? said [1]."
    assert json.loads(trace.info.tags["retrievers"])[0]["doc_uri"] == "doc_uri"
    metadata = trace.info.trace_metadata
    assert (metadata["mlflow.trace.session"], metadata["mlflow.trace.user"]) == ("c-1", "ann")


@pytest.mark.parametrize("stream", [False, True])
def test_our_program_with_a_model_is_one_trace_as_well(
    traced: Any, make_settings: MakeSettings, language_model: Any, stream: bool
) -> None:
    language_model.fills({"answer": "At 100 degrees [1].", "answerable": "True"})
    server = traced.serve(make_settings(language_model))
    server.ask("When?", stream=stream, headers={"x-request-id": f"lm-{stream}"})
    trace = trace_of(traced, f"lm-{stream}")
    agents = [span for span in trace.data.spans if span.span_type == SpanType.AGENT]
    [retriever] = trace.search_spans(span_type=SpanType.RETRIEVER)
    assert [agent.parent_id for agent in agents] == [None]
    assert retriever.parent_id in {span.span_id for span in trace.data.spans}
    assert SECRET not in trace.to_json()


def test_the_trace_id_is_told_when_it_is_asked_for_and_not_otherwise(traced: Any) -> None:
    server = traced.serve()
    whole = server.ask(headers=ASK_TRACE)
    trace_id = whole.json()["metadata"]["trace_id"]
    assert whole.headers["x-mlflow-trace-id"] == trace_id
    *_, completed, told, done = server.events(headers=ASK_TRACE)
    assert told.data == {"trace_id": completed.data["response"]["metadata"]["trace_id"]}
    assert done.data == "[DONE]"
    settle(traced.recorder)
    assert {trace_id, told.data["trace_id"]} <= set(traced.store.ids())

    for headers in ({}, {"x-mlflow-return-trace-id": "false"}):
        silent = server.ask(headers=headers)
        assert silent.json()["metadata"] == {}
        assert "x-mlflow-trace-id" not in silent.headers
        streamed = server.ask(stream=True, headers=headers)
        assert "tr-" not in streamed.text


def test_what_a_client_said_and_heard_before_it_left_is_on_a_trace_that_says_cancelled(
    traced: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    language_model.fills({"answer": "word " * 400, "answerable": "True"}, chunk=5, delay_s=0.005)
    server = traced.serve(make_settings(language_model))
    heard = ""
    with server.client.stream(
        "POST", "/responses", json={"input": "go", "stream": True}, headers={"x-request-id": "left"}
    ) as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and "output_text.delta" in line:
                heard += json.loads(line.removeprefix("data: "))["delta"]
            if len(heard) > 20:
                break
    assert language_model.wait_for_hang_up()
    server.wait_for_metric("citeqa_in_flight", value=0)
    trace = trace_of(traced, "left")
    assert trace.info.state == TraceState.ERROR
    root = trace.data.spans[0]
    assert "cancelled: the client left" in root.status.description
    assert said_in(trace).startswith(heard)
    assert len(said_in(trace)) < 1000
    assert trace.info.request_preview
    assert all(span.end_time_ns for span in trace.data.spans)


def test_an_answer_that_met_its_deadline_says_so_on_its_trace_and_in_the_stream(
    traced: Any, make_settings: MakeSettings, language_model: Any
) -> None:
    language_model.fills({"answer": "word " * 400, "answerable": "True"}, chunk=5, delay_s=0.005)
    server = traced.serve(make_settings(language_model), serving={"deadline_s": 0.4})
    *_, error, _ = server.events("go", headers={**ASK_TRACE, "x-request-id": "deadline"})
    server.wait_for_metric("citeqa_in_flight", value=0)
    trace = trace_of(traced, "deadline")
    assert error.data["trace_id"] == trace.info.trace_id
    assert "cancelled: the deadline passed" in trace.data.spans[0].status.description


def test_a_failure_is_on_its_trace_without_the_secret_that_the_model_repeated(
    traced: Any, make_settings: MakeSettings, language_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    language_model.says(f"Incorrect API key provided: {SECRET}", status=401)
    server = traced.serve(make_settings(language_model))
    for stream in (False, True):
        server.ask("When?", stream=stream, headers={"x-request-id": f"failed-{stream}"})
        trace = trace_of(traced, f"failed-{stream}")
        assert trace.info.state == TraceState.ERROR
        assert SECRET not in trace.to_json()
    assert SECRET.encode() not in traced.store.file.read_bytes()
    assert SECRET not in caplog.text


def test_odd_requests_are_traced_and_stored_like_others(traced: Any) -> None:
    server = traced.serve()
    refused = traced.recorder.counts.refused
    odd: list[dict[str, Any]] = [
        {"context": {"conversation_id": "c" * 20_000, "user_id": "\x00"}},
        {"custom_inputs": {"session_id": "\ud83d", "user_id": "山"}},
        {"metadata": {"a": 10**400, "\ud83d": "\ud83d\x00"}},
        {"temperature": 1e308, "max_output_tokens": 2**70},
        {"tools": [{"type": "x", "deep": [[[[[[[[{}]]]]]]]]}]},
    ]
    contents = [json.dumps({"input": "half \ud83d", **more}).encode() for more in odd]
    contents.append(b'{"input": "x", "temperature": 1e999, "user": "\\u0000"}')
    answers = [server.client.post("/responses", content=content, headers=ASK_TRACE) for content in contents]
    traced_ids = [answer.json()["metadata"]["trace_id"] for answer in answers if answer.status_code == 200]
    settle(traced.recorder)
    assert len(traced_ids) > 3
    assert set(traced_ids) <= set(traced.store.ids())
    assert traced.recorder.counts.refused == refused


def test_nothing_of_a_burst_is_lost_and_nothing_of_it_stays_in_memory(traced: Any) -> None:
    server = traced.serve(serving={"max_concurrent": 16, "max_queued": 500})
    stored, before = traced.recorder.counts.stored, len(traced.store.ids())
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.ask(f"q{n}", stream=n % 2 == 0), range(500)))
    assert {answer.status_code for answer in answers} == {200}
    settle(traced.recorder)
    assert len(traced.store.ids()) - before == 500
    assert traced.recorder.counts.stored - stored == 500
    metrics = server.metrics()
    assert metrics[("citeqa_traces", "stored")] == traced.recorder.counts.stored
    assert metrics[("citeqa_traces", "dropped")] == traced.recorder.counts.dropped == 0
    assert metrics[("citeqa_traces_pending",)] == 0
    assert in_memory() == 0


def test_a_writer_that_dies_is_started_again_and_each_trace_is_counted_once(
    traced: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = traced.serve()
    server.ask(headers={"x-request-id": "before"})
    trace_of(traced, "before")
    counts, before = traced.recorder.counts.stored, len(traced.store.ids())
    os.kill(traced.recorder._writer.pid, signal.SIGKILL)
    server.ask(headers={"x-request-id": "after"})
    trace_of(traced, "after")
    assert len(traced.store.ids()) - before == 1
    assert traced.recorder.counts.stored - counts == 1
    assert traced.recorder._spool._pending_bytes == 0
    assert "is started again" in caplog.text


def test_what_the_spool_has_no_room_for_is_dropped_counted_and_said(
    traced: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = traced.serve()
    before = len(traced.store.ids())
    monkeypatch.setattr(traced.recorder, "_last_logged_s", -1000.0)
    monkeypatch.setattr(traced.recorder.counts, "dropped", 0)
    with monkeypatch.context() as full:
        full.setattr(traced.recorder._spool, "_max_bytes", 10)
        assert server.ask().status_code == 200
        assert server.ask(stream=True).status_code == 200
        server.wait_for_metric("citeqa_traces", "dropped", value=2)
    assert traced.recorder.pending == 0
    assert "dropped" in caplog.text
    assert in_memory() == 0
    server.ask(headers={"x-request-id": "room-again"})
    trace_of(traced, "room-again")
    assert len(traced.store.ids()) - before == 1


def test_a_spool_has_room_again_for_what_was_written(tmp_path: Path, traced: Any) -> None:
    trace_id = traced.serve().ask(headers=ASK_TRACE).json()["metadata"]["trace_id"]
    settle(traced.recorder)
    trace = traced.store.trace(trace_id)
    line = spool_line(trace)
    spool = TraceSpool(tmp_path / "spool", len(line) * 5 // 2)
    try:
        assert [spool.append(line) for _ in range(3)] == [True, True, False]
        spool.written(len(line))
        assert [spool.append(line) for _ in range(2)] == [True, False]
    finally:
        spool.close()
        spool.leave(is_empty=False)


def test_a_closed_spool_takes_no_trace_and_stays_this_servers_until_it_is_left(tmp_path: Path) -> None:
    spool = TraceSpool(tmp_path, 1000)
    assert spool.append(b"{}\n")
    spool.close()
    assert not spool.append(b"{}\n"), "a trace that ends too late is counted as dropped, and raises nothing"
    assert list(abandoned_spools(tmp_path)) == [], "its own writer may still be reading"
    spool.leave(is_empty=False)
    assert list(abandoned_spools(tmp_path)) == [spool.path]


def test_a_spool_whose_traces_have_all_arrived_is_removed_when_it_is_left(tmp_path: Path) -> None:
    spool = TraceSpool(tmp_path, 1000)
    assert spool.append(b"{}\n")
    spool.close()
    spool.leave(is_empty=True)
    assert list(tmp_path.iterdir()) == []


# With a recorder of their own


def test_traces_wait_while_the_store_is_out_of_order_and_one_that_it_refuses_costs_no_other(
    make_store: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store()
    store.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON trace_info WHEN NEW.client_request_id = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    )
    with store.recording() as recorder:
        server = serve(recorder=recorder)
        server.ask("first")
        settle(recorder)
        store.execute("ALTER TABLE experiments RENAME TO experiments_gone")
        for request_id in ("good", "bad", "good-too"):
            assert server.ask(headers={"x-request-id": request_id}).status_code == 200
        while "wait to be written" not in caplog.text:
            time.sleep(0.01)
        assert recorder.pending == 3
        store.execute("ALTER TABLE experiments_gone RENAME TO experiments")
        settle(recorder)
        assert (recorder.counts.stored, recorder.counts.refused) == (3, 1)
        server.wait_for_metric("citeqa_traces", "refused", value=1)
        assert len(store.ids()) == 3
        recorder.stop(60)
    [refused] = store.spools.glob("*/refused.jsonl")
    record = json.loads(refused.read_text(encoding="utf-8"))
    assert record["reason"]
    assert json.loads(record["trace"])["info"]["client_request_id"] == "bad"
    assert list(refused.parent.glob("0*.jsonl")) == [], "nothing else is left"


def test_a_sample_is_of_whole_traces(make_store: Any, serve: Any) -> None:
    store = make_store()
    with store.recording(sample_rate=0.5) as recorder:
        server = serve(recorder=recorder)
        told = [server.ask(headers=ASK_TRACE).json()["metadata"].get("trace_id") for _ in range(40)]
        told += [server.events(headers=ASK_TRACE)[-2].data.get("trace_id") for _ in range(40)]
        settle(recorder)
        ids = set(store.ids())
        assert 0 < len(ids) < 80
        assert ids == set(told) - {None}
        assert {len(store.trace(trace_id).data.spans) for trace_id in ids} == {2}
        assert in_memory() == 0


def test_a_sample_of_none_records_nothing(make_settings: MakeSettings, make_store: Any) -> None:
    store = make_store()
    settings = make_settings(serving={"trace_sample_rate": 0, "trace_spool": str(store.spools)})
    mlflow.tracing.enable()
    assert _record(settings, store.experiment_id) is None
    with mlflow.start_span("nothing") as span:
        assert span.trace_id in (None, "MLFLOW_NO_OP_SPAN_TRACE_ID")
    assert not store.spools.exists()

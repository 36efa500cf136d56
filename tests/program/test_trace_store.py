"""Many traces into the tracking store at once: whole, linked to their run, few transactions, none lost."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from mlflow.entities import AssessmentSource, Feedback, Trace, TraceState
from mlflow.entities.trace_location import MlflowExperimentLocation
from mlflow.tracing.client import TracingClient

from eval.evidence import retrieved_documents
from eval.traces import collect_traces
from program.trace_store import BATCH_SIZE, GIVE_UP_AFTER, WriteReport, write_traces
from retrieval.errors import StorageError
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

# Both are mlflow's own, when parts of it are first imported: its type hints, and its use of SQLAlchemy 2.1.


class OneDocument:
    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return [Passage(chunk_id="c1", doc_uri="https://docs/日本", text=query)]


@mlflow.trace
def answer(question: str) -> str:
    mlflow.update_current_trace(tags={"lang": "en"}, session_id="session", user="user")
    traced_search(OneDocument(), question, 3)
    if question == "unlucky":
        raise RuntimeError("no idea")
    return f"about {question}"


def collect(*questions: str) -> list[Trace]:
    with collect_traces() as collector:
        return [trace for question in questions for trace in collector.call(answer, question).traces]


@pytest.fixture(autouse=True)
def traced(nothing_outlives_a_test: None) -> None:
    mlflow.tracing.enable()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        yield path
    mlflow.tracing.reset()


@pytest.fixture
def experiment(database: Path, request: pytest.FixtureRequest) -> str:
    return str(
        mlflow.create_experiment(request.node.name, artifact_location=str(database.parent / "artifacts"))
    )


def stored(experiment: str, **search: str) -> list[Trace]:
    return mlflow.search_traces(locations=[experiment], return_type="list", max_results=5000, **search)


def test_a_stored_trace_is_the_trace_that_was_collected(experiment: str) -> None:
    (trace,) = collect("tides")
    assert write_traces([trace], experiment_id=experiment) == WriteReport(written=1)
    (found,) = stored(experiment)
    assert found.data.to_dict() == trace.data.to_dict()
    assert retrieved_documents(found) == retrieved_documents(trace)
    assert (found.info.trace_id, found.info.state) == (trace.info.trace_id, TraceState.OK)
    assert found.info.request_preview == trace.info.request_preview == '{"question": "tides"}'
    assert found.info.execution_duration == pytest.approx(trace.info.execution_duration, abs=1)
    assert found.info.tags["lang"] == "en"
    assert mlflow.get_trace(trace.info.trace_id).data.to_dict() == trace.data.to_dict()


def test_a_stored_trace_has_all_that_mlflow_itself_would_have_stored(experiment: str) -> None:
    mlflow.tracing.set_destination(MlflowExperimentLocation(experiment))
    answer("tides")
    mlflow.flush_trace_async_logging()
    mlflow.tracing.reset()
    (native,) = stored(experiment)
    (trace,) = collect("tides")
    write_traces([trace], experiment_id=experiment)
    ours = next(found for found in stored(experiment) if found.info.trace_id == trace.info.trace_id)
    # Statistics of its size are all that is missing; nothing in MLflow reads them back.
    assert {key for key in native.info.trace_metadata if "size" not in key} == set(ours.info.trace_metadata)
    assert set(native.info.tags) == set(ours.info.tags)
    for key in ("mlflow.trace.session", "mlflow.trace.user", "mlflow.traceInputs", "mlflow.traceOutputs"):
        assert native.info.trace_metadata[key] == ours.info.trace_metadata[key]
    assert [span.name for span in native.data.spans] == [span.name for span in ours.data.spans]


def test_a_failed_question_is_stored_as_failed_and_an_unfinished_trace_is_stored_too(experiment: str) -> None:
    kept_alive = []

    def leave_open() -> None:
        kept_alive.append(mlflow.start_span("stream"))
        kept_alive[-1].__enter__()

    with collect_traces() as collector:
        (unfinished,) = collector.call(leave_open).traces
    (failed,) = collect("unlucky")
    assert write_traces([unfinished, failed], experiment_id=experiment).written == 2
    states = {trace.info.trace_id: trace.info.state for trace in stored(experiment)}
    assert states[failed.info.trace_id] == TraceState.ERROR
    assert unfinished.info.trace_id in states


def test_traces_are_found_by_their_run_and_the_given_ones_stay_unchanged(experiment: str) -> None:
    with mlflow.start_run(experiment_id=experiment) as run:
        pass
    mine, others = collect("mine"), collect("others")
    before = mine[0].to_json()
    write_traces(mine, experiment_id=experiment, run_id=run.info.run_id)
    write_traces(others, experiment_id=experiment)
    assert [trace.info.trace_id for trace in stored(experiment, run_id=run.info.run_id)] == [
        mine[0].info.trace_id
    ]
    assert mine[0].to_json() == before


def test_assessments_go_with_their_trace(experiment: str) -> None:
    (trace,) = collect("tides")
    source = AssessmentSource(source_type="CODE", source_id="citeqa")
    trace.info.assessments.append(Feedback(name="recall@5", value=0.5, source=source))
    write_traces([trace], experiment_id=experiment)
    (found,) = stored(experiment)
    assert [(a.name, a.value) for a in found.info.assessments] == [("recall@5", 0.5)]


def test_a_trace_that_came_through_a_file_is_stored_like_one_from_memory(experiment: str) -> None:
    (trace,) = collect("tides")
    write_traces([Trace.from_json(trace.to_json())], experiment_id=experiment)
    (found,) = stored(experiment)
    assert found.data.to_dict() == trace.data.to_dict()
    assert found.info.tags["lang"] == "en"


def test_the_same_call_again_writes_only_what_is_missing(experiment: str) -> None:
    traces = collect("a", "b", "c")
    write_traces(traces[:2], experiment_id=experiment)
    assert write_traces([*traces, traces[2]], experiment_id=experiment) == WriteReport(written=1, present=2)
    assert len(stored(experiment)) == 3
    assert write_traces([], experiment_id=experiment) == WriteReport()


def test_hundreds_of_traces_take_a_handful_of_write_transactions(experiment: str) -> None:
    traces = collect(*(f"question {number}" for number in range(2 * BATCH_SIZE + 1)))
    written: list[bool] = []
    engine = TracingClient().store.engine

    def count(connection: sqlalchemy.Connection) -> None:
        written.append(connection.connection.dbapi_connection.total_changes > 0)

    sqlalchemy.event.listen(engine, "commit", count)
    try:
        assert write_traces(traces, experiment_id=experiment) == WriteReport(written=len(traces))
    finally:
        sqlalchemy.event.remove(engine, "commit", count)
    assert len(written) < 20
    assert {trace.info.trace_id for trace in stored(experiment)} == {trace.info.trace_id for trace in traces}


def test_several_threads_may_write_at_once(experiment: str) -> None:
    batches = [collect(*(f"{name}{number}" for number in range(20))) for name in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda batch: write_traces(batch, experiment_id=experiment), batches))
    assert sum(report.written for report in reports) == len(stored(experiment)) == 80


def test_a_trace_that_the_store_refuses_is_reported_and_costs_no_other(experiment: str) -> None:
    good, bad, also_good = collect("a", "b", "c")
    bad.info.tags["mlflow.traceName"] = "x" * 10_000
    report = write_traces([good, bad, also_good], experiment_id=experiment)
    assert (report.written, set(report.failed)) == (2, {bad.info.trace_id})
    assert report.singly.startswith("a batch was refused")
    assert {trace.info.trace_id for trace in stored(experiment)} == {
        good.info.trace_id,
        also_good.info.trace_id,
    }


def test_traces_that_another_process_writes_meanwhile_do_no_harm(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = collect("a", "b", "c")
    write_traces(traces[1:2], experiment_id=experiment)
    # The other process is quicker: its trace was not there yet when we looked.
    monkeypatch.setattr("program.trace_store._stored_ids", lambda client, traces: set())
    report = write_traces(traces, experiment_id=experiment)
    assert report.written == 3
    assert "UNIQUE constraint failed" in report.singly
    found = {trace.info.trace_id: trace for trace in stored(experiment)}
    assert {id_: trace.data.to_dict() for id_, trace in found.items()} == {
        trace.info.trace_id: trace.data.to_dict() for trace in traces
    }
    assert all(trace.info.tags["lang"] == "en" for trace in found.values())


def test_a_read_only_store_is_an_error_of_one_line_and_is_not_asked_for_ever(experiment: str) -> None:
    traces = collect(*(f"question {number}" for number in range(10)))
    with _read_only(TracingClient().store.engine), pytest.raises(StorageError) as refused:
        write_traces(traces, experiment_id=experiment)
    assert "refused all 10 traces: " in str(refused.value)
    assert str(refused.value).endswith("attempt to write a readonly database")
    assert stored(experiment) == []
    assert write_traces(traces, experiment_id=experiment) == WriteReport(written=10)


@contextmanager
def _read_only(engine: sqlalchemy.Engine) -> Iterator[None]:
    def forbid(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = 1")

    def allow(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = 0")

    sqlalchemy.event.listen(engine, "checkout", forbid)
    sqlalchemy.event.listen(engine, "checkin", allow)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, "checkout", forbid)
        sqlalchemy.event.remove(engine, "checkin", allow)


def test_a_store_that_keeps_spans_as_artifacts_gets_traces_one_by_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    traces = collect("a", "b")
    experiment = mlflow.create_experiment("files")
    report = write_traces(traces, experiment_id=experiment)
    assert (report.written, report.failed, report.singly) == (2, {}, "FileStore takes traces one by one")
    found = {trace.info.trace_id: trace.data.to_dict() for trace in stored(experiment)}
    assert found == {trace.info.trace_id: trace.data.to_dict() for trace in traces}


def test_an_unknown_experiment_is_an_error_that_names_it(database: Path) -> None:
    with pytest.raises(StorageError, match="experiment '987654'"):
        write_traces(collect("tides"), experiment_id="987654")


def test_after_some_refusals_in_a_row_the_rest_is_not_tried_but_reported(experiment: str) -> None:
    good, *bad = collect(*(f"question {number}" for number in range(GIVE_UP_AFTER + 2)))
    for trace in bad:
        trace.info.tags["mlflow.traceName"] = "x" * 10_000
    report = write_traces([good, *bad], experiment_id=experiment)
    assert report.written == 1
    assert ["not tried" in reason for reason in report.failed.values()] == [False] * GIVE_UP_AFTER + [True]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real tracking server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    # mlflow starts uvicorn by its name, and its job runner costs a minute and serves nothing here.
    settings = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [*command, *stores], env=os.environ | settings, stdout=log, stderr=log, cwd=folder
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait_for(address: str, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until and process.poll() is None:
        try:
            direct.open(address, timeout=2).close()
        except OSError:
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"mlflow server did not answer at {address}")


@pytest.mark.skipif(
    "CITEQA_SLOW_TESTS" not in os.environ, reason="a server takes 15 s to start: CITEQA_SLOW_TESTS=1"
)
def test_a_tracking_server_takes_the_traces_whole(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    experiment = mlflow.create_experiment("over http")
    with mlflow.start_run(experiment_id=experiment) as run:
        pass
    traces = collect("a", "b", "unlucky")
    trace_bytes = {trace.info.trace_id: json.dumps(trace.data.to_dict(), sort_keys=True) for trace in traces}
    arguments = {"experiment_id": experiment, "run_id": run.info.run_id}
    assert write_traces(traces, **arguments) == WriteReport(written=3)
    assert write_traces(traces, **arguments) == WriteReport(present=3)
    found = stored(experiment, run_id=run.info.run_id)
    assert {t.info.trace_id: json.dumps(t.data.to_dict(), sort_keys=True) for t in found} == trace_bytes
    assert {trace.info.tags["lang"] for trace in found} == {"en"}
    assert sorted(trace.info.state for trace in found) == ["ERROR", "OK", "OK"]

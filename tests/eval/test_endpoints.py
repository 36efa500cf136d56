"""Agents at an address: what comes back, what is tried again, and what is said when nothing usable comes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, Trace
from mlflow.entities.trace_info_v2 import TraceInfoV2

from eval.agents import find_subject
from eval.answering import Answered, answer_questions
from eval.endpoints import Endpoint, StoredTraces
from eval.evaluate import evaluate
from eval.questions import Question
from eval.replies import duration_ms
from eval.traces import collect_traces
from program.settings import OtherAgentSettings, Settings
from program.trace_store import write_traces
from retrieval.errors import AgentError, ConfigurationError, RunStoppedError

TOKEN = "canary-0123456789"
BODY = {"input": [{"role": "user", "content": "q"}]}


@dataclass
class Said:
    """One answer of the scripted endpoint."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


class AgentEndpoint(ThreadingHTTPServer):
    """An endpoint as Databricks serves agents, on 127.0.0.1, with answers told beforehand; the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Said] = []
        self.answer: Callable[[dict[str, Any]], Said] | None = None
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/serving-endpoints/qa/invocations"

    def says(self, body: Any = "", **how: Any) -> None:
        self.script.append(Said(body, **how))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is what a test is about, and no news."""

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Said:
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            if self.answer:
                return self.answer(body)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class _Handler(BaseHTTPRequestHandler):
    server: AgentEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.server.take(body, dict(self.headers)))

    def do_GET(self) -> None:
        self.server.headers.append(dict(self.headers))
        self._send(Said({"error_code": "ENDPOINT_NOT_FOUND"}, status=404))

    def _send(self, said: Said) -> None:
        content = said.content()
        self.send_response(said.status)
        for name, value in {"Content-Type": "application/json", **said.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[AgentEndpoint]:
    with AgentEndpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def traced(question: str, *uris: str) -> Trace:
    """A trace as an agent makes it, of some other process."""

    def answer() -> None:
        with (
            mlflow.start_span("predict", span_type=SpanType.AGENT) as root,
            mlflow.start_span("lookup", span_type=SpanType.RETRIEVER) as span,
        ):
            root.set_inputs({"request": {"input": [{"role": "user", "content": question}]}})
            span.set_outputs([{"page_content": "x", "metadata": {"doc_uri": uri}} for uri in uris])

    with collect_traces() as collector:
        return collector.call(answer).traces[0]


def reply(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"output": [{"type": "message", "id": "m", "role": "assistant", "content": content}], **more}


def with_trace(text: str, trace: Trace) -> dict[str, Any]:
    return reply(text, databricks_output={"trace": json.loads(trace.to_json())})


@pytest.fixture
def asking(endpoint: AgentEndpoint, store: str) -> Callable[..., Endpoint]:
    def make(*, wait_s: float = 0.3, **settings: Any) -> Endpoint:
        return Endpoint(endpoint.url, OtherAgentSettings(**settings), StoredTraces(store, wait_s))

    return make


def test_a_trace_that_comes_with_the_answer_is_its_evidence(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    trace = traced("q", "https://a", "https://b")
    endpoint.says(with_trace("yes", trace))
    answered = asking().ask(BODY)
    assert [t.info.trace_id for t in answered.traces] == [trace.info.trace_id]
    assert (answered.stored, answered.latency_ms) == (False, duration_ms(trace))
    (request,) = endpoint.requests
    assert request == {**BODY, "databricks_options": {"return_trace": True}}
    (headers,) = endpoint.headers
    assert headers["x-mlflow-return-trace-id"] == "true"
    assert "Authorization" not in headers


def test_a_trace_as_mlflow_2_wrote_it_is_read_too(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    trace = traced("q", "https://a")
    info = TraceInfoV2.from_v3(trace.info)
    body = {"info": info.to_dict(), "data": trace.data.to_dict()}
    endpoint.says(reply("yes", databricks_output={"trace": body}))
    (read,) = asking().ask(BODY).traces
    assert read.info.trace_id == trace.info.trace_id
    assert read.data.spans[-1].outputs == [{"page_content": "x", "metadata": {"doc_uri": "https://a"}}]


def log_spans(trace: Trace, spans: list[Any], experiment: str) -> None:
    """As a server of agents does, in batches, before it tells of the trace itself."""
    mlflow.MlflowClient()._tracing_client.store.log_spans(experiment, spans)


def test_a_trace_that_is_told_by_its_id_is_read_from_the_store_once_it_is_whole(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint], store: str
) -> None:
    trace = traced("q", "https://a")
    trace.info.tags["retrievers"] = "[]"
    endpoint.says(reply("yes", metadata={"trace_id": trace.info.trace_id}))
    mlflow.set_tracking_uri(store)
    experiment = mlflow.create_experiment("production")
    root, search = trace.data.spans

    def bring() -> None:
        log_spans(trace, [search], experiment)
        time.sleep(0.2)
        log_spans(trace, [root], experiment)
        time.sleep(0.2)
        write_traces([trace], experiment_id=experiment)

    late = threading.Timer(0.1, bring)
    late.start()
    answered = asking(wait_s=20).ask(BODY)
    late.join()
    assert answered.stored
    (read,) = answered.traces
    assert len(read.data.spans) == 2
    assert read.info.tags["retrievers"] == "[]"
    assert answered.latency_ms == duration_ms(trace)


def test_a_trace_of_which_the_spans_alone_ever_come_is_taken_as_it_is(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.endpoints._DESCRIPTION_WAIT_S", 0.1)
    trace = traced("q", "https://a")
    mlflow.set_tracking_uri(store)
    log_spans(trace, trace.data.spans, mlflow.create_experiment("production"))
    endpoint.says(reply("yes", metadata={"trace_id": trace.info.trace_id}))
    (read,) = asking(wait_s=20).ask(BODY).traces
    assert len(read.data.spans) == 2


def test_a_trace_that_never_arrives_says_which_store_was_looked_in(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    endpoint.says(reply("yes", metadata={"trace_id": "tr-123"}))
    with pytest.raises(
        AgentError, match=r"tr-123 .* is not in the tracking store 'sqlite:.*' after 0\.3 s .*\)\."
    ):
        asking().ask(BODY)


def test_an_answer_without_a_trace_says_how_to_get_one(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    endpoint.says(reply("yes"))
    with pytest.raises(AgentError, match=r"without a trace.*AgentServer\(\"ResponsesAgent\"\).*--traces"):
        asking().ask(BODY)


def test_what_is_busy_is_asked_again_and_is_waited_for(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    endpoint.says(status=429, headers={"Retry-After": "0"})
    endpoint.says(status=503, headers={"Retry-After": "0"})
    endpoint.says(with_trace("at last", traced("q")))
    assert asking().ask(BODY).said["output"][0]["content"][0]["text"] == "at last"
    assert len(endpoint.requests) == 3


def test_what_stays_busy_is_told(endpoint: AgentEndpoint, asking: Callable[..., Endpoint]) -> None:
    endpoint.says({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Too many."}, status=429)
    with pytest.raises(AgentError, match=r"answered 429: Too many\. It is busy: lower evaluation\.threads"):
        asking(num_retries=1).ask(BODY)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (Said({"error": {"message": "bad key"}}, 401), r"answered 401: bad key Set CITEQA_AGENT_TOKEN"),
        (Said({"detail": "it broke"}, 500), r"answered 500: it broke$"),
        (Said({"error": "no endpoint"}, 404), r"answered 404: no endpoint Is the path right\?"),
        (Said("<html>", 502), r"answered 502: <html>"),
        (Said("", 302, {"Location": "http://127.0.0.1:1/"}), r"answered 302: Found"),
        (Said("<html>"), r"answered with no JSON: <html>"),
        (Said([1]), r"answered with no JSON object: \[1\]"),
        (
            Said(reply("x", databricks_output={"trace": {"spans": 1}})),
            r"returned a trace that this MLflow .* cannot",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint], said: Said, complaint: str
) -> None:
    endpoint.script.append(said)
    with pytest.raises(AgentError, match=complaint):
        asking().ask(BODY)
    assert len(endpoint.requests) == 1, "it is not paid for twice"


def test_the_token_is_sent_and_never_shown(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITEQA_AGENT_TOKEN", TOKEN)
    endpoint.says({"message": f"Invalid token: Bearer {TOKEN}"}, status=403)
    with pytest.raises(AgentError) as refused:
        asking().ask(BODY)
    assert endpoint.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in str(refused.value)
    assert "$CITEQA_AGENT_TOKEN" in str(refused.value)


def test_the_token_is_not_replaced_by_what_a_netrc_file_says(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("CITEQA_AGENT_TOKEN", TOKEN)
    endpoint.says(with_trace("yes", traced("q")))
    asking().ask(BODY)
    assert endpoint.headers[0]["Authorization"] == f"Bearer {TOKEN}"


def test_an_answer_that_takes_too_long_is_not_asked_for_again(
    endpoint: AgentEndpoint, asking: Callable[..., Endpoint]
) -> None:
    released = threading.Event()

    def slow(body: dict[str, Any]) -> Said:
        released.wait(5)
        return Said("{}")

    endpoint.answer = slow
    with pytest.raises(AgentError, match=r"did not answer in 0\.1 s\. Raise evaluation\.agent\.timeout_s"):
        asking(timeout_s=0.1).ask(BODY)
    released.set()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://", "no address"),
        ("http://host:99999999", "no address"),
        ("https://me:secret-password@host/x", "the address of host holds a name or a password"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, complaint: str, store: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        Endpoint(url, OtherAgentSettings(), StoredTraces(store, 0))
    assert "secret-password" not in str(refused.value)


def test_the_address_of_a_server_alone_means_its_invocations(store: str) -> None:
    def address(url: str) -> str:
        return Endpoint(url, OtherAgentSettings(), StoredTraces(store, 0)).url

    assert address("http://host:8000") == "http://host:8000/invocations"
    assert address("http://host:8000/") == "http://host:8000/invocations"
    assert address("https://host/responses/#x") == "https://host/responses"


SettingsFor = Callable[..., Settings]


@pytest.fixture
def settings_for(make_settings: Callable[..., Settings], endpoint: AgentEndpoint) -> SettingsFor:
    def make(**evaluation: Any) -> Settings:
        agent = {"uri": endpoint.url, "num_retries": 0, **evaluation.pop("agent", {})}
        return make_settings(evaluation={"agent": agent, **evaluation})

    return make


def quiz_answers(body: dict[str, Any]) -> Said:
    """Finds the document that is asked for in half of the questions, and fails in one."""
    question = body["input"][-1]["content"]
    if "Everest" in question:
        return Said({"message": "out of breath"}, status=500)
    found = "iron" if "steel" in question else "fuji" if "富士山" in question else "glass"
    return Said(with_trace(f"see {found}", traced(question, f"https://library.example/{found}")))


def test_an_endpoint_is_scored_and_its_traces_are_kept_with_the_run(
    settings_for: SettingsFor, endpoint: AgentEndpoint
) -> None:
    endpoint.answer = quiz_answers
    settings = settings_for(agent={"label": "monday", "custom_inputs": {"k": 4}})
    evaluation = evaluate(settings)
    recall = evaluation.result.summary.overall.intervals["recall@1"]
    assert (recall.n, round(recall.n * recall.mean)) == (9, 2)
    assert list(evaluation.result.failed) == ["q02"]
    assert evaluation.result.failed["q02"].endswith("answered 500: out of breath")
    assert all(request["custom_inputs"] == {"k": 4} for request in endpoint.requests)
    client = mlflow.MlflowClient()
    experiment = client.get_run(evaluation.mlflow_run_id).info.experiment_id
    traces = client.search_traces(locations=[experiment], run_id=evaluation.mlflow_run_id)
    assert len(traces) == 11

    endpoint.requests.clear()
    again = evaluate(settings, retry_errors=True)
    assert again.result.path == evaluation.result.path
    assert [request["input"][-1]["content"] for request in endpoint.requests] == [
        "Why does water boil earlier on Everest?"
    ]
    tuesday = evaluate(settings_for(agent={"label": "tuesday", "custom_inputs": {"k": 4}}))
    assert tuesday.result.path != evaluation.result.path, "another label is another agent"


def test_a_mapping_that_is_configured_reads_the_rows_and_is_part_of_what_the_run_is(
    settings_for: SettingsFor, endpoint: AgentEndpoint
) -> None:
    def flat(body: dict[str, Any]) -> Said:
        trace = traced(body["input"][-1]["content"], "https://library.example/iron")
        text = json.dumps(json.loads(trace.to_json()))
        flat_rows = text.replace('\\"metadata\\": {\\"doc_uri\\": ', '\\"where\\": {\\"it\\": ')
        return Said(reply("x", databricks_output={"trace": flat_rows}))

    endpoint.answer = flat
    with pytest.raises(RunStoppedError, match=r"Its fields are page_content, where: .*retriever_schema"):
        evaluate(settings_for())
    evaluation = evaluate(settings_for(retriever_schemas={"lookup": {"doc_uri": "where.it"}}))
    assert {r.retrieved[0].doc_uri for r in evaluation.result.records.values()} == {
        "https://library.example/iron"
    }
    identity = json.loads((evaluation.result.path / "run.json").read_text())["identity"]
    assert identity["retriever_schemas"]["lookup"]["doc_uri"] == "where.it"


def test_nothing_is_begun_where_nothing_answers(
    make_settings: Callable[..., Settings], tmp_path: Any
) -> None:
    settings = make_settings(evaluation={"agent": {"uri": "http://127.0.0.1:9/x"}})
    with pytest.raises(
        AgentError, match=r"Nothing answers at http://127\.0\.0\.1:9/x: .*refused\. Is it running"
    ):
        evaluate(settings)
    assert not (tmp_path / "runs").exists()


def test_an_endpoint_without_traces_is_given_up_after_the_first_questions(
    settings_for: SettingsFor, endpoint: AgentEndpoint
) -> None:
    endpoint.says(reply("yes"))
    with pytest.raises(RunStoppedError, match=r"each of the first 5 questions failed.* without a trace"):
        evaluate(settings_for())
    assert len(endpoint.requests) == 5


@contextmanager
def asked_by(settings: Settings, threads: int) -> Iterator[list[Answered]]:
    questions = [Question(id=f"q{n}", question=f"q{n}", gold=()) for n in range(24)]
    with find_subject(settings).open() as agent, collect_traces() as collector:
        yield list(answer_questions(agent, questions, collector, threads=threads))


def test_it_is_asked_no_more_at_once_than_the_settings_say_though_many_wait_for_traces(
    settings_for: SettingsFor, endpoint: AgentEndpoint
) -> None:
    def counting(body: dict[str, Any]) -> Said:
        return Said(with_trace("x", trace))

    trace = traced("q", "https://a")
    really_take = endpoint.take

    def take(body: dict[str, Any], headers: dict[str, str]) -> Said:
        with endpoint.lock:
            endpoint.under_way += 1
            endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
        threading.Event().wait(0.01)
        said = really_take(body, headers)
        with endpoint.lock:
            endpoint.under_way -= 1
        return said

    endpoint.answer, endpoint.take = counting, take  # type: ignore[method-assign]
    settings = settings_for(threads=2)
    assert find_subject(settings).threads == 16
    with asked_by(settings, threads=16) as answered:
        assert all(one.record.error is None for one in answered)
    assert endpoint.most_under_way == 2

"""Servers on 127.0.0.1: the application under uvicorn in a thread, and `citeqa serve` as a process of its own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import httpx
import mlflow
import pytest
import uvicorn
from mlflow.entities import Trace, TraceInfo
from prometheus_client.parser import text_string_to_metric_families

from program.agent import CiteqaAgent, CitingAgent
from program.citations import cite
from program.serving.app import Served, create_app
from program.serving.trace_spool import TraceSpool
from program.serving.traces import TraceRecorder
from program.settings import ServingSettings, Settings, validate_settings
from program.types import CitedAnswer, Emit, Turn
from retrieval.local_index import LocalIndex
from retrieval.tracing import traced_search
from retrieval.types import Document

DOCUMENTS = [
    Document(
        "https://docs.example/water",
        "# Water\n\nWater boils at 100 degrees at sea level. Ice melts at 0 degrees.",
        "Water",
        "en",
    ),
    Document(
        "https://docs.example/mountains",
        "# Mountains\n\nWater boils earlier on high mountains, because the air is thin. "
        "On Everest it boils at 71 degrees.",
        "Mountains",
        "en",
    ),
    Document(
        "https://docs.example/fuji",
        "# 富士山\n\n富士山の高さは3776メートルです。山頂では水が約88度で沸騰します。",
        "富士山",
        "ja",
    ),
]
SECRET = "sk-canary-0123456789"
ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream: its `event:` line, and its `data:`, read where it is JSON."""

    name: str
    data: Any

    @property
    def type(self) -> str:
        return str(self.data["type"])


def read_events(lines: Iterator[str]) -> Iterator[ServerSentEvent]:
    """The events of a `text/event-stream`, comments left out; the last is `[DONE]` as a string."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield ServerSentEvent(name, data if data == "[DONE]" else json.loads(data))
        elif not line:
            name = ""


class Server:
    """What a test knows of a server: its address, and a client that speaks to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=_TIMEOUT_S)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, question: Any = "When does water boil?", **body: Any) -> httpx.Response:
        """The whole answer; `headers` go as such, everything else into the body."""
        headers = body.pop("headers", {})
        return self.client.post("/responses", json={"input": question, **body}, headers=headers)

    def events(self, question: Any = "When does water boil?", **body: Any) -> list[ServerSentEvent]:
        """The events of a streamed answer."""
        headers = body.pop("headers", {})
        asked = {"input": question, "stream": True, **body}
        with self.client.stream("POST", "/responses", json=asked, headers=headers) as response:
            assert response.status_code == 200, response.read()
            return list(read_events(response.iter_lines()))

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Each sample of `/metrics` by its name and the values of its labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }

    def wait_for_metric(self, *name: str, value: float) -> None:
        """Wait until a sample of `/metrics` is `value`."""
        wait_until(lambda: self.metrics().get(name) == value, lambda: f"{name}: {self.metrics()}")

    def stop(self) -> None:
        self.client.close()


class ThreadServer(Server):
    """An application under uvicorn in a thread of this process."""

    def __init__(self, served: Served, settings: ServingSettings) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        super().__init__(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            create_app(served, settings),
            log_config=None,
            lifespan="on",
            proxy_headers=False,
            timeout_graceful_shutdown=round(settings.shutdown_s),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, lambda: "the server did not start")

    def stop(self) -> None:
        super().stop()
        self._server.should_exit = True
        self._thread.join(_TIMEOUT_S)
        assert not self._thread.is_alive(), "the server did not stop"


class ProcessServer(Server):
    """`citeqa serve` as a process, once it has said its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.said = process.stdout.readline()
        if not self.said:
            raise AssertionError(f"citeqa serve did not start: {process.communicate()[1]}")
        super().__init__(self.said.strip().rpartition(" ")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """How the process ended, and what it said on stderr."""
        _, err = self.process.communicate(timeout=_TIMEOUT_S)
        return self.process.returncode, err

    def writer_pid(self) -> int:
        """The process that writes its traces."""
        pid = self.process.pid
        [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(child)


def wait_until(
    holds: Callable[[], bool], otherwise: Callable[[], str], timeout_s: float = _TIMEOUT_S
) -> None:
    """Return as soon as a condition holds; fail with what `otherwise` says when it does not in the time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.005)


class Gate:
    """An answerer that says one word, and finishes when the test lets it; it hears when its client has left.

    `entered` counts the answers begun, `questions` are theirs in order. `let` lets that many finish.
    """

    def __init__(self, answerer: Callable[[Turn, Emit | None], CitedAnswer]) -> None:
        self._answerer = answerer
        self._permits = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.questions: list[str] = []

    @property
    def entered(self) -> int:
        return len(self.questions)

    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        with self._lock:
            self.questions.append(turn.question)
        assert self._permits.acquire(timeout=_TIMEOUT_S), "nobody opened the gate"
        return self._answerer(turn, emit)

    def let(self, answers: int = 1) -> None:
        self._permits.release(answers)

    def wait_for_entries(self, number: int) -> None:
        wait_until(lambda: self.entered >= number, lambda: f"{self.entered} of {number} answers were begun")


class Store:
    """A SQLite store of its own, a spool, and the recorders that bring traces from one to the other."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        self.file = folder / "mlflow.db"
        self.spools = folder / "spool"
        shutil.copyfile(empty_store, self.file)
        self.uri = f"sqlite:///{self.file}"
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)
        experiment = self.client.get_experiment_by_name("citeqa")
        assert experiment is not None
        self.experiment_id = experiment.experiment_id

    @contextmanager
    def recording(
        self, *, spool_bytes: int = 2**30, sample_rate: float = 1.0, uri: str | None = None
    ) -> Iterator[TraceRecorder]:
        """A recorder in the place of MLflow's exporter."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.tracing.reset()
        mlflow.tracing.enable()
        spool = TraceSpool(self.spools, spool_bytes)
        recorder = TraceRecorder(
            spool, tracking_uri=uri or self.uri, experiment_id=self.experiment_id, sample_rate=sample_rate
        )
        try:
            yield recorder
        finally:
            recorder.stop(60)
            mlflow.tracing.reset()
            mlflow.tracing.disable()

    def execute(self, statement: str) -> None:
        """Change the database behind MLflow's back."""
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute(statement)
            connection.commit()

    def trace(self, trace_id: str) -> Trace:
        """The trace with its spans."""
        trace: Trace = self.client.get_trace(trace_id)
        return trace

    def ids(self, request_id: str | None = None) -> list[str]:
        """The ids of all traces, or of those of one request."""
        infos: list[TraceInfo] = []
        token = None
        while True:
            page = self.client.search_traces(
                locations=[self.experiment_id], max_results=500, page_token=token, include_spans=False
            )
            infos += [trace.info for trace in page]
            token = page.token
            if not token:
                return [info.trace_id for info in infos if request_id in (None, info.client_request_id)]


MakeServer = Callable[..., ThreadServer]
StartProcess = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "index"
    LocalIndex.build(path, DOCUMENTS)
    return str(path)


@pytest.fixture(scope="session")
def index(index_path: str) -> LocalIndex:
    return LocalIndex.open(index_path)


@pytest.fixture(scope="session")
def answerer(index: LocalIndex) -> Callable[[Turn, Emit | None], CitedAnswer]:
    """An agent of somebody's own, that costs nothing: it repeats the question, a word at a time, and cites."""

    def answer(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        passages = traced_search(index, "water", turn.k or 2, turn.filters)
        words = (f"{word} " for word in turn.question.split(" "))
        return cite((*words, "said [1]."), passages, reader="echo", query=turn.question, emit=emit)

    return answer


@pytest.fixture
def gate(answerer: Callable[[Turn, Emit | None], CitedAnswer]) -> Iterator[Gate]:
    gate = Gate(answerer)
    yield gate
    gate.let(1000)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its working directory, no token, and no cached answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CITEQA_TOKEN", raising=False)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


@pytest.fixture
def make_settings(index_path: str) -> Callable[..., Settings]:
    """Settings over the small corpus; keyword arguments are sections, a server is one's language model."""

    def make(model: Any = None, **sections: Any) -> Settings:
        values: dict[str, Any] = {"retrieval": {"index": index_path, "k": 2}}
        if model is not None:
            values["language_model"] = {
                "model": "openai/test",
                "api_base": model.url,
                "cache": False,
                "timeout_s": 5,
                "num_retries": 0,
            }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return validate_settings([("test", values)])

    return make


@pytest.fixture
def tracing_off() -> None:
    """Nothing is traced, unless a file puts its own in the place of this."""
    mlflow.tracing.disable()


@pytest.fixture
def serve(answerer: Callable[[Turn, Emit | None], CitedAnswer], tracing_off: None) -> Iterator[MakeServer]:
    """Makes servers, stopped after the test. Without a recorder nothing is traced.

    `of` is an answerer or settings (default: the answerer that costs nothing), `serving` are serving
    settings, `more` what else is `Served`.
    """
    servers: list[ThreadServer] = []

    def make(of: Any = None, *, serving: Mapping[str, Any] | None = None, **more: Any) -> ThreadServer:
        if isinstance(of, Settings):
            agent: CitingAgent = CiteqaAgent(of)
            reader = str(of.language_model.model) if of.answers_with_lm else "extractive"
        else:
            agent, reader = CitingAgent(of or answerer), "echo"
        settings = ServingSettings(**{"max_concurrent": 4, **(serving or {})})
        server = ThreadServer(Served(**{"agent": agent, "reader": reader, **more}), settings)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()
    mlflow.dspy.autolog(disable=True)


@pytest.fixture(scope="module")
def plain(answerer: Callable[[Turn, Emit | None], CitedAnswer]) -> Iterator[ThreadServer]:
    """A server over the answerer that costs nothing, for tests that leave it as it was."""
    mlflow.tracing.disable()
    served = Served(agent=CitingAgent(answerer), reader="echo")
    server = ThreadServer(served, ServingSettings(max_concurrent=4))
    yield server
    server.stop()


@pytest.fixture
def start_process(index_path: str, tmp_path: Path) -> Iterator[StartProcess]:
    """Starts `citeqa serve` in the test's directory with the given arguments; ended after the test at the latest."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable, "-c", "import sys; del sys.path[0]; from program.cli import main; main()",
                "serve", "--port", "0", "--set", f"retrieval.index={index_path}", *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        with process:
            pass


@pytest.fixture
def make_process_server() -> Iterator[Callable[[subprocess.Popen[str]], ProcessServer]]:
    """The server that a process is, once it listens."""
    servers: list[ProcessServer] = []

    def make(process: subprocess.Popen[str]) -> ProcessServer:
        servers.append(ProcessServer(process))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store as MLflow lays it out, with the experiment `citeqa`: laying it out takes seconds."""
    folder = tmp_path_factory.mktemp("empty-store")
    file = folder / "mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}")
    client.create_experiment("citeqa", (folder / "artifacts").as_uri())
    return file


@pytest.fixture(scope="module")
def lasting(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Iterator[tuple[Store, TraceRecorder]]:
    """One store with one recorder for the tests that only add traces: a writer takes seconds to start."""
    store = Store(tmp_path_factory.mktemp("traces"), empty_store)
    with store.recording() as recorder:
        yield store, recorder


@dataclass(frozen=True)
class Traced:
    """The lasting store and recorder, and what makes servers whose traces go there."""

    store: Store
    recorder: TraceRecorder
    serve: MakeServer


@pytest.fixture
def traced(
    lasting: tuple[Store, TraceRecorder], serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> Traced:
    store, recorder = lasting
    # The recorder of a server is stopped with it; this one goes on.
    monkeypatch.setattr(recorder, "stop", lambda timeout_s: 0)
    return Traced(store, recorder, functools.partial(serve, recorder=recorder))


@pytest.fixture
def make_store(tmp_path: Path, empty_store: Path) -> Callable[[], Store]:
    return lambda: Store(tmp_path, empty_store)

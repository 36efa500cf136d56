"""`citeqa serve` as a person starts and ends it: what it says, what it finishes, and what a killed one leaves."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.entities import TraceState

from program.cli import main
from program.serving.listening import is_loopback

SECRET = "sk-canary-0123456789"
ASK_TRACE = {"x-mlflow-return-trace-id": "true"}


@pytest.fixture
def tracing_off() -> None:
    """Here it stays on."""


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Calls `citeqa serve` in this process, for what ends before it listens."""

    def call(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["citeqa", "serve", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return SimpleNamespace(
            code=end.value.code, **dict(zip(("out", "err"), capfd.readouterr(), strict=True))
        )

    return call


@pytest.fixture
def taken_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_without_an_index_it_says_how_to_make_one(cli: Any, tmp_path: Path) -> None:
    said = cli("--port", "0", "--set", f"retrieval.index={tmp_path}/none")
    assert (said.code, said.out) == (2, "")
    assert re.fullmatch(r"Error: No index at '.*none'\. .*citeqa index.*\n", said.err)


def test_a_port_that_is_in_use_is_told_in_a_line(cli: Any, taken_port: int, index_path: str) -> None:
    said = cli("--port", str(taken_port), "--set", f"retrieval.index={index_path}")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert f"Cannot listen at 127.0.0.1, port {taken_port}" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_told_in_a_line(cli: Any, host: str, index_path: str) -> None:
    said = cli("--host", host, "--port", "0", "--set", f"retrieval.index={index_path}")
    assert (said.code, said.out) == (2, "")
    assert f"Cannot listen at {host}" in said.err.splitlines()[-1]


def test_it_warns_when_others_can_reach_it_and_no_token_is_set(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--host", "0.0.0.0", "--set", f"retrieval.index={tmp_path}/none")
    assert cli(*arguments).err.startswith("Warning: 0.0.0.0 can be reached by others")
    assert "CITEQA_TOKEN" in cli(*arguments).err
    monkeypatch.setenv("CITEQA_TOKEN", "a-token-of-ours")
    assert "Warning" not in cli(*arguments).err
    monkeypatch.delenv("CITEQA_TOKEN")
    assert "Warning" not in cli("--host", "localhost", *arguments[2:]).err


@pytest.mark.parametrize(
    ("host", "is_ours_alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("example.com", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, is_ours_alone: bool) -> None:
    assert is_loopback(host) == is_ours_alone


def test_told_to_stop_it_finishes_what_streams_and_stores_every_trace(
    start_process: Any, make_process_server: Any, language_model: Any, make_store: Any
) -> None:
    store = make_store()
    language_model.fills({"answer": "word " * 200, "answerable": "True"}, chunk=5, delay_s=0.005)
    language_model.fills({"answer": "whole", "answerable": "True"}, delay_s=1)
    server = make_process_server(
        start_process(
            "--set", f"tracking.uri={store.uri}",
            "--set", "language_model.model=openai/test",
            "--set", f"language_model.api_base={language_model.url}",
            "--set", "language_model.cache=false",
        )
    )  # fmt: skip
    assert server.said == f"Playground and API: {server.url}\n"
    assert server.url.startswith("http://127.0.0.1:")
    with (
        ThreadPoolExecutor(1) as pool,
        server.client.stream("POST", "/responses", json={"input": "stream", "stream": True}) as response,
    ):
        lines = response.iter_lines()
        said = ""
        while "output_text.delta" not in said:
            said += next(lines)
        whole = pool.submit(server.ask, "whole")
        server.wait_for_metric("citeqa_in_flight", value=2)
        server.signal(signal.SIGTERM)
        said += "".join(lines)
        assert whole.result().status_code == 200
    assert said.endswith("data: [DONE]")
    assert "response.completed" in said
    code, err = server.wait()
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in err
    assert SECRET not in err
    traces = [store.trace(trace_id) for trace_id in store.ids()]
    assert [trace.info.state for trace in traces] == [TraceState.OK, TraceState.OK]
    assert list(Path("build/trace-spool").iterdir()) == [], "nothing is left to bring to the store"


def test_ctrl_c_ends_it_without_a_stack_trace_even_when_the_whole_terminal_is_interrupted(
    start_process: Any, make_process_server: Any, make_store: Any
) -> None:
    store = make_store()
    server = make_process_server(start_process("--set", f"tracking.uri={store.uri}"))
    assert server.ask("When does water boil?").status_code == 200
    # A terminal sends it to every process that it runs.
    os.killpg(server.process.pid, signal.SIGINT)
    code, err = server.wait()
    assert (code, err) == (0, "Stopped.\n")
    assert len(store.ids()) == 1


def test_what_a_killed_server_left_is_brought_to_the_store_by_the_next(
    start_process: Any, make_process_server: Any, make_store: Any
) -> None:
    store = make_store()
    server = make_process_server(
        start_process("--set", f"tracking.uri={store.uri}", "--set", f"serving.trace_spool={store.spools}")
    )
    os.kill(server.writer_pid(), signal.SIGSTOP)
    asked = [server.ask(headers=ASK_TRACE).json()["metadata"]["trace_id"] for _ in range(5)]
    server.wait_for_metric("citeqa_traces_pending", value=5)
    os.kill(server.writer_pid(), signal.SIGKILL)
    server.signal(signal.SIGKILL)
    server.wait()
    assert store.ids() == []
    [left] = store.spools.iterdir()
    with (left / "000001.jsonl").open("a", encoding="utf-8") as segment:
        segment.write('{"damaged": \n')
        segment.write('{"what was being written when it was kill')

    with store.recording() as recorder:
        recorder.stop(60)
        assert recorder.counts.stored == 5
        assert recorder.counts.refused == 1
    assert sorted(store.ids()) == sorted(asked)
    assert [file.name for file in left.iterdir() if file.suffix == ".jsonl"] == ["refused.jsonl"]


def test_two_servers_share_a_spool_folder_and_a_store(make_store: Any) -> None:
    store = make_store()
    with store.recording() as recorder, mlflow.start_span("one") as span:
        span.set_inputs("first")
    del recorder
    with store.recording(), mlflow.start_span("two"):
        pass
    assert len(store.ids()) == 2
    assert list(store.spools.iterdir()) == []

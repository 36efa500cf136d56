"""What serving costs besides the language model: `citeqa serve` beside the pattern of MLflow's documentation.

python benchmarks/bench_serving.py               streams, latency, throughput; two minutes
python benchmarks/bench_serving.py --soak 10000  and that many requests, for what grows

The language model is a process of its own that sends its first token after 20 ms and 40 more at 10 ms each;
the client is this process; the servers are processes. The peer serves the same agent as MLflow's
documentation shows it: synchronous handlers in `AgentServer`, `predict` drained from `predict_stream`, traces
by MLflow's own exporter. The zero-cost model answers at once, so that all of the time is the server's. All use
SQLite stores. CPU and memory are read from /proc: Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENS = 40
FIRST_TOKEN_S = 0.020
TOKEN_S = 0.010
STREAMS = 32
QUESTION = "Are API keys written when I save a DSPy program?"
CORPUS = "datasets/agent_docs/docs"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print a line for each thing measured, the peer's beside it."""
    arguments = _parse_arguments()
    if arguments.child:
        _CHILDREN[arguments.child](arguments)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = Path(folder)
        _index(work)
        model = stack.enter_context(_child("model", work))
        ours = stack.enter_context(_child("ours", work, "--model", model.url))
        _print_streams("citeqa serve", ours)
        _print_added(ours, model)
        _print_program_cpu(work, model, ours)
        peer = stack.enter_context(_child("peer", work, "--model", model.url))
        _print_streams("documentation's pattern", peer)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        zero = stack.enter_context(_child("zero", Path(folder)))
        _print_throughput(zero)
        if arguments.soak:
            _print_soak(zero, arguments.soak)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _print_peer_throughput(stack.enter_context(_child("zeropeer", Path(folder))))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--soak", type=int, default=0, metavar="N", help="also send N requests, and see what grows"
    )
    parser.add_argument("--data", help="not used here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    return parser.parse_args()


# What is measured


def _print_streams(name: str, server: Child) -> None:
    asyncio.run(_streams(server, 4))
    one = statistics.median(asyncio.run(_streams(server, 1))[0].total_s for _ in range(5))
    many = []
    for _ in range(3):
        started = time.perf_counter()
        asyncio.run(_streams(server, STREAMS))
        many.append(time.perf_counter() - started)
    all_s = statistics.median(many)
    _row(
        f"{name}: {STREAMS} streams at once", f"{all_s:.2f} s, one alone {one:.2f} s", f"x {all_s / one:.2f}"
    )


def _print_added(server: Child, model: Child) -> None:
    bare = [asyncio.run(_ask_model(model)).first_s for _ in range(30)]
    served = [asyncio.run(_streams(server, 1))[0].first_s for _ in range(30)]
    added_ms = 1000 * (statistics.median(served) - statistics.median(bare))
    _row(
        "time to first token, p50",
        f"{1000 * statistics.median(served):.1f} ms, the bare model {1000 * statistics.median(bare):.1f} ms",
        f"+ {added_ms:.1f} ms",
    )


def _print_program_cpu(work: Path, model: Child, server: Child) -> None:
    requests = 60
    before = server.cpu_s()
    for _ in range(requests):
        asyncio.run(_streams(server, 1))
    served_ms = 1000 * (server.cpu_s() - before) / requests
    direct = _run_child("direct", work, "--model", model.url)
    _row(
        "CPU a streamed request, traced",
        f"{served_ms:.1f} ms, the program alone, untraced {direct:.1f} ms",
        f"+ {served_ms - direct:.1f} ms",
    )


def _print_throughput(zero: Child) -> None:
    asyncio.run(_load(zero, 50, 8, stream=False))
    before = zero.cpu_s()
    plain = asyncio.run(_load(zero, 1000, 16, stream=False))
    cpu_ms = 1000 * (zero.cpu_s() - before) / 1000
    streamed = asyncio.run(_load(zero, 500, 16, stream=True))
    _row("zero-cost model, whole", f"{plain:.0f} requests/s, {cpu_ms:.1f} ms CPU each", "")
    _row(f"zero-cost model, streamed ({TOKENS} tokens)", f"{streamed:.0f} requests/s", "")
    started = time.perf_counter()
    stored = zero.wait_for_traces(1550)
    _row("traces stored", f"{stored} of 1550", f"{time.perf_counter() - started:.0f} s after the last answer")


def _print_peer_throughput(peer: Child) -> None:
    asyncio.run(_load(peer, 20, 8, stream=False))
    plain = asyncio.run(_load(peer, 300, 16, stream=False))
    streamed = asyncio.run(_load(peer, 100, 16, stream=True))
    _row(
        "documentation's pattern, zero-cost model",
        f"{plain:.0f} whole, {streamed:.0f} streamed requests/s",
        "",
    )


def _print_soak(zero: Child, requests: int) -> None:
    asyncio.run(_load(zero, 1000, 16, stream=True))
    before = zero.state()
    for stream in (False, True):
        asyncio.run(_load(zero, requests // 2, 16, stream=stream))
    zero.wait_for_traces(2550 + requests, timeout_s=1800)
    after = zero.state()
    grown = (after.memory - before.memory) / 2**20
    _row(
        f"after {requests} requests more",
        f"{grown:+.1f} MB resident, {after.threads - before.threads:+d} threads, {after.files - before.files:+d} files",
        f"traces in memory: {zero.count('inmemory')}",
    )


def _row(what: str, figures: str, ratio: str) -> None:
    print(f"{what:<44} {figures:<52} {ratio}", flush=True)


# The client


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the request to the first text and to the end."""

    first_s: float
    total_s: float


async def _streams(server: Child, count: int) -> list[Timing]:
    body = json.dumps({"input": [{"role": "user", "content": QUESTION}], "stream": True}).encode()
    return list(
        await asyncio.gather(*(_ask(server, "/responses", body, b"output_text.delta") for _ in range(count)))
    )


async def _ask_model(model: Child) -> Timing:
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
    return await _ask(model, "/v1/chat/completions", body, b'"delta"')


async def _ask(server: Child, path: str, body: bytes, first: bytes) -> Timing:
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(_post(path, body, "close"))
    first_s, seen = 0.0, b""
    while chunk := await reader.read(65536):
        if not first_s and first in (seen := seen + chunk):
            first_s = time.perf_counter() - started
    writer.close()
    if not first_s:
        raise SystemExit(f"No answer: {seen[:500]!r}")
    return Timing(first_s, time.perf_counter() - started)


def _post(path: str, body: bytes, connection: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: {connection}\r\n\r\n"
    )
    return head.encode() + body


async def _load(server: Child, requests: int, clients: int, *, stream: bool) -> float:
    """Requests a second, over connections that stay open."""
    body = json.dumps({"input": [{"role": "user", "content": QUESTION}], "stream": stream}).encode()
    message = _post("/responses", body, "keep-alive")
    left = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in left:
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"Refused: {answer!r}")
            if stream:
                await reader.readuntil(b"0\r\n\r\n")
            else:
                length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return requests / (time.perf_counter() - started)


# The processes


@dataclass(frozen=True, slots=True)
class State:
    memory: int
    threads: int
    files: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process of this benchmark that listens."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used, its children not counted."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def state(self) -> State:
        proc = Path(f"/proc/{self.process.pid}")
        memory = int((proc / "statm").read_text().split()[1]) * _PAGE
        return State(memory, len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir())))

    def count(self, what: str) -> int:
        """A gauge of the server."""
        reader = asyncio.run(_get(self.port, "/metrics"))
        names = {"stored": 'citeqa_traces{outcome="stored"}', "inmemory": "citeqa_traces_in_memory"}
        return next(
            int(float(line.split()[-1])) for line in reader.splitlines() if line.startswith(names[what])
        )

    def wait_for_traces(self, count: int, timeout_s: float = 300) -> int:
        deadline = time.monotonic() + timeout_s
        while (stored := self.count("stored")) < count and time.monotonic() < deadline:
            time.sleep(0.5)
        return stored


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    content = await reader.read()
    writer.close()
    return content.decode()


@contextmanager
def _child(name: str, work: Path, *arguments: str) -> Iterator[Child]:
    process = _start(name, work, *arguments)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("port "):
                yield Child(process, int(line.split()[1]))
                break
        else:
            raise SystemExit(f"The process '{name}' did not start.")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()  # type: ignore[union-attr]


def _run_child(name: str, work: Path, *arguments: str) -> float:
    process = _start(name, work, *arguments)
    printed, _ = process.communicate()
    return float(printed.split()[-1])


def _start(name: str, work: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OPENAI_API_KEY": "none", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=work, env=environment)


def _index(work: Path) -> None:
    from retrieval.corpus import read_documents
    from retrieval.local_index import LocalIndex

    LocalIndex.build(work / "build" / "index", read_documents(CORPUS))


# What runs in them


def _settings(model: str | None) -> Any:
    from program.settings import validate_settings

    language_model = {"model": "openai/stub", "api_base": f"{model}/v1", "cache": False} if model else {}
    return validate_settings([("bench", {"language_model": language_model, "serving": {"port": 0}})])


def _serve_model(arguments: argparse.Namespace) -> None:
    """OpenAI's chat completions: the layout that the prompt asks for, a token at a time."""
    words = [
        "[[ ## answerable ## ]]\nTrue\n\n[[ ## answer ## ]]\nKeys",
        *(" word" for _ in range(TOKENS - 2)),
        " [1].",
    ]
    words.append("\n\n[[ ## completed ## ]]\n")

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        event = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "stub",
            "choices": [choice],
        }
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        return b"%x\r\n%s\r\n" % (len(data), data)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(FIRST_TOKEN_S)
                writer.write(_STREAM_HEAD)
                for number, word in enumerate(words):
                    if number:
                        await asyncio.sleep(TOKEN_S)
                    writer.write(chunk({"content": word}))
                writer.write(chunk({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                await writer.drain()
                if b"connection: close" in head.lower():
                    writer.close()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=256)
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


def _serve_ours(arguments: argparse.Namespace) -> None:
    from program.serving.run import serve

    serve(
        _settings(arguments.model),
        on_ready=lambda address: print("port", address.rpartition(":")[2], flush=True),
    )


def _serve_peer(arguments: argparse.Namespace) -> None:
    from program.agent import CiteqaAgent

    _serve_as_documented(CiteqaAgent(_settings(arguments.model)))


def _serve_as_documented(agent: Any) -> None:
    import socket

    import mlflow
    import uvicorn
    from mlflow.genai.agent_server import AgentServer, invoke, stream
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

    mlflow.set_tracking_uri("sqlite:///peer.db")
    mlflow.set_experiment("peer")

    @stream()
    def answer_streamed(request: ResponsesAgentRequest) -> Iterator[Any]:
        yield from agent.predict_stream(request)

    @invoke()
    def answer_whole(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        events = agent.predict_stream(request)
        return ResponsesAgentResponse(
            output=[e.item for e in events if e.type == "response.output_item.done"]
        )

    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(AgentServer("ResponsesAgent").app, log_level="error"))
    asyncio.run(server.serve([listener]))


def _zero_cost_agent() -> Any:
    """An agent that has found, and written, everything already."""
    from program.agent import CitingAgent
    from program.citations import cite
    from program.types import CitedAnswer, Emit, Turn
    from retrieval.tracing import traced_search
    from retrieval.types import Filters, Passage

    passages = [
        Passage(f"c{n}", f"https://docs.example/{n}", "Some words. " * 40, f"Document {n}") for n in range(5)
    ]
    words = ["word "] * (TOKENS - 1) + ["[1]."]

    class Found:
        def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
            return passages

    def answer(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        found = traced_search(Found(), turn.question, 5)
        return cite(words, found, reader="zero", query=turn.question, emit=emit)

    return CitingAgent(answer)


def _serve_zero(arguments: argparse.Namespace) -> None:
    import program.serving.run as run
    from program.agent import CiteqaAgent
    from retrieval.local_index import LocalIndex
    from retrieval.types import Document

    LocalIndex.build("build/index", [Document("https://docs.example/1", "Some words.")])
    settings = _settings(None)
    run.CiteqaAgent = lambda _: _zero_cost_agent()  # type: ignore[assignment,misc]
    assert run.CiteqaAgent is not CiteqaAgent
    run.serve(settings, on_ready=lambda address: print("port", address.rpartition(":")[2], flush=True))


def _serve_zero_peer(arguments: argparse.Namespace) -> None:
    _serve_as_documented(_zero_cost_agent())


def _measure_direct(arguments: argparse.Namespace) -> None:
    """Milliseconds of CPU that the program itself takes for one streamed answer, without a trace."""
    import mlflow

    from program.agent import CiteqaAgent
    from program.types import Turn

    agent = CiteqaAgent(_settings(arguments.model))
    mlflow.dspy.autolog(disable=True)
    mlflow.tracing.disable()
    [answer] = agent._answerers.values()
    times = []
    for _ in range(60):
        started = time.process_time()
        answer(Turn(QUESTION), lambda piece: None)
        times.append(time.process_time() - started)
    print("ms", 1000 * statistics.fmean(times[10:]), flush=True)


_CHILDREN: dict[str, Callable[[argparse.Namespace], None]] = {
    "model": _serve_model,
    "ours": _serve_ours,
    "peer": _serve_peer,
    "zero": _serve_zero,
    "zeropeer": _serve_zero_peer,
    "direct": _measure_direct,
}


if __name__ == "__main__":
    main()

"""The agent as an MCP server, met by the SDK's own client over stdio and HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import mlflow
import pytest
import uvicorn
from mlflow.entities import SpanType, Trace

pytest.importorskip("mcp.server.mcpserver", reason="the MCP SDK is not installed: pip install 'citeqa[mcp]'")
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from program.agent import CiteqaAgent, CitingAgent
from program.citations import cite
from program.cli import main
from program.mcp_server import PATH, create_app
from program.mcp_tools import create_server
from program.retrievers import open_retriever
from program.settings import Settings
from program.streaming import StreamAbandonedError
from program.types import CitedAnswer, Emit, Turn
from retrieval.asking_user import USER_TOKEN_HEADER, user_token
from retrieval.types import Passage

T = TypeVar("T")
CITEQA = Path(sys.executable).with_name("citeqa")
PASSAGE = Passage("c1", "https://e.org/1", "Water boils at 100 degrees.", "Water")
CANARY = "canary-0123456789"


class Server:
    """The MCP server over HTTP on 127.0.0.1, in a thread."""

    def __init__(self, agent: CitingAgent, settings: Settings, token: str | None = None) -> None:
        app = create_app(create_server(agent, open_retriever(settings), settings), settings, token)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="on", proxy_headers=False)
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    @asynccontextmanager
    async def connect(self, mode: str = "auto", **headers: str) -> AsyncIterator[Client]:
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            transport = streamable_http_client(self.url + PATH, http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client

    def call(self, tool: str, mode: str = "auto", **arguments: Any) -> Any:
        """What one call of a tool returns."""

        async def call() -> Any:
            async with self.connect(mode) as client:
                return await client.call_tool(tool, arguments)

        return asyncio.run(call())


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(agent: CitingAgent, settings: Settings, token: str | None = None) -> Server:
        servers.append(Server(agent, settings, token))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., Server], make_settings: Any) -> Server:
    """A server over the small corpus whose answers need no language model."""
    settings = make_settings()
    return serve(CiteqaAgent(settings), settings)


def text_of(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def links_of(result: Any) -> list[tuple[str, str]]:
    return [(block.title, block.uri) for block in result.content if block.type == "resource_link"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_ask_answers_with_links_that_were_checked(server: Server, mode: str) -> None:
    result = server.call("ask", mode, question="When does water boil on Everest?")
    assert not result.is_error
    said = result.structured_content
    [source, *_] = said["sources"]
    assert (source["number"], source["url"]) == (1, "https://docs.example/mountains")
    assert "On Everest it boils at 71 degrees." in source["quotes"]
    assert "71 degrees. [1]" in said["answer"]
    assert (said["abstained"], said["reader"]) == (False, "extractive")
    assert said["searched_for"] == ["When does water boil on Everest?"]
    assert text_of(result).startswith(said["answer"])
    assert "\n\nSources:\n[1] Mountains: https://docs.example/mountains" in text_of(result)
    assert links_of(result)[0] == ("Mountains", "https://docs.example/mountains")


def test_a_question_that_the_documents_do_not_answer_has_no_source(server: Server) -> None:
    result = server.call("ask", question="Who is the king of Atlantis?")
    assert result.structured_content["abstained"]
    assert result.structured_content["sources"] == links_of(result) == []


def test_search_gives_passages_with_their_links(server: Server) -> None:
    result = server.call("search", query="degrees", k=2, filters={"title": ["Water", "Iron"]})
    passages = result.structured_content["passages"]
    assert {passage["title"] for passage in passages} == {"Water", "Iron"}
    assert [passage["number"] for passage in passages] == [1, 2]
    assert passages[0]["text"] in text_of(result)
    assert set(links_of(result)) == {(passage["title"], passage["url"]) for passage in passages}
    assert server.call("search", query="富士山の高さ").structured_content["passages"][0]["title"] == "富士山"
    assert text_of(server.call("search", query="zzz")) == "Nothing was found."


def test_both_tools_publish_what_they_take_and_return_and_that_they_only_read(server: Server) -> None:
    async def tools() -> Any:
        async with server.connect() as client:
            return client.server_info, (await client.list_tools()).tools

    info, (ask, search) = asyncio.run(tools())
    assert info.name == "citeqa"
    assert (ask.name, search.name) == ("ask", "search")
    for tool, required in ((ask, ["question"]), (search, ["query"])):
        assert tool.input_schema["required"] == required
        assert set(tool.input_schema["properties"]) == {*required, "k", "filters"}
        assert tool.annotations.read_only_hint
    assert ask.output_schema["required"] == ["answer", "abstained", "sources", "searched_for", "reader"]
    assert search.output_schema["required"] == ["passages"]


def test_what_the_documents_tell_of_is_what_a_model_reads_to_choose(
    serve: Callable[..., Server], make_settings: Any
) -> None:
    settings = make_settings(mcp={"name": "heat", "about": "when things boil and melt"})
    server = serve(CiteqaAgent(settings), settings)

    async def described() -> Any:
        async with server.connect() as client:
            return client.server_info.name, [tool.description for tool in (await client.list_tools()).tools]

    name, descriptions = asyncio.run(described())
    assert name == "heat"
    assert all("about when things boil and melt" in description for description in descriptions)


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("ask", {"question": "  "}, "the question is empty. Ask something."),
        ("ask", {"question": "water", "k": 0}, "greater than or equal to 1"),
        ("ask", {"question": "water", "filters": {"lang ~": "ja"}}, "Filter 'lang ~': unknown operator '~'"),
        ("search", {"query": "water", "filters": {"lang ~": "ja"}}, "Filter 'lang ~': unknown operator '~'"),
        ("search", {}, "query\n  Field required"),
    ],
)
def test_a_mistake_of_the_caller_is_said_to_it(
    server: Server, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    result = server.call(tool, **arguments)
    assert result.is_error
    assert reason in text_of(result)


def test_of_a_mistake_of_ours_nothing_is_told(serve: Callable[..., Server], make_settings: Any) -> None:
    def broken(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        raise ZeroDivisionError(CANARY)

    result = serve(CitingAgent(broken), make_settings()).call("ask", question="water")
    assert result.is_error
    assert text_of(result) == "Error executing tool ask"


def test_an_answer_that_takes_too_long_is_given_up_and_stopped(
    serve: Callable[..., Server], make_settings: Any
) -> None:
    stopped = threading.Event()

    def endless(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        assert emit is not None
        try:
            while True:
                emit("and ")
                time.sleep(0.01)
        except StreamAbandonedError:
            stopped.set()
            raise

    settings = make_settings(serving={"deadline_s": 0.3})
    result = serve(CitingAgent(endless), settings).call("ask", question="water")
    assert result.is_error
    assert text_of(result).endswith("There was no answer within 0.3 seconds.")
    assert stopped.wait(5)


def test_each_call_asks_as_the_user_whose_token_it_brings(
    serve: Callable[..., Server], make_settings: Any
) -> None:
    together = threading.Barrier(8, timeout=10)

    def whoami(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        together.wait()  # all are under way at once
        return cite(f"You are {user_token()} [1].", [PASSAGE], reader="echo", query=turn.question, emit=emit)

    server = serve(CitingAgent(whoami), make_settings())

    async def ask_as(user: str | None) -> str:
        headers = {USER_TOKEN_HEADER: user} if user else {}
        async with server.connect(**headers) as client:
            result = await client.call_tool("ask", {"question": "Who am I?"})
            return str(result.structured_content["answer"])

    users = [*(f"user-{number}" for number in range(7)), None]
    answers = asyncio.run(gathered([ask_as(user) for user in users]))
    assert answers == [f"You are {user} [1]." for user in users]


async def gathered(awaitables: list[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*awaitables))


def test_an_agentic_answer_tells_what_was_searched_for(
    serve: Callable[..., Server], make_settings: Any, language_model: Any
) -> None:
    language_model.fills(
        {
            "next_thought": "…",
            "tool_calls": '[{"name": "search", "args": {"query": "iron melts"}}, '
            '{"name": "search", "args": {"query": "water boils"}}]',
        }
    )
    language_model.fills({"next_thought": "…", "tool_calls": "[]"})
    language_model.fills({"answerable": True, "answer": "At 1538 degrees [1]."})
    settings = make_settings(language_model, retrieval={"k": 1}, program={"kind": "react"})
    said = serve(CiteqaAgent(settings), settings).call("ask", question="When?").structured_content
    assert said["searched_for"] == ["iron melts", "water boils"]
    assert [source["url"] for source in said["sources"]] == ["https://docs.example/iron"]


def test_a_call_is_traced_as_any_answer_is(server: Server, tracing: Callable[[], Trace]) -> None:
    server.call("ask", question="When does water boil?")
    root, *rest = tracing().data.spans
    assert (root.span_type, root.parent_id) == (SpanType.AGENT, None)
    assert [span.span_type for span in rest].count(SpanType.RETRIEVER) == 1


def test_without_the_token_nothing_is_told_but_that_it_is_there(
    serve: Callable[..., Server], make_settings: Any
) -> None:
    settings = make_settings()
    server = serve(CiteqaAgent(settings), settings, token=CANARY)
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    refused = httpx.post(server.url + PATH, json=ping)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert CANARY not in refused.text
    assert httpx.get(server.url + "/health").text == "ok"

    async def ask() -> Any:
        async with server.connect(Authorization=f"Bearer {CANARY}") as client:
            return await client.call_tool("ask", {"question": "When does water boil?"})

    assert not asyncio.run(ask()).is_error


def test_a_page_in_a_browser_cannot_reach_it_by_a_name_of_its_own(
    serve: Callable[..., Server], make_settings: Any
) -> None:
    settings = make_settings()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    by_default = serve(CiteqaAgent(settings), settings)
    assert httpx.post(by_default.url + PATH, json=ping, headers={"host": "evil.example"}).status_code == 421
    named = make_settings(mcp={"allowed_hosts": ["mcp.example"]})
    server = serve(CiteqaAgent(named), named)
    assert httpx.post(server.url + PATH, json=ping, headers={"host": "evil.example"}).status_code == 421
    assert httpx.post(server.url + PATH, json=ping, headers={"host": "mcp.example"}).status_code != 421


def test_bodies_that_are_too_large_are_refused(serve: Callable[..., Server], make_settings: Any) -> None:
    settings = make_settings(serving={"max_body_mb": 0.01})
    server = serve(CiteqaAgent(settings), settings)
    assert httpx.post(server.url + PATH, content=b"x" * 20_000).status_code == 413


def test_over_stdio_the_command_is_a_server_for_whoever_starts_it(
    index_path: str, trace_store: str, tmp_path: Path
) -> None:
    settings = [f"retrieval.index={index_path}", f"tracking.uri={trace_store}", "tracking.experiment=stdio"]
    parameters = StdioServerParameters(
        command=str(CITEQA),
        args=["mcp", "--trace", *(part for setting in settings for part in ("--set", setting))],
        cwd=str(tmp_path),
        env={"PATH": os.environ["PATH"]},
    )

    async def talk() -> Any:
        async with Client(parameters, read_timeout_seconds=60) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            return tools, await client.call_tool("ask", {"question": "When does water boil on Everest?"})

    tools, result = asyncio.run(talk())
    assert tools == ["ask", "search"]
    assert result.structured_content["sources"][0]["url"] == "https://docs.example/mountains"
    store = mlflow.MlflowClient(trace_store)
    experiment = store.get_experiment_by_name("stdio")
    assert experiment is not None
    assert len(store.search_traces(locations=[experiment.experiment_id])) == 1


def test_a_server_that_cannot_start_says_why_and_leaves_the_protocol_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["citeqa", "mcp"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert (end.value.code, said.out) == (2, "")
    [line] = said.err.splitlines()
    assert line.startswith("Error: No index at 'build/index'.")


def test_without_the_sdk_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["citeqa", "mcp"])
    with pytest.raises(SystemExit):
        main()
    assert "pip install 'citeqa[mcp]'" in capsys.readouterr().err

"""`citeqa mcp`: from settings to a server that other agents call, over stdio or HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from program.agent import CiteqaAgent
from program.mcp_tools import create_server
from program.retrievers import follow_index
from program.serving.guard import Guard
from program.serving.listening import listen, serve_on, url_of
from program.serving.metrics import Metrics
from program.settings import McpSettings, Settings
from program.tracking import connect

PATH = "/mcp"


def serve_stdio(settings: Settings, *, trace: bool = False) -> None:
    """Serve the process that started this one, until it closes our input. Nothing else may write to our output.

    With `trace`, traces go to the tracking store.

    Raises:
        ConfigurationError, RetrievalError, ProgramStateError, StorageError: if the agent cannot be built.
    """
    with _tracing(settings, trace):
        _server(settings).run("stdio")


def serve_http(
    settings: Settings, on_ready: Callable[[str], None], *, token: str | None = None, trace: bool = False
) -> None:
    """Serve streamable HTTP at `mcp.host` and `mcp.port` until told to stop (Ctrl-C, SIGTERM).

    No session is kept, so any replica can answer any call. Requests must bear the `token`, where one is given;
    `on_ready` is given the address once it is answered there.

    Raises:
        ConfigurationError: if the address cannot be listened at.
        ConfigurationError, RetrievalError, ProgramStateError, StorageError: if the agent cannot be built.
    """
    with _tracing(settings, trace):
        server = _server(settings)
        with listen(settings.mcp.host, settings.mcp.port) as listener:
            app = create_app(server, settings, token)
            serve_on(
                listener,
                app,
                lambda: on_ready(url_of(listener) + PATH),
                shutdown_s=settings.serving.shutdown_s,
            )


def create_app(server: MCPServer[Any], settings: Settings, token: str | None = None) -> ASGIApp:
    """The ASGI application with the server at `/mcp`, and `/health` beside it."""
    inner = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=_body_bytes(settings),
        transport_security=_host_check(settings.mcp),
        host=settings.mcp.host,
    )
    inner.router.routes.append(Route("/health", lambda _: PlainTextResponse("ok")))
    # A redirect to the path without its last slash would go to whatever host the client names.
    inner.router.redirect_slashes = False
    return Guard(inner, token=token, max_body_bytes=_body_bytes(settings), metrics=Metrics())


def _server(settings: Settings) -> MCPServer[Any]:
    retriever = follow_index(settings)
    return create_server(CiteqaAgent(settings, retriever=retriever), retriever, settings)


def _body_bytes(settings: Settings) -> int:
    return int(settings.serving.max_body_mb * 2**20)


def _host_check(mcp: McpSettings) -> TransportSecuritySettings | None:
    """Which names the server may be called by, so that no page in a browser reaches it by a name of its own.

    None leaves it to the SDK, which allows loopback's names at loopback, and any elsewhere.
    """
    if not mcp.allowed_hosts:
        return None
    origins = [f"{scheme}://{host}" for host in mcp.allowed_hosts for scheme in ("http", "https")]
    return TransportSecuritySettings(allowed_hosts=list(mcp.allowed_hosts), allowed_origins=origins)


@contextmanager
def _tracing(settings: Settings, trace: bool) -> Iterator[None]:
    if not trace:
        mlflow.tracing.disable()
        yield
        return
    connect(settings.tracking)
    yield
    mlflow.flush_trace_async_logging()

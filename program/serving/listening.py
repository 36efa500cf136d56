"""Where a server listens, and how it says so."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import uvicorn
from starlette.types import ASGIApp

from retrieval.errors import ConfigurationError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 is any free one.

    Raises:
        ConfigurationError: if it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            stack.pop_all()
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen at {host}, port {port}: {error.strerror}. Choose another with --port, or 0 for any."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listener is reached over HTTP."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve_on(
    listener: socket.socket, app: ASGIApp, on_ready: Callable[[], None], *, shutdown_s: float
) -> None:
    """Answer there until told to stop (Ctrl-C, SIGTERM); what is under way then may take `shutdown_s` more.

    `on_ready` is called once requests are answered. No header of a proxy is read, so none can be forged.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level=logging.WARNING,
        timeout_graceful_shutdown=round(shutdown_s),
        proxy_headers=False,
        server_header=False,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once everything has ended
        _AnnouncingServer(config, on_ready).run([listener])


class _AnnouncingServer(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; `on_ready` is called once requests are answered."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

"""What every request passes first: its id, the token, the size of its body, and the headers of each response."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from contextlib import suppress
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from program.serving.events import encode_json
from program.serving.failures import Failure, RequestFailedError, internal_error
from program.serving.metrics import Metrics

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
ROUTE_KEY = "citeqa.route"
"""Where an application that is no FastAPI route leaves its path for the counters."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_OPEN_PATHS = ("/health", "/ready", "/")
_OPEN_FOLDER = "/playground/"
_DRAIN_BYTES = 256 * 2**20
_DRAIN_S = 10.0
_BODY_S = 30.0

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def request_id_of(scope: Scope) -> str:
    """The id of the request that this scope is of: the client's own where it sent a usable one."""
    state: dict[str, str] = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        state["request_id"] = sent if _REQUEST_ID.fullmatch(sent) else f"req_{uuid4().hex}"
    return state["request_id"]


class Guard:
    """ASGI middleware in front of everything else.

    Requests without the bearer token get 401 everywhere but at the page and the health checks; bodies that
    are too large get 413 before they are read into memory. An exception that nobody else caught becomes a
    500 whose text tells nothing but the request's id.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, max_body_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._token = token
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(scope, send, self._metrics)
        try:
            self._check_token(scope)
            body = _LimitedBody(receive, self._max_body_bytes, Headers(scope=scope).get("content-length"))
            await body.check_declared()
            await self._app(scope, body.receive, response.send)
        except RequestFailedError as error:
            await response.fail(error.failure)
        except Exception:
            request_id = request_id_of(scope)
            logger.exception("Request %s failed", request_id)
            await response.fail(internal_error(request_id))

    def _check_token(self, scope: Scope) -> None:
        path: str = scope["path"]
        if self._token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        if scope["method"] == "OPTIONS":  # a browser's question before the request bears no token
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Headers are read as Latin-1, whatever their bytes are; ours, as people's terminals have it, is UTF-8.
        is_right = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise RequestFailedError(
                Failure(401, "unauthenticated", "Send the server's token: 'Authorization: Bearer …'.")
            )


class _BodyRefusedError(RequestFailedError, HTTPException):
    """Raised where the body is read. An HTTPException too: of others, FastAPI makes a 400 of its own."""

    def __init__(self, failure: Failure) -> None:
        HTTPException.__init__(self, failure.status, failure.message)
        self.failure = failure


class _LimitedBody:
    """Reads a request's body up to a number of bytes, and not for ever."""

    def __init__(self, receive: Receive, limit: int, declared: str | None) -> None:
        self._receive = receive
        self._limit = limit
        self._declared = int(declared) if declared and declared.isdecimal() else 0
        self._deadline = time.monotonic() + _BODY_S
        self._read = 0
        self._is_complete = False

    async def check_declared(self) -> None:
        if self._declared > self._limit:
            await self._refuse()

    async def receive(self) -> Message:
        message = await (self._receive() if self._is_complete else self._receive_in_time())
        if message["type"] == "http.request":
            self._note(message)
            if self._read > self._limit:
                await self._refuse()
        return message

    async def _receive_in_time(self) -> Message:
        try:
            return await asyncio.wait_for(self._receive(), self._deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise _BodyRefusedError(
                Failure(408, "body_too_slow", f"The body did not arrive within {_BODY_S:g} seconds.")
            ) from None

    def _note(self, message: Message) -> None:
        self._read += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)

    async def _refuse(self) -> None:
        # Read to its end all the same, within reason: most clients hear nothing while they are sending.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drain(), _DRAIN_S)
        raise _BodyRefusedError(
            Failure(413, "body_too_large", f"The body is larger than {self._limit / 2**20:g} MB.")
        )

    async def _drain(self) -> None:
        while not self._is_complete and self._read < _DRAIN_BYTES:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            self._note(message)


class _Response:
    """Puts our headers on a response and counts it."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics) -> None:
        self._scope = scope
        self._send = send
        self._metrics = metrics
        self._is_started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID_HEADER] = request_id_of(self._scope)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            self._metrics.requests.labels(_route(self._scope), str(message["status"])).inc()
        await self._send(message)

    async def fail(self, failure: Failure) -> None:
        if self._is_started:
            return  # nothing can be said any more: the connection ends early, which a client notices
        content = encode_json(failure.body())
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **failure.headers(),
        }
        if failure.status == 401:
            headers["www-authenticate"] = "Bearer"
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": failure.status, "headers": encoded})
        await self._send({"type": "http.response.body", "body": content})


def _route(scope: Scope) -> str:
    """The route's own path, not the client's: paths that are made up must not become counters."""
    route = scope.get("route")
    path = getattr(route, "path", None) or scope.get(ROUTE_KEY)
    return str(path) if path else "other"

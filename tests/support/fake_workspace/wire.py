"""HTTP, as far as a fake workspace needs it: routes, requests, replies, errors in Databricks' form, and faults."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

STATUS = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_CONFLICT": 409,
    "RESOURCE_ALREADY_EXISTS": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "TEMPORARILY_UNAVAILABLE": 503,
}


class ApiError(Exception):
    """An error as Databricks' API answers it: `{"error_code": …, "message": …}`."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.headers = code, message, dict(headers or {})


@dataclass(frozen=True)
class Request:
    """What came. `user` is who the token belongs to, and `parameters` the parts of the path that the route names."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    query_string: str = ""

    def json(self, *, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
        """The body as an object with no field but the `known` ones, and each of the `required`."""
        try:
            said = json.loads(self.body or b"{}")
        except ValueError as error:
            raise ApiError("BAD_REQUEST", f"Could not parse the request as JSON: {error}") from None
        if not isinstance(said, dict):
            raise ApiError("BAD_REQUEST", "The request must be a JSON object.")
        if unknown := said.keys() - {*known, *required}:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown fields of {self.path}: {sorted(unknown)}")
        if missing := [name for name in required if said.get(name) in (None, "")]:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Missing required fields of {self.path}: {missing}")
        return said


@dataclass(frozen=True)
class Reply:
    """What is answered: JSON, bytes, or lines that are sent one by one as they come."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


Handler = Callable[[Request], "Reply | Mapping[str, Any] | None"]


@dataclass
class Fault:
    """Something that goes wrong with requests whose `METHOD /path` matches a pattern, so many `times`.

    `hang_s` waits before all else; then `status` is answered in place of the truth, `body` as it is; with
    `truncate_at`, the answer breaks off after so many bytes although its length promised more; `refuse` closes
    the connection without a word.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    code: str = "INTERNAL_ERROR"
    message: str = "a fault that the test asked for"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hang_s: float = 0.0
    truncate_at: int | None = None
    refuse: bool = False


@dataclass(frozen=True)
class Call:
    """A request that came, and what it was answered with."""

    method: str
    path: str
    user: str
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.body or b"null")


class Router:
    """Routes by method and path; `{name}` in a path stands for one segment, `{name...}` for the rest."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Answer these requests with `handler`."""
        pattern = re.escape(path).replace(r"\{", "{").replace(r"\}", "}").replace(r"\.\.\.}", "...}")
        pattern = re.sub(r"{(\w+)\.\.\.}", r"(?P<\1>.+)", pattern)
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)
        self._routes.append((method, re.compile(pattern), handler))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a request, and the parameters in its path."""
        for known, pattern, handler in self._routes:
            if known == method and (found := pattern.fullmatch(path)):
                return handler, {name: unquote(value) for name, value in found.groupdict().items()}
        return None


class Wire(ThreadingHTTPServer):
    """The server. `authenticate` names the user of a request, or raises `ApiError`; None where a path is open."""

    daemon_threads = True

    def __init__(self, router: Router, authenticate: Callable[[Request], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.router = router
        self.authenticate = authenticate
        self.calls: list[Call] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self.latency_s = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The next fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{method} {path}"):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request: Request) -> Reply:
        """The reply to a request, errors included."""
        try:
            found = self.router.find(request.method, request.path)
            user = self.authenticate(request)
            if found is None:
                with self.lock:
                    self.unknown.append(f"{request.method} {request.path}")
                raise ApiError("ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
            handler, parameters = found
            said = handler(replace(request, user=user, parameters=parameters))
            return said if isinstance(said, Reply) else Reply(said if said is not None else {})
        except ApiError as error:
            status = STATUS.get(error.code, 400)
            return Reply({"error_code": error.code, "message": error.message}, status, error.headers)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's acknowledgement of its head
    server: Wire

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query))
        request = Request(self.command, parts.path, query, headers, body, query_string=parts.query)
        if self.server.latency_s:
            time.sleep(self.server.latency_s)
        fault = self.server.take_fault(request.method, request.path)
        if fault is not None and fault.hang_s:
            time.sleep(fault.hang_s)
        if fault is not None and fault.refuse:
            self._note(request, "", 0)
            self.close_connection = True
            return
        if fault is not None and (fault.status is not None or fault.body is not None):
            said = (
                fault.body if fault.body is not None else {"error_code": fault.code, "message": fault.message}
            )
            reply = Reply(said, fault.status or 200, fault.headers)
        else:
            reply = self.server.answer(request)
        self._note(request, self._user(request), reply.status)
        self._send(reply, fault.truncate_at if fault is not None else None)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    def _user(self, request: Request) -> str:
        try:
            return self.server.authenticate(request)
        except ApiError:
            return ""

    def _note(self, request: Request, user: str, status: int) -> None:
        with self.server.lock:
            self.server.calls.append(
                Call(request.method, request.path, user, status, request.body, request.headers)
            )

    def _send(self, reply: Reply, truncate_at: int | None) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.stream is not None:
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in reply.stream:
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        is_bytes = isinstance(reply.body, bytes)
        content = reply.body if is_bytes else json.dumps(reply.body, ensure_ascii=False).encode()
        if "Content-Type" not in reply.headers:
            self.send_header("Content-Type", "application/octet-stream" if is_bytes else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if truncate_at is None else content[:truncate_at])
        if truncate_at is not None:
            self.close_connection = True

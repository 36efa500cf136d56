"""What every request passes first: ids, headers, the token, the size and the pace of its body."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from program.serving import guard
from program.serving.guard import SECURITY_HEADERS

OPEN = ["/", "/playground/icon.svg", "/health", "/ready"]
CLOSED = [
    ("GET", "/metrics"),
    ("GET", "/agent/info"),
    ("GET", "/openapi.json"),
    ("GET", "/api/playground"),
    ("GET", "/api/document?uri=x"),
    ("GET", "/api/trace-link?trace_id=x"),
    ("POST", "/api/feedback"),
    ("POST", "/responses"),
    ("POST", "/v1/responses"),
    ("POST", "/invocations"),
    ("GET", "/nowhere"),
    ("GET", "//playground/../metrics"),
]
ORIGIN = "https://app.example"


def check_failure(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """An error in the shape that all have; its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body["error"]["code"] == code
    assert body["error"]["message"] == body["message"] != ""
    assert body["error"]["type"]
    assert body["error"]["param"] is None
    assert body["error_code"].isupper()
    return body


def exchange(port: int, *sent: bytes) -> bytes:
    """Send raw bytes and read until the server closes the connection."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        for data in sent:
            connection.sendall(data)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def test_a_request_id_that_is_sent_comes_back(plain: Any) -> None:
    for path in ("/health", "/nowhere", "/metrics"):
        response = plain.client.get(path, headers={"x-request-id": "my-id:1.2_3"})
        assert response.headers["x-request-id"] == "my-id:1.2_3"
    assert plain.ask(headers={"x-request-id": "a"}).headers["x-request-id"] == "a"


@pytest.mark.parametrize("bad", ["", "a b", "<script>", "x" * 129, "é".encode("latin-1"), b"a\tb"])
def test_a_request_id_that_is_unusable_is_replaced(plain: Any, bad: str | bytes) -> None:
    response = plain.client.get("/health", headers={"x-request-id": bad})
    assert response.headers["x-request-id"].startswith("req_")


def test_each_request_without_an_id_gets_one_of_its_own(plain: Any) -> None:
    ids = {plain.client.get("/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    "path", ["/", "/health", "/nowhere", "/metrics", "/playground/app.js", "/api/playground"]
)
def test_every_response_has_the_security_headers(plain: Any, path: str) -> None:
    response = plain.client.get(path)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers[name] == value
    assert "unsafe" not in response.headers["content-security-policy"]


def test_answers_and_refusals_have_the_security_headers_too(serve: Any) -> None:
    server = serve(token="secret-token")
    authorized = {"authorization": "Bearer secret-token"}
    for response in (
        server.ask(),
        server.ask(headers=authorized),
        server.ask(stream=True, headers=authorized),
    ):
        assert SECURITY_HEADERS.items() <= dict(response.headers).items()


@pytest.fixture
def guarded(serve: Any) -> Any:
    return serve(token="secret-tökén")


@pytest.mark.parametrize("path", OPEN)
def test_the_page_and_the_health_checks_need_no_token(guarded: Any, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_everything_else_needs_the_token(guarded: Any, method: str, path: str) -> None:
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret-tökén".encode()}):
        response = guarded.client.request(method, path, headers=header, json={"input": "Hello"})
        check_failure(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"
        assert "secret" not in response.text


def test_the_right_token_passes_however_bearer_is_written(guarded: Any) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        header = {"authorization": f"{scheme} secret-tökén".encode()}
        assert guarded.ask(headers=header).status_code == 200
        assert guarded.client.get("/metrics", headers=header).status_code == 200


def test_without_a_token_configured_none_is_asked_for(plain: Any) -> None:
    assert plain.ask().status_code == 200
    assert plain.client.get("/api/playground").json()["auth"] is False


def test_other_origins_are_not_let_in_by_default(plain: Any) -> None:
    assert "access-control-allow-origin" not in plain.ask(headers={"origin": ORIGIN}).headers
    asking = {"origin": ORIGIN, "access-control-request-method": "POST"}
    preflight = plain.client.options("/responses", headers=asking)
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


def test_a_configured_origin_is_let_in_and_no_other(serve: Any) -> None:
    server = serve(serving={"cors_origins": (ORIGIN,)}, token="secret-token")
    asking = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = server.client.options("/responses", headers=asking)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()

    response = server.ask(headers={"origin": ORIGIN, "authorization": "Bearer secret-token"})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in response.headers["access-control-expose-headers"]
    refused = server.ask(headers={"origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN, "or the page cannot read the reason"

    other = server.ask(headers={"origin": "https://evil.example", "authorization": "Bearer secret-token"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/responses", "/v1/responses", "/invocations", "/api/feedback"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_that_is_too_large_is_refused_whether_its_size_is_declared_or_not(
    serve: Any, path: str, is_declared: bool
) -> None:
    server = serve(serving={"max_body_mb": 0.25})
    content = json.dumps({"input": "x" * 2**19}).encode()
    chunks = (content[i : i + 65536] for i in range(0, len(content), 65536))
    response = server.client.post(path, content=content if is_declared else chunks)
    body = check_failure(response, 413, "body_too_large")
    assert "0.25 MB" in body["message"]
    assert server.ask().status_code == 200


def test_a_body_within_the_limit_is_read_however_it_is_cut(plain: Any) -> None:
    content = json.dumps({"input": "Hello " + "x" * 1000}).encode()
    response = plain.client.post(
        "/responses", content=(content[i : i + 7] for i in range(0, len(content), 7))
    )
    assert response.status_code == 200


def test_fifty_megabytes_are_refused_and_not_kept_in_memory(plain: Any) -> None:
    def megabytes() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 2**20

    check_failure(plain.client.post("/responses", content=megabytes()), 413, "body_too_large")


@pytest.mark.parametrize("path", ["/responses", "/api/feedback"])
def test_a_body_that_never_ends_is_given_up(plain: Any, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(guard, "_BODY_S", 0.1)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n".encode()
    answer = exchange(plain.port, head, b'{"input": ')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_slow"


def test_a_body_that_is_declared_too_large_and_never_comes_is_given_up(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_DRAIN_S", 0.1)
    head = b"POST /responses HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 52428800\r\n\r\n"
    assert exchange(plain.port, head, b"x").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api", "/api/nothing", "/responses/1", "/docs", "/redoc", "/playground"]
)
def test_an_unknown_path_is_not_found_in_json(plain: Any, path: str) -> None:
    check_failure(plain.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/responses"),
        ("DELETE", "/v1/responses"),
        ("PUT", "/invocations"),
        ("POST", "/health"),
        ("POST", "/"),
        ("GET", "/api/feedback"),
        ("POST", "/metrics"),
    ],
)
def test_a_wrong_method_is_not_allowed_in_json(plain: Any, method: str, path: str) -> None:
    response = plain.client.request(method, path)
    check_failure(response, 405, "method_not_allowed")
    assert response.headers["allow"]


def test_what_the_program_raises_by_mistake_is_told_to_the_log_and_not_to_the_client(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(turn: Any, emit: Any = None) -> Any:
        raise KeyError("inner secret")

    server = serve(answer)
    for stream in (False, True):
        response = server.ask(stream=stream, headers={"x-request-id": "find-me"})
        body = check_failure(response, 500, "internal_error")
        assert "find-me" in body["message"]
        assert "inner" not in response.text
        assert "Traceback" not in response.text
    assert "find-me" in caplog.text
    assert "inner secret" in caplog.text


def test_a_mistake_in_any_other_route_is_told_in_json_too(
    serve: Any, index: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: Any) -> None:
        raise KeyError("inner secret")

    monkeypatch.setattr("program.serving.app.read_document", break_down)
    server = serve(index=index)
    response = server.client.get("/api/document?uri=x", headers={"x-request-id": "find-me"})
    server.stop()  # the log is written after the response
    body = check_failure(response, 500, "internal_error")
    assert "find-me" in body["message"]
    assert "inner" not in response.text
    assert "Request find-me failed" in caplog.text

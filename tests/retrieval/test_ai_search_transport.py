"""What is put under Databricks' client: whatever form an answer has, it arrives whole, in time, or not at all."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from databricks.ai_search.utils import RequestUtils

from retrieval.ai_search.transport import exchange

ANSWER = {"text": "犬は夜に吠えます。" * 20_000}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    encoding = ""
    chunked = False
    cut = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", ""), self.client_address))
        body = json.dumps(ANSWER).encode()
        if self.server.encoding:
            body = gzip.compress(body)
        self.send_response(200)
        if self.server.encoding:
            self.send_header("Content-Encoding", self.server.encoding)
        if not self.server.chunked:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.server.cut else body)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 7_777):
                if self.server.cut and start > len(body) // 2:
                    break
                part = body[start : start + 7_777]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if not self.server.cut:
                self.wfile.write(b"0\r\n\r\n")
        self.close_connection = self.server.cut

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield listening
        listening.shutdown()


def ask(server: Server, timeout_s: float = 5, **headers: str) -> object:
    with exchange(timeout_s, headers):
        return RequestUtils.issue_request(url=server.url, method="GET", token="the client's")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_an_answer_arrives_in_whatever_form_it_is_sent(server: Server, chunked: bool, encoding: str) -> None:
    server.chunked, server.encoding = chunked, encoding
    assert ask(server) == ANSWER
    assert ask(server) == ANSWER
    assert len({address for _, _, address in server.asked}) == 1  # one connection for both


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_an_answer_that_breaks_off_is_no_answer(server: Server, chunked: bool, encoding: str) -> None:
    server.chunked, server.encoding, server.cut = chunked, encoding, True
    with pytest.raises(requests.RequestException):
        ask(server)


def test_the_headers_of_the_exchange_are_those_that_count(server: Server) -> None:
    ask(server, Authorization="Bearer ours")
    ask(server)
    assert [token for _, token, _ in server.asked] == ["Bearer ours", "Bearer the client's"]


def test_threads_share_connections_that_are_free(server: Server) -> None:
    for _ in range(4):
        thread = threading.Thread(target=ask, args=(server,))
        thread.start()
        thread.join()
    assert len({address for _, _, address in server.asked}) == 1


def test_what_is_sent_outside_of_an_exchange_is_as_the_client_sends_it(server: Server) -> None:
    ask(server)
    assert RequestUtils.issue_request(url=server.url, method="GET", token="mine") == ANSWER
    assert server.asked[-1][1] == "Bearer mine"


def test_the_environment_still_names_the_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/x"))
    with exchange(5, {}):
        RequestUtils.issue_request(url="http://workspace.example/y", method="GET")
    assert server.asked[-1][0] == "http://workspace.example/y"

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from retrieval.embedders import EmbedderConfig, open_embedder
from retrieval.errors import EmbeddingError

KEY = "a-secret-key-of-tests"


@dataclass
class Endpoint:
    """An embeddings server: `[length, count of a, 1]` for each text, in an order of its own."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    answer: str | None = None

    def respond(self, body: dict[str, Any]) -> str:
        if self.answer is not None:
            return self.answer
        rows = [
            {"object": "embedding", "index": number, "embedding": [len(text), text.count("a"), 1.0]}
            for number, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return json.dumps({"object": "list", "data": rows[::-1], "model": body["model"], "usage": usage})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append({**body, "path": self.path})
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, content = (
                state.failures.pop(0) if state.failures else (200, {}, state.respond(body))
            )
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def config(endpoint: Endpoint, **values: Any) -> EmbedderConfig:
    return replace(EmbedderConfig("openai/embed-1", api_base=endpoint.url), **values)


def test_texts_go_in_batches_and_vectors_come_back_in_their_order(endpoint: Endpoint) -> None:
    texts = ["a", "bb", "aaa", "", "ccccc"]
    vectors = open_embedder(config(endpoint, batch_size=2)).embed_passages(texts)
    assert [request["input"] for request in endpoint.requests] == [["a", "bb"], ["aaa", "-"], ["ccccc"]]
    assert {(one["path"], one["model"]) for one in endpoint.requests} == {("/v1/embeddings", "embed-1")}
    expected = np.array([[1, 1, 1], [2, 0, 1], [3, 3, 1], [1, 0, 1], [5, 0, 1]], np.float32)
    assert vectors == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert vectors.dtype == np.float32
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_dimension_is_what_the_endpoint_answers(endpoint: Endpoint) -> None:
    embedder = open_embedder(config(endpoint, dimensions=3))
    assert endpoint.requests == [], "nothing is asked before it is needed"
    assert (embedder.dimension, embedder.dimension) == (3, 3)
    assert [request["dimensions"] for request in endpoint.requests] == [3]
    assert embedder.embed_passages([]).shape == (0, 3)


def test_prefixes_are_for_queries_and_for_passages(endpoint: Endpoint) -> None:
    embedder = open_embedder(config(endpoint, query_prefix="query: ", passage_prefix="passage: "))
    embedder.embed_query("x")
    embedder.embed_passages(["x"])
    assert [request["input"] for request in endpoint.requests] == [["query: x"], ["passage: x"]]


def test_long_texts_are_cut_and_counted_where_a_limit_is_set(endpoint: Endpoint) -> None:
    embedder = open_embedder(config(endpoint, max_tokens=3))
    embedder.embed_passages(["abcdefghijklmnop", "東京都庁舎", "short"])
    assert endpoint.requests[0]["input"] == ["abcdefghijkl", "東京都", "short"]
    assert embedder.truncated == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_or_failing_endpoint_is_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.failures = [(status, {"Retry-After": "0.01"}, '{"error": {"message": "later"}}')] * 2
    assert open_embedder(config(endpoint)).embed_query("a").shape == (3,)
    assert len(endpoint.requests) == 3


def test_what_stays_busy_is_an_error_that_says_so(endpoint: Endpoint) -> None:
    endpoint.failures = [(429, {"Retry-After": "0"}, '{"error": {"message": "too many requests"}}')] * 9
    with pytest.raises(EmbeddingError, match=r"'openai/embed-1' failed: .*too many requests"):
        open_embedder(config(endpoint, num_retries=1)).embed_query("a")
    assert len(endpoint.requests) == 2


def test_a_refusal_is_not_repeated_and_shows_no_key(endpoint: Endpoint) -> None:
    endpoint.failures = [(401, {}, json.dumps({"error": {"message": f"wrong key {KEY}"}}))]
    with pytest.raises(EmbeddingError, match=r"wrong key \$OPENAI_API_KEY.*Check its API key") as caught:
        open_embedder(config(endpoint)).embed_query("a")
    assert len(endpoint.requests) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ('{"object": "list", "data": [], "model": "m"}', "1 texts were sent and 0 vectors came back"),
        ('{"data": [{"index": 0, "embedding": [null]}], "model": "m"}', "is not"),
        ("<html>a proxy</html>", "failed"),
    ],
)
def test_an_answer_that_is_no_embedding_is_an_error(endpoint: Endpoint, answer: str, message: str) -> None:
    endpoint.answer = answer
    with pytest.raises(EmbeddingError, match=message):
        open_embedder(config(endpoint, num_retries=0)).embed_query("a")


def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    nobody = EmbedderConfig("m", api_base="http://127.0.0.1:9/v1", num_retries=0, timeout_s=5)
    with pytest.raises(EmbeddingError, match="embedding model 'm' failed"):
        open_embedder(nobody).embed_query("a")


def test_a_server_of_ones_own_needs_no_provider_and_no_key(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    embedder = open_embedder(EmbedderConfig("my-model", api_base=endpoint.url))
    assert embedder.embed_query("a").shape == (3,)
    assert endpoint.requests[0]["model"] == "my-model"


def test_a_databricks_endpoint_is_reached_by_its_name(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_API_KEY", "databricks-secret-of-tests")
    monkeypatch.setenv("DATABRICKS_API_BASE", f"{endpoint.url}/serving-endpoints")
    endpoint.failures = [(429, {}, '{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "later"}')]
    embedder = open_embedder(EmbedderConfig("databricks/gte"))
    assert embedder.embed_query("a").shape == (3,)
    assert len(endpoint.requests) == 2
    assert endpoint.requests[0]["path"].startswith("/v1/serving-endpoints")
    assert endpoint.headers[0]["authorization"] == "Bearer databricks-secret-of-tests"


def test_the_fingerprint_is_of_model_place_and_settings(endpoint: Endpoint) -> None:
    same = config(endpoint, batch_size=3, timeout_s=1, num_retries=0)
    others = [
        config(endpoint, model="openai/embed-2"),
        config(endpoint, api_base="http://elsewhere/v1"),
        config(endpoint, dimensions=2),
        config(endpoint, passage_prefix="p"),
    ]
    fingerprints = [open_embedder(one).fingerprint for one in (config(endpoint), same, *others)]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 5

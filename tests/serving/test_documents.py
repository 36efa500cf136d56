"""What the page reads: the text of documents with the passage's place in it, and its own files and no others."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import program
from program.serving.documents import read_document
from program.serving.failures import RequestFailedError
from program.serving.guard import SECURITY_HEADERS
from retrieval.chunking import ChunkingSettings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

PLAYGROUND = Path(program.__path__[0]) / "playground"
FILES = sorted(file.name for file in PLAYGROUND.iterdir() if file.suffix in {".css", ".js", ".svg", ".html"})
URI = "https://docs.example/a?x=1&y=ü#z"

lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.sampled_from(
        [
            "",
            "# Head",
            "## Below",
            "- one\n- two",
            "```\ncode()\n```",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "A sentence of some words. And one more of them! 😀",
            "富士山の高さは3776メートルです。山頂では水が約88度で沸騰します。",
            "word " * 80,
            "長い" * 120,
            "   indented\t",
        ]
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    paragraphs=st.lists(lines, min_size=1, max_size=12),
    gap=st.sampled_from(["\n", "\n\n", "\n\n\n  \n", "\r\n\r\n"]),
    tokens=st.sampled_from([(16, 0), (16, 8), (40, 12), (200, 40)]),
)
def test_each_passage_stands_where_the_document_says_it_does(
    paragraphs: list[str], gap: str, tokens: tuple[int, int]
) -> None:
    text = gap.join(["Begin here.", *paragraphs])
    with tempfile.TemporaryDirectory() as folder:
        LocalIndex.build(
            Path(folder) / "index", [Document(URI, text, "A", "en")], chunking=ChunkingSettings(*tokens)
        )
        index = LocalIndex.open(Path(folder) / "index")
        passages = index.passages_of(URI)
        assert passages
        for passage in passages:
            shown = read_document(index, URI, passage.chunk_id)
            assert shown["text"][shown["start"] : shown["end"]] == passage.text
        # Nothing is shown twice or lost: only white space differs from what was indexed.
        assert shown["text"].split() == text.split()


def test_a_document_is_shown_with_the_passage_that_was_asked_for(serve: Any, index: LocalIndex) -> None:
    server = serve(index=index)
    [passage] = index.passages_of("https://docs.example/fuji")
    query = {"uri": passage.doc_uri, "chunk": passage.chunk_id}
    shown = server.client.get("/api/document", params=query).json()
    assert shown["text"][shown["start"] : shown["end"]] == passage.text
    assert (shown["doc_uri"], shown["title"], shown["lang"]) == (passage.doc_uri, "富士山", "ja")


@pytest.mark.parametrize("chunk", [None, "", "unknown", "\x00"])
def test_without_a_passage_of_its_own_a_document_has_no_place_marked(
    serve: Any, index: LocalIndex, chunk: str | None
) -> None:
    query = {"uri": "https://docs.example/water"} | ({} if chunk is None else {"chunk": chunk})
    shown = serve(index=index).client.get("/api/document", params=query).json()
    assert (shown["start"], shown["end"]) == (None, None)
    assert "100 degrees" in shown["text"]


@pytest.mark.parametrize(
    "uri", ["", "https://docs.example/", "https://docs.example/water/", "/etc/passwd", "\x00", "x" * 9000]
)
def test_an_unknown_document_is_not_found(serve: Any, index: LocalIndex, uri: str) -> None:
    response = serve(index=index).client.get("/api/document", params={"uri": uri})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "document_unknown")


def test_a_document_without_a_uri_is_a_bad_request(plain: Any) -> None:
    response = plain.client.get("/api/document")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")
    assert "uri" in response.json()["message"]


def test_a_server_without_an_index_shows_no_document(plain: Any) -> None:
    assert plain.client.get("/api/document?uri=x").status_code == 404
    assert plain.client.get("/api/playground").json()["index"] is None


def test_reading_an_unknown_document_raises_what_the_client_is_told(index: LocalIndex) -> None:
    with pytest.raises(RequestFailedError, match="No document 'nowhere'"):
        read_document(index, "nowhere")


def test_the_page_is_told_what_it_must_know(serve: Any, index: LocalIndex) -> None:
    told = (
        serve(index=index, token=None, programs=("default", "careful")).client.get("/api/playground").json()
    )
    assert told["reader"] == "echo"
    assert told["extractive"] is False
    assert told["programs"] == ["default", "careful"]
    assert told["index"] == {"documents": 3, "passages": len(index)}
    assert (told["auth"], told["tracing"]) == (False, False)
    assert {"k", "filters", "program", "session_id"} <= told["custom_inputs"]["properties"].keys()
    assert told["version"]


def test_each_file_of_the_page_is_served_with_its_type_and_checked_each_time(plain: Any) -> None:
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}
    assert "index.html" in FILES
    for name in FILES:
        response = plain.client.get(f"/playground/{name}")
        assert response.content == (PLAYGROUND / name).read_bytes()
        assert response.headers["content-type"].partition(";")[0] == types[Path(name).suffix]
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["etag"]
        assert SECURITY_HEADERS.items() <= dict(response.headers).items()
    assert plain.client.get("/").content == (PLAYGROUND / "index.html").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/playground/__init__.py",
        "/playground/",
        "/playground/.",
        "/playground/..",
        "/playground/../cli.py",
        "/playground/..%2fcli.py",
        "/playground/%2e%2e/cli.py",
        "/playground/%2e%2e%2fpy.typed",
        "/playground/..%5ccli.py",
        "/playground/....//index.html",
        "/playground//etc/passwd",
        "/playground/%2fetc%2fpasswd",
        "/playground/sub/app.js",
        "/playground/app.js/",
        "/playground/app.js%2f",
        "/playground/app.js%00",
        "/playground/%00.js",
        "/playground/app.js%2f..%2fapp.js",
        "/playground/..%252fcli.js",
        "/playground/nothing.js",
        "/playground/.js",
        "/playground/INDEX.HTML",
        "/playground/" + "x" * 300 + ".js",
        "/playground/%ff%fe.js",
    ],
)
def test_nothing_else_of_the_disk_is_served(plain: Any, path: str) -> None:
    status, body = get(plain, path)
    assert status == 404, body
    assert json.loads(body)["error"]["code"] == "not_found"


@settings(deadline=None, max_examples=100)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    suffix=st.sampled_from(["", ".js", ".html"]),
)
def test_no_made_up_name_is_a_file_of_the_page(plain: Any, name: str, suffix: str) -> None:
    status, body = get(plain, f"/playground/{quote(name + suffix, safe='')}")
    assert status == (200 if name + suffix in FILES else 404), body


def get(server: Any, path: str) -> tuple[int, bytes]:
    """Ask for a path as it stands: httpx would tidy it."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

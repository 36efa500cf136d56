"""A folder of documents in several formats, with one that cannot be read, and an embeddings server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from program.settings import Settings, load_settings
from program.spark.corpus.report import PipelineReport
from program.spark.corpus.run import index_on_spark

LONG = " ".join(f"Sentence number {number} says what pumps do at {number} degrees." for number in range(40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five documents, and a file that is none."""
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "pump.md").write_text(f"# Pumps\n\nA pump lifts water.\n\n## Care\n\n{LONG}\n")
    (docs / "deep" / "富士山.md").write_text(
        "# 富士山\n\n富士山の高さは3776メートルです。\n", encoding="utf-8"
    )
    (docs / "page.html").write_text("<html><head><title>Page</title></head><body><p>Ice melts.</p></body>")
    (docs / "front.md").write_text(
        "---\nteam: red\nyear: 2024\n---\n# Front\n\nIron melts at 1538 degrees.\n"
    )
    (docs / "plain.txt").write_text("Just a line of text.")
    (docs / "bad.md").write_bytes(b"# Bad\n\n\xff\xfe\x00\x81 not text \xff")
    return docs


@pytest.fixture
def settings_of(tmp_path: Path, folder: Path) -> Callable[..., Settings]:
    """Settings of a pipeline from the folder to the Delta directory `passages`; arguments are overrides."""

    def make(*overrides: str) -> Settings:
        own = [
            f"corpus.path={folder}",
            "corpus.base_url=https://e.org/",
            f"pipeline.table={tmp_path / 'passages'}",
            f"retrieval.index={tmp_path / 'index'}",
            "chunking.max_tokens=60",
            "chunking.overlap_tokens=10",
        ]
        return load_settings(None, [*own, *overrides], {})

    return make


@pytest.fixture
def index(settings_of: Callable[..., Settings], spark: Any) -> Callable[..., PipelineReport]:
    """Run the pipeline; positional arguments are overrides of settings."""

    def run(*overrides: str, **how: Any) -> PipelineReport:
        return index_on_spark(settings_of(*overrides), **how)

    return run


@dataclass
class EmbeddingServer:
    """An embeddings endpoint: `[length, count of e, 1]` for each text. From request `fails_from` on it answers 500."""

    url: str = ""
    texts: list[list[str]] = field(default_factory=list)
    fails_from: int | None = None
    dimension: int = 3
    lock: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, body: dict[str, Any]) -> tuple[int, bytes]:
        with self.lock:
            if self.fails_from is not None and len(self.texts) >= self.fails_from:
                return 500, b'{"error": {"message": "out of order"}}'
            self.texts.append(body["input"])
        rows = [
            {
                "object": "embedding",
                "index": number,
                "embedding": [len(text), text.count("e"), *[1.0] * (self.dimension - 2)],
            }
            for number, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        said = {"object": "list", "data": rows, "model": body["model"], "usage": usage}
        return 200, json.dumps(said).encode()


@pytest.fixture
def embeddings() -> Iterator[EmbeddingServer]:
    state = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = state.respond(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()

"""A server whose index is written anew while it serves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from retrieval.local_index import LocalIndex
from retrieval.types import Document


def document(degrees: int) -> Document:
    return Document("https://docs.example/water", f"Water boils at {degrees} degrees.", "Water", "en")


@pytest.mark.slow
def test_answers_come_from_the_index_as_it_is_without_a_restart(
    start_process: Callable[..., subprocess.Popen[str]],
    make_process_server: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / "living"
    LocalIndex.build(path, [document(100)])
    server = make_process_server(
        start_process("--set", f"retrieval.index={path}", "--set", "serving.trace_sample_rate=0")
    )
    assert "100 degrees" in server.ask("When does water boil?").text
    done = Event()

    def ask() -> int:
        count = 0
        while not done.is_set():
            answer = server.ask("When does water boil?")
            assert answer.status_code == 200
            assert "degrees" in answer.text
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for degrees in range(60, 75):
            LocalIndex.sync(path, [document(degrees), Document(f"https://docs.example/{degrees}", "Other.")])
        done.set()
        assert all(count.result() for count in asking)

    assert "74 degrees" in server.ask("When does water boil?").text
    uri = {"uri": "https://docs.example/water"}
    assert "74 degrees" in server.client.get("/api/document", params=uri).json()["text"]
    assert server.client.get("/api/playground").json()["index"] == {"documents": 2, "passages": 2}

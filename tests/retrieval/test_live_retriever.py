from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.errors import IndexMissingError, IndexUnusableError
from retrieval.live_retriever import LiveRetriever
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever
from retrieval.types import Document, Retriever


@pytest.fixture
def path(tmp_path: Path) -> Path:
    LocalIndex.build(tmp_path / "index", [Document("a", "version 1 of a"), Document("b", "version 1 of b")])
    return tmp_path / "index"


def texts(retriever: Retriever) -> list[str]:
    return sorted(passage.text for passage in retriever.search("version", 9))


def test_a_search_sees_what_was_written_before_it(path: Path) -> None:
    live = LiveRetriever(path, LocalRetriever)
    assert texts(live) == ["version 1 of a", "version 1 of b"]
    snapshot = live.current()
    LocalIndex.update(path, add_or_replace=[Document("a", "version 2 of a")], delete=["b"])
    assert texts(live) == ["version 2 of a"]
    assert live.index.doc_uris() == {"a"}
    assert live.identity != snapshot.identity
    assert live.search_many(["version", "a"], 5)[0].doc_uri == "a"
    assert texts(snapshot) == ["version 1 of a", "version 1 of b"], "what is under way keeps its snapshot"
    shutil.rmtree(path)
    LocalIndex.build(path, [Document("a", "version 3 of a")])
    assert texts(live) == ["version 3 of a"], "though its generation has the name of the first"


def test_an_index_that_does_not_change_is_opened_once(path: Path) -> None:
    opened: list[LocalIndex] = []

    def compose(index: LocalIndex) -> LocalRetriever:
        opened.append(index)
        return LocalRetriever(index)

    live = LiveRetriever(path, compose)
    for _ in range(3):
        live.search("version", 1)
        live.idf(["version"])
    LocalIndex.sync(path, [Document("a", "version 1 of a"), Document("b", "version 1 of b")])
    live.search("version", 1)
    assert len(opened) == 1


def test_without_an_index_it_cannot_begin(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError):
        LiveRetriever(tmp_path, LocalRetriever)


def _remove(path: Path) -> None:
    shutil.rmtree(path)


def _damage(path: Path) -> None:
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize("spoil", [_remove, _damage])
def test_what_cannot_be_opened_is_not_used_and_what_can_is(
    path: Path, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveRetriever(path, LocalRetriever)
    spoil(path)
    assert len(texts(live)) == 2
    assert len(texts(live)) == 2
    if path.exists():
        shutil.rmtree(path)
    LocalIndex.build(path, [Document("c", "version 1 of c")])
    monkeypatch.setattr("retrieval.live_retriever._RETRY_S", 0.0)
    monkeypatch.setattr(live, "_not_before", 0.0)
    assert texts(live) == ["version 1 of c"]


def test_an_index_that_cannot_be_searched_as_before_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = False

    def compose(index: LocalIndex) -> LocalRetriever:
        if refused:
            raise IndexUnusableError("It has no vectors.")
        return LocalRetriever(index)

    live = LiveRetriever(path, compose)
    refused = True
    LocalIndex.build(path, [Document("c", "version 1 of c")])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(texts(live)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "The new index is not used, the one before serves on: It has no vectors."
    ]


def test_every_search_sees_one_whole_version_while_the_index_is_written(path: Path) -> None:
    live = LiveRetriever(path, LocalRetriever)
    done = threading.Event()

    def read() -> set[str]:
        seen: set[str] = set()
        while not done.is_set():
            found = texts(live)
            versions = {text.split()[1] for text in found}
            assert len(found) == 2
            assert len(versions) == 1
            seen |= versions
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for number in range(2, 12):
            LocalIndex.sync(path, [Document(name, f"version {number} of {name}") for name in "ab"])
        done.set()
        assert all(len(reader.result()) > 1 for reader in readers)
    assert texts(live) == ["version 11 of a", "version 11 of b"]

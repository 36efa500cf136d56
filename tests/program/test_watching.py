"""`citeqa index --watch` as a process: what it does when files, folders and signals come."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from program.watching import watch_files
from retrieval import generations
from retrieval.errors import ConfigurationError, IndexMissingError
from retrieval.local_index import LocalIndex

INDEX = Path("build/index")


def write(file: Path, text: str) -> None:
    file.write_text(f"---\ndoc_uri: https://d.example/{file.stem}\n---\n{text}\n", encoding="utf-8")


def held(folder: Path) -> set[str]:
    try:
        return {uri.rpartition("/")[2] for uri in LocalIndex.open(folder / INDEX).doc_uris()}
    except IndexMissingError:
        return set()


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


class Watcher:
    """A running `citeqa index --watch`, and what it says."""

    def __init__(self, folder: Path, corpus: str) -> None:
        self.folder = folder
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "citeqa", "index", "--watch", "--corpus", corpus],
                cwd=folder,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    write(tmp_path / "docs" / "a.md", "one")
    return tmp_path / "docs"


@pytest.fixture
def watcher(corpus: Path) -> Iterator[Watcher]:
    watcher = Watcher(corpus.parent, "docs")
    try:
        wait_for(lambda: "Watching docs" in watcher.err)
        yield watcher
    finally:
        watcher.process.kill()
        watcher.process.wait()


def test_an_index_keeps_up_until_it_is_told_to_end(watcher: Watcher, corpus: Path) -> None:
    folder = watcher.folder
    assert held(folder) == {"a"}

    for number in range(30):
        write(corpus / f"burst{number}.md", "words")
    wait_for(lambda: len(held(folder)) == 31)
    assert len(watcher.out) == 2, "a burst is one update"

    write(corpus / "bad.md", "fine")
    wait_for(lambda: "bad" in held(folder))
    (corpus / "bad.md").write_bytes(b"---\ndoc_uri: [unclosed\n---\n")
    wait_for(lambda: "Refused: bad.md" in watcher.err)
    assert "bad" in held(folder), "its last good version stays"

    with generations.writing(folder / INDEX):
        (corpus / "bad.md").unlink()
        wait_for(lambda: "Another process is writing" in watcher.err)
    wait_for(lambda: "bad" not in held(folder))

    corpus.rename(folder / "away")
    wait_for(lambda: "There is no corpus at 'docs'" in watcher.err)
    (folder / "away" / "burst0.md").unlink()
    shutil.copytree(folder / "away", corpus)
    wait_for(lambda: "burst0" not in held(folder))
    write(corpus / "last.md", "text")
    wait_for(lambda: "last" in held(folder))

    assert watcher.end(signal.SIGINT) == 0
    assert watcher.err.endswith("Stopped.\n")
    assert "Traceback" not in watcher.err
    assert len(held(folder)) == 31


def test_sigterm_ends_it_as_well(watcher: Watcher) -> None:
    assert watcher.end(signal.SIGTERM) == 0
    assert watcher.err.endswith("Stopped.\n")
    assert held(watcher.folder) == {"a"}
    assert not (watcher.folder / INDEX / "manifest.json.new").exists()


def test_a_file_of_documents_is_watched_though_it_is_replaced(tmp_path: Path) -> None:
    file, other = tmp_path / "docs.jsonl", tmp_path / "other.jsonl"
    file.write_text('{"doc_uri": "a", "text": "one"}\n')
    changes = watch_files([file], tmp_path / "index")
    assert next(changes) is False
    other.write_text('{"doc_uri": "b", "text": "two"}\n')
    other.replace(file)
    assert any(next(changes) for _ in range(20))


def test_hidden_files_and_the_index_itself_are_no_change(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    changes = watch_files([tmp_path], tmp_path / "index")
    assert next(changes) is False
    (tmp_path / "index" / "x").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert not any(next(changes) for _ in range(4))
    (tmp_path / "seen").write_text("x")
    assert any(next(changes) for _ in range(20))


def test_without_the_package_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'citeqa\[watch\]'"):
        next(watch_files([tmp_path], tmp_path / "index"))


pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

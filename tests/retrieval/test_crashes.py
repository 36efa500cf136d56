"""Whatever ends a write, the index is whole: each step fails in turn, processes are killed, disks are full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retrieval import generations, indexing
from retrieval.errors import CorpusError, IndexMissingError, StorageError
from retrieval.local_index import LocalIndex
from retrieval.registry import RegistryDraft
from retrieval.sources import Source
from retrieval.types import Document

Contents = dict[str, str]
"""The text of each document by its doc_uri; "bad" cannot be read."""


def sources(contents: Contents) -> Iterator[Source]:
    for uri, text in contents.items():
        yield Source(
            f"{uri}.md",
            blake2b(text.encode(), digest_size=16, person=uri.encode()).hexdigest(),
            load(uri, text),
        )


def load(uri: str, text: str) -> Callable[[], list[Document]]:
    def read() -> list[Document]:
        if text == "bad":
            raise CorpusError(f"{uri}.md: bad")
        return [Document(uri, text, uri)]

    return read


def held(path: Path) -> Contents:
    index = LocalIndex.open(path)
    found = {uri: index.passages_of(uri)[0].text for uri in index.doc_uris()}
    assert len(index) == len(found)
    assert {passage.doc_uri for passage in index.search("text", 100)} == set(found)
    return found


BEFORE = {"a": "text one", "b": "text two", "c": "text three"}
AFTER = {"a": "text one", "b": "text new", "d": "text four"}

STEPS = (
    (Path, "mkdir"),
    (Path, "unlink"),
    (Path, "replace"),
    (os, "link"),
    (os, "fsync"),
    (shutil, "copyfile"),
    (shutil, "rmtree"),
    (RegistryDraft, "write"),
    (generations, "file_sizes"),
    (indexing, "to_index_document"),
    (indexing._Segments, "delete"),
    (indexing._Segments, "commit"),
)
"""Everything that writes, or stands between two things that do."""


@contextmanager
def failing(at: int, fail: Callable[[], None], *, after: bool = False) -> Iterator[list[str]]:
    """Within, the step of this number fails; gives the names of those that were reached."""
    reached: list[str] = []

    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **keywords: object) -> object:
            reached.append(name)
            number = len(reached) - 1
            if number == at and not after:
                fail()
            result = real(*arguments, **keywords)
            if number == at and after:
                fail()
            return result

        return step

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, wrap(name, getattr(owner, name)))
        yield reached


def refuse() -> None:
    raise OSError(28, "No space left on device")


def steps_of_a_sync(folder: Path) -> list[str]:
    LocalIndex.build(folder / "counted", sources(BEFORE))
    with failing(-1, refuse) as reached:
        LocalIndex.sync(folder / "counted", sources(AFTER))
    return reached


def test_a_disk_that_refuses_at_any_step_leaves_a_whole_index_and_a_later_write_succeeds(
    tmp_path: Path,
) -> None:
    steps = steps_of_a_sync(tmp_path)
    assert set(steps) >= {"mkdir", "link", "fsync", "write", "commit", "replace", "rmtree"}
    for after in (False, True):
        for number, step in enumerate(steps):
            path = tmp_path / f"{number}{after}"
            LocalIndex.build(path, sources(BEFORE))
            with failing(number, refuse, after=after) as reached:
                try:
                    LocalIndex.sync(path, sources(AFTER))
                    is_done = True  # as where links are refused: files are copied then
                except (StorageError, OSError):
                    assert reached[number] == step
                    # The manifest is replaced last; what fails after it are only the files of the old one.
                    is_done = number > steps.index("replace") or (after and step == "replace")
            assert held(path) == (AFTER if is_done else BEFORE), (number, step, after)
            LocalIndex.sync(path, sources(AFTER))
            assert held(path) == AFTER
            assert len(list(path.glob("generation-*"))) == 1


_KILLED_AT_EACH_STEP = """
    import os, signal, sys
    sys.path.insert(0, {folder!r})
    from test_crashes import AFTER, BEFORE, failing, sources
    from pathlib import Path
    from retrieval.local_index import LocalIndex

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    for number in range({steps}):
        path = Path(sys.argv[1]) / str(number)
        # Each in a process of its own, without the cost of starting Python.
        for write in (lambda: LocalIndex.build(path, sources(BEFORE)), None):
            child = os.fork()
            if not child:
                if write:
                    write()
                else:
                    with failing(number, die):
                        LocalIndex.sync(path, sources(AFTER))
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            assert status == (0 if write else signal.SIGKILL), (number, status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes of its own")
def test_a_process_that_is_killed_at_any_step_leaves_a_whole_index_and_the_next_cleans_up(
    tmp_path: Path,
) -> None:
    steps = steps_of_a_sync(tmp_path)
    script = _KILLED_AT_EACH_STEP.format(folder=str(Path(__file__).parent), steps=len(steps))
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=True, timeout=120)
    for number, step in enumerate(steps):
        path = tmp_path / str(number)
        assert held(path) == (AFTER if number > steps.index("replace") else BEFORE), (number, step)
        LocalIndex.sync(path, sources(AFTER))
        assert held(path) == AFTER
        assert len(list(path.glob("generation-*"))) == 1


_WRITING_FOREVER = """
    import sys
    from retrieval.local_index import LocalIndex
    from retrieval.types import Document

    number = 0
    while True:
        number += 1
        version = [Document(f"u{n}", f"text {number % 7}") for n in range(40)]
        (LocalIndex.build if number % 3 else LocalIndex.sync)(sys.argv[1], version)
        print(number, flush=True)
"""


@pytest.mark.slow
def test_processes_that_are_killed_at_any_time_leave_one_whole_version(tmp_path: Path) -> None:
    path, chance = tmp_path / "index", random.Random(0)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_WRITING_FOREVER), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))
            writer.send_signal(signal.SIGKILL)
        found = held(path)
        assert len(found) == 40
        assert len(set(found.values())) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_is_full_leaves_the_old_index_and_room_for_the_next(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = disk / "index"
        LocalIndex.build(path, sources(BEFORE))
        chance = random.Random(0)
        many = {f"u{n}": " ".join(f"text{chance.random()}" for _ in range(100)) for n in range(600)}
        for write in (LocalIndex.sync, LocalIndex.build):
            with pytest.raises(StorageError, match=r"Cannot write the index .*unchanged"):
                write(path, sources(many))
            assert held(path) == BEFORE
            assert len(list(path.glob("generation-*"))) == 1
        LocalIndex.sync(path, sources(AFTER))
        assert held(path) == AFTER
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Any sequence of writes, some of which fail, against a model of the content

_URIS = st.sampled_from(["a", "b", "c", "d"])
_TEXTS = st.sampled_from(["text one", "text two"])
_GOOD = st.dictionaries(_URIS, _TEXTS, min_size=1)
_MIXED = st.dictionaries(_URIS, st.one_of(_TEXTS, st.just("bad")), min_size=1)


class CrashError(BaseException):
    """What no program expects."""


class IndexMachine(RuleBasedStateMachine):
    """An index, and what it should hold."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / str(time.perf_counter_ns())
        self.model: Contents = {}
        self.snapshots: list[tuple[LocalIndex, set[str]]] = []

    @initialize(contents=_GOOD)
    def begin(self, contents: Contents) -> None:
        LocalIndex.build(self.path, sources(contents))
        self.model = dict(contents)

    @rule(contents=_MIXED)
    def build(self, contents: Contents) -> None:
        self._write(LocalIndex.build, contents, {})

    @rule(contents=_MIXED)
    def sync(self, contents: Contents) -> None:
        self._write(
            LocalIndex.sync, contents, {uri: self.model[uri] for uri in contents if uri in self.model}
        )

    def _write(self, write: Callable[..., object], contents: Contents, before: Contents) -> None:
        good = {uri: text for uri, text in contents.items() if text != "bad"}
        if not good:
            with pytest.raises(CorpusError, match="None of"):
                write(self.path, sources(contents))
            return
        write(self.path, sources(contents))
        self.model = {**before, **good}

    @rule(replaced=st.dictionaries(_URIS, _TEXTS), deleted=st.lists(_URIS, max_size=3))
    def update(self, replaced: Contents, deleted: list[str]) -> None:
        LocalIndex.update(
            self.path, add_or_replace=[load(*one)()[0] for one in replaced.items()], delete=deleted
        )
        self.model = {**{uri: text for uri, text in self.model.items() if uri not in deleted}, **replaced}

    @rule(contents=_GOOD, write=st.sampled_from([LocalIndex.build, LocalIndex.sync]), at=st.integers(0, 25))
    def crash(self, contents: Contents, write: Callable[..., object], at: int) -> None:
        def fail() -> None:
            raise CrashError

        try:
            with failing(at, fail), pytest.MonkeyPatch.context() as patch:
                # Who is dead does not clean up.
                patch.setattr(generations, "_remove_leftovers", lambda path: None)
                write(self.path, sources(contents))
        except CrashError:
            return
        self.model = dict(contents)

    @rule()
    def open(self) -> None:
        self.snapshots.append((LocalIndex.open(self.path), set(self.model)))

    @invariant()
    def it_holds_what_was_written_last(self) -> None:
        try:
            found = held(self.path)
        except IndexMissingError:
            found = {}
        assert found == self.model

    @invariant()
    def snapshots_stay_as_they_were(self) -> None:
        for index, uris in self.snapshots:
            assert index.doc_uris() == uris
            assert {passage.doc_uri for passage in index.search("text", 10)} == uris


def test_any_sequence_of_writes_and_crashes_leaves_what_was_written_last(tmp_path: Path) -> None:
    machine = type("Machine", (IndexMachine,), {"folder": tmp_path})
    run = machine.TestCase
    run.settings = settings(
        max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run("runTest").runTest()

"""What was computed once stays: whatever ends a process, however many write, and never what is damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.content_store import ContentStore, content_key
from retrieval import sqlite_cache
from retrieval.errors import StorageError

# Any text, halves of surrogate pairs included, which UTF-8 does not have.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(tmp_path / "stages.db") as opened:
        yield opened


def edit(store: ContentStore, statement: str, *values: Any) -> None:
    """Change the file as a broken disk would, behind the store's back."""
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_what_is_put_is_got_by_its_kind_and_key(store: ContentStore) -> None:
    assert store.get("answer", "k") is None
    store.put("answer", "k", {"text": "富士山"})
    store.put("search", "k", {"text": "other"})
    assert store.get("answer", "k") == {"text": "富士山"}
    assert store.get("search", "k") == {"text": "other"}
    assert store.get("answer", "K") is None


def test_what_is_put_again_takes_the_place_of_what_was_there(store: ContentStore) -> None:
    store.put("answer", "k", {"text": "old"})
    store.put("answer", "k", {"text": "new"})
    assert store.get("answer", "k") == {"text": "new"}


def test_what_was_put_is_there_in_the_next_process(tmp_path: Path) -> None:
    with ContentStore(tmp_path / "deep" / "er" / "stages.db") as store:
        store.put_all("answer", {"a": {"n": 1}, "b": {"n": 2}})
    program = (
        "import sys; from pathlib import Path; from program.content_store import ContentStore\n"
        "print(ContentStore(Path(sys.argv[1])).get('answer', 'b'))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(store.path)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "{'n': 2}"


@pytest.fixture(scope="module")
def lasting_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContentStore]:
    with ContentStore(tmp_path_factory.mktemp("store") / "stages.db") as opened:
        yield opened


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_any_json_comes_back_as_it_was(lasting_store: ContentStore, value: dict[str, Any]) -> None:
    lasting_store.put("answer", "k", value)
    assert lasting_store.get("answer", "k") == value


@given(TEXT, TEXT)
def test_any_text_has_a_key(one: str, other: str) -> None:
    assert (content_key(one) == content_key(other)) == (one == other)


# Keys


def test_a_key_does_not_depend_on_the_order_of_a_dictionary_or_on_the_process() -> None:
    assert content_key({"a": 1, "b": "日"}) == content_key({"b": "日", "a": 1})
    program = "from program.content_store import content_key; print(content_key({'b': '\\u65e5', 'a': 1}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert said.stdout.strip() == content_key({"a": 1, "b": "日"})


def test_parts_are_not_glued_together() -> None:
    assert (
        len({content_key("a", "b"), content_key("ab"), content_key(["a", "b"]), content_key("a", ["b"])}) == 4
    )
    assert (
        len({content_key(1), content_key("1"), content_key(True), content_key(None), content_key(1.0)}) == 5
    )


# Damage


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE contents SET value = substr(value, 1, length(value) - 1)",
        "UPDATE contents SET value = x'00' || substr(value, 2)",
        "UPDATE contents SET value = 'text'",
        "UPDATE contents SET value = NULL",
        "UPDATE contents SET check_ = NULL",
        "UPDATE contents SET key = 'other' WHERE key = 'k'",
    ],
)
def test_a_damaged_value_is_as_one_that_is_not_there_and_can_be_put_anew(
    store: ContentStore, statement: str
) -> None:
    store.put("answer", "k", {"text": "富士山" * 50})
    edit(store, statement)
    key = "other" if "other" in statement else "k"
    assert store.get("answer", key) is None
    assert store.damaged == 1
    store.put("answer", key, {"text": "new"})
    assert store.get("answer", key) == {"text": "new"}
    assert store.damaged == 1


def test_a_value_does_not_pass_for_that_of_another_kind(store: ContentStore) -> None:
    store.put("answer", "k", {"text": "a"})
    edit(store, "UPDATE contents SET kind = 'search'")
    assert store.get("search", "k") is None


def test_a_file_that_is_no_store_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "stages.db"
    file.write_text("these are my notes, and no database at all\n" * 100, encoding="utf-8")
    assert refusal(file) == (
        f"The cache '{file}' cannot be used (file is not a database). Free it, name another place, or delete it: "
        "nothing but time is lost."
    )


def test_pages_of_the_file_that_are_overwritten_are_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "stages.db"
    with ContentStore(file) as store:
        store.put_all("answer", {f"k{n}": {"text": os.urandom(500).hex()} for n in range(200)})
    content = bytearray(file.read_bytes())
    content[4096 : len(content) - 4096] = b"\x99" * (len(content) - 8192)
    file.write_bytes(content)
    with ContentStore(file) as store, pytest.raises(StorageError, match="cannot be used") as raised:
        [store.get("answer", f"k{n}") for n in range(200)]
    assert "\n" not in str(raised.value)


def test_another_databases_table_of_that_name_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "stages.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE contents (page TEXT)")
    connection.close()
    with ContentStore(file) as store, pytest.raises(StorageError, match="no such column"):
        store.get("answer", "k")


def test_a_place_below_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "cannot be used" in refusal(tmp_path / "file" / "stages.db")


def test_a_directory_in_the_place_of_the_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "stages.db").mkdir()
    assert "unable to open database file" in refusal(tmp_path / "stages.db")


def test_a_read_only_store_is_told_in_one_line(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("answer", "k", {"text": "a"})
    really_connect = sqlite3.connect
    # Root may write anywhere, so the connection is what refuses.
    monkeypatch.setattr(
        sqlite_cache.sqlite3,
        "connect",
        lambda path, **how: really_connect(f"file:{path}?mode=ro", uri=True, **how),
    )
    with ContentStore(store.path) as read_only:
        assert read_only.get("answer", "k") == {"text": "a"}
        with pytest.raises(StorageError, match="attempt to write a readonly database"):
            read_only.put("answer", "k", {"text": "b"})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_directory_without_permission_is_told_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be used" in refusal(tmp_path / "stages.db")


def test_a_store_that_is_locked_for_too_long_is_told_in_one_line(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_cache, "_BUSY_S", 0.1)
    store.put("answer", "k", {"text": "a"})
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with ContentStore(store.path) as waiting:
            assert waiting.get("answer", "k") == {"text": "a"}, "who reads does not wait for who writes"
            with pytest.raises(StorageError, match="database is locked"):
                waiting.put("answer", "k", {"text": "b"})
            other.execute("ROLLBACK")
            waiting.put("answer", "k", {"text": "c"})
            assert waiting.get("answer", "k") == {"text": "c"}
    finally:
        other.close()


def test_values_that_are_put_together_are_kept_all_or_not_at_all(store: ContentStore) -> None:
    refuse = "BEGIN SELECT RAISE(ABORT, 'full'); END"
    edit(store, f"CREATE TRIGGER full BEFORE INSERT ON contents WHEN NEW.key = 'b' {refuse}")
    with pytest.raises(StorageError, match="full"):
        store.put_all("answer", {"a": {"n": 1}, "b": {"n": 2}})
    assert store.get("answer", "a") is None
    store.put("answer", "a", {"n": 3})
    assert store.get("answer", "a") == {"n": 3}


def test_a_closed_store_says_so_and_closing_twice_is_no_error(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "stages.db")
    store.close()
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.get("answer", "k")


def refusal(file: Path) -> str:
    with pytest.raises(StorageError) as raised:
        ContentStore(file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Many at once


def test_many_threads_write_and_read_at_once(store: ContentStore) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(40):
                store.put("answer", f"{thread}-{n}", {"n": n})
                store.put("answer", "shared", {"by": thread})
                assert store.get("answer", f"{thread}-{n}") == {"n": n}
                assert store.get("answer", "shared") is not None
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(store.get("answer", f"{thread}-39") == {"n": 39} for thread in range(8))
    assert store.damaged == 0


WRITER = """
import sys
from pathlib import Path
from program.content_store import ContentStore

sys.stdin.readline()
with ContentStore(Path(sys.argv[1])) as store:
    for n in range(150):
        store.put_all("answer", {f"{sys.argv[2]}-{n}": {"n": n}, f"shared-{n}": {"by": sys.argv[2]}})
"""


def test_two_processes_open_and_write_one_store_at_once(tmp_path: Path) -> None:
    file = tmp_path / "stages.db"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), name], stdin=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with ContentStore(file) as store:
        assert all(store.get("answer", f"{name}-{n}") == {"n": n} for name in "ab" for n in range(150))
        assert store.damaged == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from program.content_store import ContentStore

store = ContentStore(Path(sys.argv[1]))
for n in range(1000):
    store.put("answer", f"k{n}", {"n": n})
    os.write(1, b"%d\\n" % n)
"""


def test_what_was_put_before_a_kill_is_there(tmp_path: Path) -> None:
    file = tmp_path / "stages.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(50):
            last = int(process.stdout.readline())
        process.kill()
        said = process.stdout.read().split()
    last = int(said[-1]) if said else last
    with ContentStore(file) as store:
        assert all(store.get("answer", f"k{n}") == {"n": n} for n in range(last + 1))
        assert store.damaged == 0


def test_threads_that_still_ask_when_it_is_closed_are_refused_and_crash_nothing(tmp_path: Path) -> None:
    for attempt in range(20):
        store = ContentStore(tmp_path / f"{attempt}.db")
        store.put_all("kind", {str(n): {"text": "words " * 200} for n in range(50)})
        asking = threading.Barrier(5)

        def ask(store: ContentStore = store, asking: threading.Barrier = asking) -> bool:
            asking.wait()
            try:
                for n in range(100_000):
                    store.get("kind", str(n % 50))
            except StorageError:
                return True
            return False

        with ThreadPoolExecutor(4) as pool:
            refused = [pool.submit(ask) for _ in range(4)]
            asking.wait()
            time.sleep(0.005)
            store.close()
            assert all(outcome.result() for outcome in refused)
        store.close()

"""Replicas that start together on one machine."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier

from program.memory.sqlite_store import SqliteConversations
from program.threads import map_in_threads


def test_two_that_make_one_file_at_once_both_have_it(tmp_path: Path) -> None:
    for number in range(30):  # of so many, SQLite refuses several where the second does not wait
        together = Barrier(2)

        def open_one(_: int, path: Path = tmp_path / f"{number}.db", together: Barrier = together) -> None:
            together.wait()
            SqliteConversations(path, expire_s=1000).close()

        assert list(map_in_threads(open_one, range(2), threads=2, name="open")) == [None, None]

"""Finished traces on their way to the tracking store: files of one trace a line, appended and read in order.

    <spool>/<name>/lock              held by the server that appends
    <spool>/<name>/000001.jsonl      a segment; the writer removes it when all of it is in the store
    <spool>/<name>/refused.jsonl     traces that the store would not take, with its reason

A store takes far fewer traces a second than a server answers requests, and appending a line costs next to
nothing. What a crash leaves is brought to the store by the next server that uses the spool.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout
from mlflow.entities import Trace

from retrieval.errors import StorageError

SEGMENT_BYTES = 8 * 2**20
_LOCK = "lock"
_REFUSED = "refused.jsonl"


def spool_line(trace: Trace) -> bytes:
    """A trace as the spool holds it."""
    return trace.to_json().encode("utf-8", "replace") + b"\n"


class TraceSpool:
    """The appending side. Safe to use from many threads at once."""

    def __init__(self, root: str | Path, max_bytes: int) -> None:
        """A folder of its own under `root`, so that servers can share one.

        Raises:
            StorageError: if it cannot be made.
        """
        self.path = Path(root) / f"{os.getpid()}-{uuid4().hex[:8]}"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._segment = 1
        self._segment_bytes = 0
        self._pending_bytes = 0
        try:
            self.path.mkdir(parents=True)
            self._held = FileLock(self.path / _LOCK)
            self._held.acquire(timeout=0)
            self._file = self._open()
        except OSError as error:
            raise StorageError(
                f"Traces cannot be kept in '{root}': {error.strerror}. Choose another folder with "
                "--set serving.trace_spool=…"
            ) from error

    def append(self, line: bytes) -> bool:
        """Keep a trace, as `spool_line` gives it.

        False when there is no room, on the disk or in the limit, or the spool is closed.
        """
        with self._lock:
            if self._file.closed or self._pending_bytes + len(line) > self._max_bytes:
                return False
            try:
                if self._segment_bytes >= SEGMENT_BYTES:
                    self._begin_segment()
                self._file.write(line)
                self._file.flush()
            except OSError:
                return False
            self._segment_bytes += len(line)
            self._pending_bytes += len(line)
        return True

    def written(self, size: int) -> None:
        """`size` bytes of it are in the store: there is room for as many."""
        with self._lock:
            self._pending_bytes -= size

    def close(self) -> None:
        """Append no more. Others still leave it to this process, whose writer brings the rest to the store."""
        with self._lock:
            self._file.close()

    def leave(self, *, is_empty: bool) -> None:
        """Let others bring to the store what is left of it; without anything left, remove it."""
        reader = SpoolReader(self.path)
        if is_empty:
            reader.remove_segments()  # while it is held: what others see of it then is nothing to do
        self._held.release()
        if is_empty:
            reader.remove()

    def _begin_segment(self) -> None:
        self._file.close()
        self._segment += 1
        self._segment_bytes = 0
        self._file = self._open()

    def _open(self) -> BinaryIO:
        return (self.path / f"{self._segment:06d}.jsonl").open("ab")


@dataclass(frozen=True, slots=True)
class SpooledTraces:
    """Traces read from a spool, and how many bytes they take there. `damaged` lines are no traces."""

    traces: list[Trace]
    size: int
    damaged: list[bytes]


class SpoolReader:
    """The reading side of one spool, in one process: what was appended, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self, most: int) -> SpooledTraces | None:
        """The next traces, at most `most`; None when there is none yet. The same again until `forget`."""
        for segment in self._segments():
            lines = self._lines(segment, most)
            if lines:
                return _parse(lines)
            if not self._is_last(segment):
                self._remove(segment)
        return None

    def forget(self, batch: SpooledTraces) -> None:
        """The batch has been dealt with."""
        self._offset += batch.size

    def refuse(self, line: bytes, reason: str) -> None:
        """Put a trace aside that the store would not take."""
        record = {"reason": reason, "trace": line.decode("utf-8", "replace").rstrip("\n")}
        with (self.path / _REFUSED).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def remove(self) -> None:
        """Remove the spool, but for the traces that were refused."""
        self.remove_segments()
        if not (self.path / _REFUSED).exists():
            (self.path / _LOCK).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                self.path.rmdir()

    def remove_segments(self) -> None:
        """Remove the traces that all have arrived."""
        for segment in self._segments():
            segment.unlink(missing_ok=True)

    def _segments(self) -> list[Path]:
        return sorted(self.path.glob("[0-9]*.jsonl"))

    def _is_last(self, segment: Path) -> bool:
        return segment == self._segments()[-1]

    def _remove(self, segment: Path) -> None:
        segment.unlink()
        self._offset = 0

    def _lines(self, segment: Path, most: int) -> list[bytes]:
        with segment.open("rb") as file:
            file.seek(self._offset)
            lines: list[bytes] = []
            for line in file:
                if not line.endswith(b"\n") or len(lines) == most:
                    break
                lines.append(line)
        return lines


def abandoned_spools(root: Path) -> Iterator[Path]:
    """The spools under `root` whose server is gone, each held while it is dealt with."""
    for path in sorted(root.iterdir()):
        if not any(path.glob("[0-9]*.jsonl")):
            continue
        lock = FileLock(path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield path
        finally:
            lock.release()


def _parse(lines: list[bytes]) -> SpooledTraces:
    traces, damaged = [], []
    for line in lines:
        try:
            traces.append(Trace.from_json(line.decode()))
        except Exception:  # noqa: BLE001 - MLflow raises what it likes for what is no trace; it is put aside
            damaged.append(line)
    return SpooledTraces(traces, sum(map(len, lines)), damaged)

"""What a batch has answered, on disk as soon as it is known: whatever ends the process, it stays answered.

Next to `answers.csv` is the directory `answers.csv.run` with
    journal.jsonl   a first line that says what the batch is of, then a line for each thing that happened:
                    {"row": 7, …} an answer, {"forgotten": "failures"} those before are asked again,
                    {"output": "<SHA-256>", "rows": 9} an output of so many is about to be put in its place
    .lock           held by the process that works on it
The journal is appended to and never rewritten; of several answers to a row, the last counts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from program.files import append_lines, complete_lines, to_json
from retrieval.errors import DataError, StorageError

FORMAT_VERSION = 1


class State(IntEnum):
    """What became of a row."""

    WAITING = 0
    ANSWERED = 1
    ABSTAINED = 2
    FAILED = 3


class Journal:
    """One output's journal. Entered, it is held: by one process at a time."""

    def __init__(self, out: Path) -> None:
        self.directory = out.with_name(f"{out.name}.run")
        self.file = self.directory / "journal.jsonl"
        self.outputs: set[str] = set()
        self.latest: tuple[str, int] | None = None
        """The last output's SHA-256 and how many rows it has; None when something has happened since."""
        self._lock = FileLock(self.directory / ".lock")
        self._places = array("q")
        self._states = bytearray()
        self._reader: BinaryIO | None = None

    def __enter__(self) -> Journal:
        """Hold it.

        Raises:
            StorageError: if the disk refuses, or another process holds it.
        """
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise StorageError(
                    f"Another process is answering into '{self.directory}'. Wait for it, or name another --out."
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
        self._lock.release()

    def load(self, rows: int) -> Mapping[str, Any] | None:
        """Read what happened to a batch of so many rows; what the batch is of, or None when it is new.

        Raises:
            DataError: if a line is damaged, or a citeqa of another format version wrote it.
            StorageError: if it cannot be read.
        """
        self._places = array("q", bytes(8 * rows))
        self._states = bytearray(rows)
        binding: Mapping[str, Any] | None = None
        with writing(self.file):
            for number, (place, line) in enumerate(complete_lines(self.file), start=1):
                entry = self._parse(line, number)
                if binding is None:
                    binding = self._read_binding(entry)
                else:
                    self._take(entry, place, number)
        return binding

    def begin(self, binding: Mapping[str, Any]) -> None:
        """Say what the batch is of, as the first line."""
        self._append({"format_version": FORMAT_VERSION, "binding": binding})

    def keep(self, row: int, record: Mapping[str, Any]) -> None:
        """Keep what became of a row, a failure being one with an `error`. Raises StorageError."""
        entry = {"row": row, **record}
        self._note(row, entry, self._append(entry))

    def forget_failures(self) -> None:
        """Have the rows that failed asked again. Raises StorageError."""
        if self.count(State.FAILED):
            self._append({"forgotten": "failures"})
            self._forget_failures()

    def note_output(self, digest: str, rows: int) -> None:
        """An output with this SHA-256 and so many rows is this batch's. Raises StorageError."""
        self._append({"output": digest, "rows": rows})
        self._take_output(digest, rows)

    def state(self, row: int) -> State:
        """What became of a row."""
        return State(self._states[row])

    def count(self, state: State, rows: int | None = None) -> int:
        """How many of the first `rows` (default: all) are in a state."""
        return self._states.count(state, 0, rows)

    def first_failure(self, rows: int) -> str:
        """Why the first that failed of so many rows did; empty when none did. Raises StorageError."""
        row = self._states.find(State.FAILED, 0, rows)
        return "" if row < 0 else str(self.read(row)["error"])

    def read(self, row: int) -> dict[str, Any]:
        """What is kept of an answered row.

        Raises:
            StorageError: if it cannot be read.
        """
        with writing(self.file):
            self._reader = self._reader or self.file.open("rb")
            self._reader.seek(self._places[row])
            record: dict[str, Any] = json.loads(self._reader.readline())
        return record

    def _append(self, entry: Mapping[str, Any]) -> int:
        with writing(self.file):
            return append_lines(self.file, [to_json(entry)])

    def _parse(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise self._damaged(number, str(error)) from None
        if not isinstance(entry, dict):
            raise self._damaged(number, "not an object")
        return entry

    def _read_binding(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        version, binding = entry.get("format_version"), entry.get("binding")
        if version != FORMAT_VERSION or not isinstance(binding, dict):
            raise DataError(
                f"{self.file}: written in format {version!r}, this citeqa uses {FORMAT_VERSION}. Use that "
                "citeqa, or name another --out."
            )
        return binding

    def _take(self, entry: Mapping[str, Any], place: int, number: int) -> None:
        match entry:
            case {"row": int(row)} if 0 <= row < len(self._states):
                self._note(row, entry, place)
            case {"forgotten": "failures"}:
                self._forget_failures()
            case {"output": str(digest), "rows": int(rows)}:
                self._take_output(digest, rows)
            case _:
                raise self._damaged(number, "none of the entries that there are")

    def _take_output(self, digest: str, rows: int) -> None:
        self.outputs.add(digest)
        self.latest = digest, rows

    def _note(self, row: int, entry: Mapping[str, Any], place: int) -> None:
        self.latest = None
        self._places[row] = place
        if entry.get("error") is not None:
            self._states[row] = State.FAILED
        else:
            self._states[row] = State.ABSTAINED if entry.get("abstained") else State.ANSWERED

    def _forget_failures(self) -> None:
        self.latest = None
        self._states = self._states.replace(bytes([State.FAILED]), bytes([State.WAITING]))

    def _damaged(self, number: int, reason: str) -> DataError:
        return DataError(
            f"{self.file}, line {number}: damaged ({reason}). Remove the line; what is missing is asked again."
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses is a StorageError of one line."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"'{path}' cannot be written: {error.strerror or error}. Mend that, or name another --out; the "
            "same command goes on with what is kept."
        ) from error

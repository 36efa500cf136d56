"""A batch: the questions of a table, answered into another. The same batch again goes on where it ended.

Nothing here asks anything, so that a batch can be refused, or found finished, before an agent is built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from program.batch_journal import Journal, State, writing
from program.batch_output import write_table
from program.batch_questions import FORMATS, QuestionTable, Row, file_digest
from retrieval.errors import ConfigurationError, DataError
from retrieval.tables import table_format

_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What is answered, and into which file.

    `identity` is what an answer depends on. `limit` questions are answered, all by default: a batch that was
    tried with a limit goes on with a higher one, or with none.
    """

    table: QuestionTable
    out: Path
    identity: Mapping[str, Any]
    limit: int | None = None

    @property
    def total(self) -> int:
        """How many questions are to be answered."""
        return self.table.count if self.limit is None else min(self.limit, self.table.count)

    @property
    def binding(self) -> dict[str, Any]:
        """What a journal is of: answers of two bindings never share an output."""
        questions = {"sha256": self.table.digest, "columns": dict(self.table.columns)}
        binding = {"questions": questions, "configuration": self.identity}
        # As it is read back.
        return json.loads(json.dumps(binding, default=str))  # type: ignore[no-any-return]


def check_output(out: Path, questions: Path) -> None:
    """Refuse an output that cannot be one, before anything is read.

    Raises:
        ConfigurationError: if it is of an unknown format, a directory, or the questions themselves.
    """
    if table_format(out) not in FORMATS or out.suffix.lower() == ".gz":
        raise ConfigurationError(
            f"--out {out}: answers are written as {', '.join(FORMATS)}. Name such a file."
        )
    if out.is_dir():
        raise ConfigurationError(f"--out {out}: is a directory. Name a file.")
    if out.resolve() == questions.resolve():
        raise ConfigurationError(f"--out {out}: these are the questions. Name another file for the answers.")


@contextmanager
def open_batch(plan: BatchPlan) -> Iterator[Batch]:
    """The batch of a plan, begun or continued, held by this process meanwhile.

    Raises:
        ConfigurationError: if the output is, or was begun as, something else.
        DataError: if the journal is damaged.
        StorageError: if the disk refuses, or another process works on it.
    """
    check_output(plan.out, plan.table.path)
    journal = Journal(plan.out)
    if plan.out.exists() and not journal.file.exists():
        raise _foreign_output(plan.out)
    with journal:
        began = journal.load(plan.table.count)
        if began is None:
            journal.begin(plan.binding)
        elif began != plan.binding:
            raise ConfigurationError(
                f"'{plan.out}' was begun otherwise: {_differences(began, plan.binding)}. Go on as it was "
                f"begun, name another --out, or start anew: rm -r {plan.out} {journal.directory}"
            )
        if plan.out.exists() and file_digest(plan.out) not in journal.outputs:
            raise _foreign_output(plan.out)
        yield Batch(plan, journal)


class Batch:
    """A batch under way. Use `open_batch`."""

    def __init__(self, plan: BatchPlan, journal: Journal) -> None:
        self.plan = plan
        self.table = plan.table
        self._journal = journal

    @property
    def total(self) -> int:
        """How many questions are to be answered."""
        return self.plan.total

    @property
    def waiting(self) -> int:
        """How many of them are not answered, nor failed, yet."""
        return self._journal.count(State.WAITING, self.total)

    @property
    def abstained(self) -> int:
        """How many were answered by saying that the documents do not hold the answer."""
        return self._journal.count(State.ABSTAINED, self.total)

    @property
    def failed(self) -> int:
        """How many failed."""
        return self._journal.count(State.FAILED, self.total)

    @property
    def first_failure(self) -> str:
        """Why the first of those that failed did; empty when none did."""
        return self._journal.first_failure(self.total)

    def waiting_rows(self) -> Iterator[Row]:
        """The rows to be asked, in their order, as a stream."""
        for row in self.table.rows(self.total):
            if self._journal.state(row.number) is State.WAITING:
                yield row

    def keep(self, row: Row, record: Mapping[str, Any]) -> None:
        """Keep what became of a row: the fields of an answer; a failure has an `error`. Raises StorageError."""
        self._journal.keep(row.number, record)

    def forget_failures(self) -> None:
        """Have those that failed asked again. Raises StorageError."""
        self._journal.forget_failures()

    def finish(self) -> bool:
        """Put the output in its place, all or nothing; False when it is there already.

        Raises:
            DataError: if the questions are not those that were asked any longer.
            StorageError: if the disk refuses; the answers are kept, and the same command goes on from there.
        """
        out = self.plan.out
        if out.exists() and self._journal.latest == (file_digest(out), self.total):
            return False
        draft = out.with_name(f".{out.name}.draft{out.suffix}")
        if file_digest(self.table.path) != self.table.digest:
            raise DataError(
                f"{self.table.path} changed while it was answered. Put it back as it was and run the same "
                "command again: what was answered is kept."
            )
        try:
            with writing(out):
                write_table(draft, self.table, map(self._journal.read, range(self.total)))
                _sync(draft)
            self._journal.note_output(file_digest(draft), self.total)
            with writing(out):
                draft.replace(out)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        return True


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _foreign_output(out: Path) -> ConfigurationError:
    return ConfigurationError(
        f"--out {out}: exists, and not as this batch wrote it. Name another file, or move that one away."
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    found = list(_differing(before, after))
    more = f" and {len(found) - _SHOWN_DIFFERENCES} more" if len(found) > _SHOWN_DIFFERENCES else ""
    return "; ".join(found[:_SHOWN_DIFFERENCES]) + more


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*before, *after]):
        name, old, new = f"{prefix}{key}", before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differing(old, new, f"{name}.")
        elif name in _CONTENTS:
            yield f"{_CONTENTS[name]} changed since"
        else:
            yield f"{name.removeprefix('configuration.')} was {old!r} and is {new!r}"


_CONTENTS = {"questions.sha256": "the questions have", "configuration.index": "the indexed documents have"}
"""What is compared by a hash, which says nothing to a person."""

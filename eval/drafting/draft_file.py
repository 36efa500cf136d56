"""Drafted questions on disk: appended as they come, with a journal of what was tried beside them.

The journal (`<file>.attempts`) has one line for each passage that is done with, whatever came of it. People may
edit and delete drafts while they review: what was drafted once is not drafted again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from eval.drafting.drafter import Draft
from eval.ground_truth import read_ground_truth
from eval.questions import Question
from eval.records import disk_refusals
from program.files import append_lines, complete_lines, to_json
from retrieval.errors import DataError, StorageError

KEPT = "kept"


class DraftFile:
    """A file of drafts and its journal. Held by one process at a time.

    Raises:
        StorageError: if the disk refuses, or another process writes there.
        DataError: if the file or the journal is not usable, naming the place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = path.with_name(path.name + ".attempts")
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))

    def __enter__(self) -> DraftFile:
        with disk_refusals(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise StorageError(
                    f"Another process is drafting into '{self.path}'. Wait for it, or name another --out."
                ) from None
            # What a crash cut short is dropped, so that the file can be read and appended to.
            for _ in complete_lines(self.path):
                pass
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def questions(self) -> tuple[Question, ...]:
        """The drafts that are there; none where there is no file."""
        if not self.path.exists() or not self.path.stat().st_size:
            return ()
        return read_ground_truth(self.path).questions

    def settled(self) -> set[str]:
        """The ids of the attempts that are done with."""
        return set(self._read_journal())

    def settle(self, draft: Draft) -> None:
        """Keep a draft, or remember why there is none."""
        outcome = {"id": draft.attempt.id, "outcome": KEPT if draft.row is not None else draft.flaw}
        with disk_refusals(self.path):
            # The draft first: a crash between the two leaves a line too little in the journal, which `recover`
            # finds, and never a question that is lost.
            if draft.row is not None:
                append_lines(self.path, [to_json(draft.row)])
            append_lines(self._journal, [to_json(outcome)])

    def recover(self, questions: Iterable[Question]) -> None:
        """Note in the journal the drafts that a crash kept out of it."""
        missing = {question.id for question in questions} - self.settled()
        with disk_refusals(self._journal):
            append_lines(self._journal, [to_json({"id": id_, "outcome": KEPT}) for id_ in sorted(missing)])

    def _read_journal(self) -> Iterable[str]:
        with disk_refusals(self._journal):
            for number, (_, line) in enumerate(complete_lines(self._journal), start=1):
                try:
                    yield str(json.loads(line)["id"])
                except (ValueError, TypeError, KeyError):
                    raise DataError(
                        f"{self._journal}, line {number}: not an attempt. Remove the line; its passage may be "
                        "drafted from again."
                    ) from None

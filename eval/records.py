"""A run on disk: what each question was answered with, kept as soon as it is known.

A run directory holds
    run.json        what was asked of what, so that the same command finds its run again
    answers.jsonl   one line for each answered question: the evidence that scores are computed from
    traces.jsonl    traces on their way to the tracking store; empty when all have arrived
    scores.jsonl    one line for each question: its tags, metrics, answer and retrieved documents
    summary.json    every metric's mean and interval, over all and by slice
Only `answers.jsonl` is ever read back to answer questions, and it is appended to: whatever ends a run,
finished questions stay finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import Trace
from pydantic import BaseModel, ConfigDict, ValidationError

from eval.observations import Observation, RetrievedDocument
from retrieval.errors import DataError, StorageError

FORMAT_VERSION = 1


class Retrieved(BaseModel):
    """One retrieved passage of an answered question, in retrieval order."""

    model_config = ConfigDict(frozen=True)

    doc_uri: str
    chunk_id: str | None = None
    score: float | None = None


class AnswerRecord(BaseModel):
    """What happened to one question. With an `error` it is unscored; everything else is evidence.

    `latency_ms` is the agent's own time. `usage` counts tokens as first seen, whatever a cache saves later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    error: str | None = None
    answer: str = ""
    abstained: bool = False
    retrieved: tuple[Retrieved, ...] = ()
    cited_uris: tuple[str, ...] = ()
    dropped_markers: int = 0
    latency_ms: float = 0.0
    reader: str = ""
    usage: dict[str, int] = {}
    trace_id: str | None = None

    def observation(self) -> Observation | None:
        """What metrics are computed from; None when the question failed."""
        if self.error is not None:
            return None
        return Observation(
            retrieved=tuple(RetrievedDocument(r.doc_uri, r.chunk_id, r.score) for r in self.retrieved),
            cited_uris=self.cited_uris,
            answer=self.answer,
            abstained=self.abstained,
            dropped_markers=self.dropped_markers,
            latency_ms=self.latency_ms,
        )


class RunDirectory:
    """One run's files. Held by one process at a time.

    Raises:
        StorageError: if the disk refuses, or another process works on the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers_file = path / "answers.jsonl"
        self.traces_file = path / "traces.jsonl"
        self.scores_file = path / "scores.jsonl"
        self.summary_file = path / "summary.json"
        self._manifest_file = path / "run.json"
        self._lock = FileLock(path / ".lock")

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StorageError(
                f"Another process is working on the run at '{self.path}'. Wait for it, or name another "
                "directory with --set evaluation.results=…"
            ) from None
        except OSError as error:
            raise _refused(self.path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def read_manifest(self) -> dict[str, Any]:
        """What the run is of; empty for a new run."""
        if not self._manifest_file.exists():
            return {}
        manifest: dict[str, Any] = json.loads(self._manifest_file.read_text(encoding="utf-8"))
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace what the run is of."""
        write_json(self._manifest_file, {"format_version": FORMAT_VERSION, **manifest})

    def read_answers(self) -> dict[str, AnswerRecord]:
        """Every answered question by id; of several lines the last counts.

        A line that a crash cut short is at the end, and is dropped.

        Raises:
            DataError: if any other line is not a record, naming it.
        """
        records: dict[str, AnswerRecord] = {}
        lines = _complete_lines(self.answers_file)
        for number, line in enumerate(lines, start=1):
            try:
                record = AnswerRecord.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{self.answers_file}, line {number}: not an answer record ({error.errors()[0]['msg']}). "
                    "Mend or remove the line; what is missing will be asked again."
                ) from None
            records[record.id] = record
        return records

    def append_answer(self, record: AnswerRecord, traces: Iterable[Trace]) -> None:
        """Keep one answered question, and its traces until they are in the tracking store."""
        _append(self.traces_file, (trace.to_json() for trace in traces))
        _append(self.answers_file, (record.model_dump_json(),))

    def forget_failures(self) -> None:
        """Drop the questions that failed, so that they are asked again."""
        kept = [record for record in self.read_answers().values() if record.error is None]
        replace_text(self.answers_file, "".join(record.model_dump_json() + "\n" for record in kept))

    def pending_traces(self) -> list[Trace]:
        """Traces that an earlier process did not bring to the tracking store."""
        return [Trace.from_json(line) for line in _complete_lines(self.traces_file)]

    def forget_pending_traces(self) -> None:
        """All pending traces have arrived."""
        self.traces_file.unlink(missing_ok=True)

    def write_scores(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the scored questions, one line each."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        replace_text(self.scores_file, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary."""
        write_json(self.summary_file, summary)


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Replace `file` with `value` as indented JSON, all or nothing."""
    replace_text(file, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Replace `file` with `text`, all or nothing.

    Raises:
        StorageError: if the disk refuses.
    """
    draft = file.with_name(file.name + ".new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise _refused(file, error) from error


def _append(file: Path, lines: Iterable[str]) -> None:
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.writelines(line + "\n" for line in lines)
    except OSError as error:
        raise _refused(file, error) from error


def _complete_lines(file: Path) -> Iterator[str]:
    """The lines of `file`; what follows the last newline is cut off the file, so that appending is safe."""
    if not file.exists():
        return
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with file.open("r+b") as opened:
            opened.truncate(end)
    yield from content[:end].decode("utf-8").split("\n")[:-1]


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"'{path}' cannot be written: {error.strerror or error}. Free or change the place "
        "(--set evaluation.results=…) and run the same command again: what was done is kept."
    )

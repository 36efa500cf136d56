"""A run on disk: what each question was answered with, kept as soon as it is known.

A run directory holds
    run.json        what was asked of what, so that the same command finds its run again
    answers.jsonl   one line for each answered question: the evidence that scores are computed from
    judgements.jsonl  one line for each verdict of a language-model judge, where any was asked (`eval.judges`)
    traces.jsonl    traces on their way to the tracking store; empty when all have arrived
    scores.jsonl    one line for each question: its tags, metrics, answer and retrieved documents
    summary.json    every metric's mean and interval, over all and by slice
Only `answers.jsonl` is ever read back to answer questions, and `judgements.jsonl` to judge them. Both are
appended to: whatever ends a run, finished questions stay finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from eval.observations import Observation, RetrievedDocument
from program.files import append_lines, complete_lines, to_json
from program.prices import EXTRACTIVE
from retrieval.errors import DataError, StorageError

if TYPE_CHECKING:
    from mlflow.entities import Trace

FORMAT_VERSION = 1


class Retrieved(BaseModel):
    """One retrieved passage of an answered question, in retrieval order."""

    model_config = ConfigDict(frozen=True)

    doc_uri: str
    chunk_id: str | None = None
    score: float | None = None


class AnswerRecord(BaseModel):
    """What happened to one question. With an `error` it is unscored; everything else is evidence.

    `latency_ms` is the agent's own time, as long as its language-model calls took when they were first made, and
    without what they waited for a busy provider. `usage` counts tokens as first seen, whatever is replayed from a
    record later; empty where no language model was asked, or nobody counted. `usd` is what they cost, None where
    that is not known, and `calls` how many answers of language models it took, None where that is not.
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
    usd: float | None = None
    calls: int | None = None
    trace_id: str | None = None

    @property
    def asked_no_model(self) -> bool:
        """Whether it is certain that it cost nothing: the extractive reader answered alone."""
        return not self.usage and self.reader == EXTRACTIVE

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
            usd=0.0 if self.asked_no_model else self.usd,
            tokens=0 if self.asked_no_model else count_tokens(self.usage),
        )


def count_tokens(usage: Mapping[str, int]) -> int | None:
    """All tokens that were counted, in and out; None where none were."""
    counts = [usage[name] for name in ("input_tokens", "output_tokens") if name in usage]
    return usage.get("total_tokens", sum(counts) if counts else None)


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
        with disk_refusals(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise StorageError(
                    f"Another process is working on the run at '{self.path}'. Wait for it, or name another "
                    "directory with --set evaluation.results=…"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def read_manifest(self) -> dict[str, Any]:
        """What the run is of; empty for a new run.

        Raises:
            DataError: if it is damaged, or a citeqa of another format version wrote it.
        """
        if not self._manifest_file.exists():
            return {}
        try:
            manifest: dict[str, Any] = json.loads(self._manifest_file.read_bytes())
            version = manifest["format_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self._manifest_file} is damaged ({error!r}). Move '{self.path}' away to start anew."
            ) from None
        if version != FORMAT_VERSION:
            raise DataError(
                f"{self._manifest_file}: written in format {version}, this citeqa uses {FORMAT_VERSION}. "
                "Use that citeqa, or another directory: --set evaluation.results=…"
            )
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace what the run is of."""
        write_json(self._manifest_file, {**manifest, "format_version": FORMAT_VERSION})

    def read_answers(self) -> dict[str, AnswerRecord]:
        """Every answered question by id; of several lines the last counts.

        A line that a crash cut short is at the end, and is dropped.

        Raises:
            DataError: if any other line is not a record, naming it.
        """
        records: dict[str, AnswerRecord] = {}
        for number, line in enumerate(_lines(self.answers_file), start=1):
            record = _parse_answer(line, f"{self.answers_file}, line {number}")
            records[record.id] = record
        return records

    def append_answer(self, record: AnswerRecord, traces: Iterable[Trace]) -> None:
        """Keep one answered question, and its traces until they are in the tracking store."""
        # The traces first: a crash between the two leaves a trace too many, and never one too few.
        with disk_refusals(self.traces_file):
            append_lines(self.traces_file, [trace.to_json().encode() for trace in traces])
        with disk_refusals(self.answers_file):
            append_lines(self.answers_file, [to_json(record.model_dump())])

    def forget_failures(self) -> None:
        """Drop the questions that failed, so that they are asked again."""
        self.replace_answers(r for r in self.read_answers().values() if r.error is None)

    def forget_answers(self) -> None:
        """Drop all answers, so that every question is asked again."""
        self.replace_answers(())

    def pending_traces(self) -> list[Trace]:
        """Traces that an earlier process did not bring to the tracking store.

        Raises:
            DataError: if a line is not a trace, naming it.
        """
        return [
            _parse_trace(line, f"{self.traces_file}, line {number}")
            for number, line in enumerate(_lines(self.traces_file), start=1)
        ]

    def forget_pending_traces(self) -> None:
        """All pending traces have arrived."""
        with disk_refusals(self.traces_file):
            self.traces_file.unlink(missing_ok=True)

    def write_scores(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the scored questions, one line each."""
        replace_file(self.scores_file, b"".join(to_json(row) + b"\n" for row in rows))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary."""
        write_json(self.summary_file, summary)

    def write_lines(self, name: str, lines: Iterable[bytes]) -> None:
        """Replace a file of the run that is for people alone."""
        replace_file(self.path / name, b"".join(line + b"\n" for line in lines))

    def replace_answers(self, records: Iterable[AnswerRecord]) -> None:
        """Keep these answers, and no others."""
        lines = [to_json(record.model_dump()) + b"\n" for record in records]
        replace_file(self.answers_file, b"".join(lines))


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Replace `file` with `value` as indented JSON, all or nothing. Raises StorageError."""
    replace_file(file, to_json(value, indent=2) + b"\n")


def replace_file(file: Path, content: bytes) -> None:
    """Replace `file` with `content`, all or nothing.

    Raises:
        StorageError: if the disk refuses.
    """
    draft = file.with_name(file.name + ".new")
    with disk_refusals(file):
        draft.write_bytes(content)
        draft.replace(file)


def _parse_answer(line: bytes, place: str) -> AnswerRecord:
    try:
        return AnswerRecord.model_validate(json.loads(line))
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(
            f"{place}: not an answer record ({reason}). Mend or remove the line; what is missing will be "
            "asked again."
        ) from None


def _parse_trace(line: bytes, place: str) -> Trace:
    # Here, since MLflow takes seconds to import, and most who read records need no trace.
    from mlflow.entities import Trace
    from mlflow.exceptions import MlflowException

    try:
        return Trace.from_json(line.decode())
    except (ValueError, KeyError, TypeError, MlflowException) as error:
        raise DataError(f"{place}: not a trace ({error}). Remove the line; its trace is lost.") from None


def _lines(file: Path) -> Iterator[bytes]:
    with disk_refusals(file):
        yield from (line for _, line in complete_lines(file))


@contextmanager
def disk_refusals(path: Path) -> Iterator[None]:
    """What the disk refuses inside is a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"'{path}' cannot be written: {error.strerror or error}. Free or change the place "
            "(--set evaluation.results=…) and run the same command again: what was done is kept."
        ) from error

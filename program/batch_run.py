"""`citeqa answer` as a function: settings and a table of questions in, a table of answers out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from program.batch import Batch, BatchPlan, check_output, open_batch
from program.batch_questions import QuestionTable, parse_columns
from program.identity import answer_identity
from program.retrievers import corpus_hash
from program.settings import Settings

logger = logging.getLogger(__name__)

_TRACES_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A finished batch. `asked` of its questions were asked by this call; `written` is false if nothing changed."""

    out: Path | str
    questions: int
    abstained: int
    failed: int
    first_failure: str
    asked: int
    written: bool
    seconds: float

    def render(self) -> str:
        """One line for a person."""
        questions = "1 question" if self.questions == 1 else f"{self.questions} questions"
        if self.asked or self.written:
            what = f"{questions}, {self.questions - self.failed} answered"
            how = f"; {self.asked} asked now in {self.seconds:.1f} s"
        else:
            what, how = f"nothing to do, {questions} answered before", ""
        what += f" ({self.abstained} abstained)" if self.abstained else ""
        if self.failed:
            how += (
                f". {self.failed} failed (--retry-errors asks again), the first because: {self.first_failure}"
            )
        return f"{self.out}: {what}{how}"


def answer_table(
    settings: Settings,
    questions: Path,
    out: Path,
    *,
    columns: Sequence[str] = (),
    limit: int | None = None,
    threads: int = 4,
    max_failed_share: float = 0.2,
    retry_errors: bool = False,
    trace: bool = False,
    on_answer: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] = logger.warning,
) -> BatchReport:
    """Answer the questions of a table into another. The same call goes on where the last one ended, however it did.

    `columns` are as `parse_columns` takes them. With `trace`, every answer's trace goes to the tracking store, and
    `on_warning` is told of traces that did not arrive.

    Raises:
        CiteqaError: whatever a person must mend; what was answered is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    started = time.perf_counter()
    check_output(out, questions)
    table = QuestionTable.open(questions, parse_columns(columns))
    identity = answer_identity(settings, corpus_hash(settings))
    with open_batch(BatchPlan(table, out, identity, limit)) as batch:
        if retry_errors:
            batch.forget_failures()
        tracing = _with_traces(settings, on_warning) if trace else _without_traces()
        asked = 0
        if batch.waiting:
            asked = _ask(batch, settings, threads, max_failed_share, on_answer, tracing)
        return BatchReport(
            out=out,
            written=batch.finish(),
            questions=batch.total,
            abstained=batch.abstained,
            failed=batch.failed,
            first_failure=batch.first_failure,
            asked=asked,
            seconds=time.perf_counter() - started,
        )


def _ask(
    batch: Batch,
    settings: Settings,
    threads: int,
    max_failed_share: float,
    on_answer: Callable[[int, int], None] | None,
    tracing: AbstractContextManager[None],
) -> int:
    # What these import takes seconds, and a batch that is refused or finished needs none of it.
    from program.agent import CiteqaAgent
    from program.batch_asking import answer_batch

    agent = CiteqaAgent(settings, limit_rate=True)
    with tracing:
        return answer_batch(
            batch, agent, threads=threads, max_failed_share=max_failed_share, on_answer=on_answer
        )


@contextmanager
def _without_traces() -> Iterator[None]:
    import mlflow

    mlflow.tracing.disable()
    yield


@contextmanager
def _with_traces(settings: Settings, on_warning: Callable[[str], None]) -> Iterator[None]:
    """Within, every trace goes to the tracking store, by way of the disk: none is lost without a word."""
    import mlflow

    from program.serving.traces import record_traces
    from program.tracking import connect

    experiment_id = connect(settings.tracking)
    mlflow.tracing.enable()
    recorder = record_traces(settings.serving, experiment_id)
    try:
        yield
    finally:
        waiting = recorder.stop(_TRACES_TIMEOUT_S)
        lost = recorder.counts.dropped + recorder.counts.refused
        if waiting or lost:
            on_warning(
                f"{lost} traces could not be stored, and {waiting} wait in '{settings.serving.trace_spool}' for the "
                "next command that stores traces"
            )

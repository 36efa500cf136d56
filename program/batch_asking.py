"""Have an agent answer what waits in a batch, and stop early when nothing can come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from itertools import takewhile
from typing import Any

import mlflow
from mlflow.entities import SpanType
from mlflow.types.responses import ResponsesAgentRequest
from pydantic import ValidationError

from program.agent import CitingAgent, describe_trace, new_item_id
from program.batch import Batch
from program.batch_questions import Asked, QuestionTable, Row
from program.lm_errors import hide_secrets
from program.responses import render_response
from program.threads import map_in_threads
from program.types import CitedAnswer
from retrieval.errors import CiteqaError, FilterError, RequestError, RunStoppedError

FAILURES_IN_A_ROW = 10
"""After so many calls that all failed, the cause is taken to be none of the questions."""

_TOLERATED = 5
"""So many failures are no reason to stop, however few the questions."""


def answer_batch(
    batch: Batch,
    agent: CitingAgent,
    *,
    threads: int = 4,
    max_failed_share: float = 0.2,
    on_answer: Callable[[int, int], None] | None = None,
) -> int:
    """Answer what waits in the batch, each answer kept when it came; how many questions were asked.

    A question that fails is kept with its reason and stops no other. `on_answer` is told how many of the
    batch's questions are done, and how many there are. Interrupted, it keeps what is running, too.

    Raises:
        RunStoppedError: if more than `max_failed_share` (0 to 1) of the questions fail, or `FAILURES_IN_A_ROW`
            do for reasons that are not their own; 1 is never. What failed is asked again by the next call.
        StorageError: if the disk refuses; what was kept stays.
    """
    watch = _FailureWatch(batch, max_failed_share)
    watch.check_questions()
    done = batch.total - batch.waiting
    asked = 0
    work = partial(_answer_row, agent, batch.table)
    rows = takewhile(lambda _: not watch.reason, batch.waiting_rows())
    with closing(map_in_threads(work, rows, threads=threads, name="citeqa-batch")) as outcomes:
        for row, record, is_rows_own in outcomes:
            batch.keep(row, record)
            asked += 1
            if on_answer:
                on_answer(done + asked, batch.total)
            watch.see(record, is_rows_own)
    if watch.reason:
        batch.forget_failures()
        raise RunStoppedError(watch.reason)
    return asked


class _FailureWatch:
    """Counts what fails, and says why to stop, if there is a reason."""

    def __init__(self, batch: Batch, max_failed_share: float) -> None:
        self._batch = batch
        self._most_share = max_failed_share
        self._most = max(_TOLERATED, max_failed_share * batch.total)
        self._in_a_row = 0
        self.reason = ""

    def check_questions(self) -> None:
        """Stop before anything is asked when too many rows ask nothing."""
        table, share = self._batch.table, self._most_share
        if table.unusable == table.count or table.unusable > max(_TOLERATED, share * table.count):
            raise RunStoppedError(
                f"{table.unusable} of {table.count} rows ask nothing, first {table.complaint} Name the column of "
                "the questions (--column question=…), or allow more failures (--max-failed-share)."
            )

    def see(self, record: Mapping[str, Any], is_rows_own: bool) -> None:
        """Take what became of a row; a failure that is the row's own says nothing of those that follow."""
        if not is_rows_own:
            self._in_a_row = 0 if record["error"] is None else self._in_a_row + 1
        if self.reason or record["error"] is None:
            return
        if self._in_a_row >= FAILURES_IN_A_ROW and self._most_share < 1:
            self._stop(f"the last {self._in_a_row} questions all failed", record)
        elif self._batch.failed > self._most:
            self._stop(f"{self._batch.failed} questions failed", record)

    def _stop(self, what: str, record: Mapping[str, Any]) -> None:
        answered = self._batch.total - self._batch.waiting - self._batch.failed
        self.reason = (
            f"Stopped: {what}, because: {record['error']} {answered} of {self._batch.total} are answered and "
            "kept; mend the cause and the same command goes on, or never stop: --max-failed-share 1."
        )


def _answer_row(agent: CitingAgent, table: QuestionTable, row: Row) -> tuple[Row, dict[str, Any], bool]:
    """The row, what became of it, and whether that is a failure of this row alone: what it asks, and how."""
    started = time.perf_counter()
    trace_id: str | None = None
    is_rows_own = False
    try:
        request = to_request(table.asked(row))
        # The agent's core, so that whoever asks decides on the AGENT span: it names the row, and is named by it.
        with mlflow.start_span("predict", span_type=SpanType.AGENT) as span:
            trace_id = describe_trace(span, request, str(table.id_of(row)))
            answer = agent.respond(request)
            if trace_id:
                span.set_outputs(render_response(answer, new_item_id()).model_dump(exclude_none=True))
        record = {**NO_ANSWER, **_to_record(answer)}
    except CiteqaError as error:
        is_rows_own = isinstance(error, RequestError | FilterError)
        record = {**NO_ANSWER, "error": describe_failure(error)}
    except Exception as error:  # noqa: BLE001 - whatever the agent raised: the reason of this row
        record = {**NO_ANSWER, "error": describe_failure(error)}
    latency_ms = round(1000 * (time.perf_counter() - started), 3)
    return row, {**record, "latency_ms": latency_ms, "trace_id": trace_id}, is_rows_own


NO_ANSWER: Mapping[str, Any] = {
    "answer": None,
    "cited_uris": [],
    "sources": [],
    "abstained": None,
    "reader": None,
    "fallback_reason": None,
    "usage": None,
    "error": None,
}
"""What is known of a row that was not answered, beside the reason."""


def to_request(asked: Asked) -> ResponsesAgentRequest:
    """What a row asks as an agent is asked it.

    Raises:
        RequestError: if the history holds what the Responses interface does not know.
    """
    custom = {"k": asked.k, "filters": asked.filters}
    try:
        return ResponsesAgentRequest(
            input=[*asked.history, {"role": "user", "content": asked.question}],
            custom_inputs={name: value for name, value in custom.items() if value is not None} or None,
        )
    except ValidationError as error:
        raise RequestError(
            f"The question and its history are no request to an agent: {error.errors()[0]['msg']}."
        ) from None


def _to_record(answer: CitedAnswer) -> dict[str, Any]:
    quotes: dict[int, list[str]] = {}
    for citation in answer.citations:
        of_source = quotes.setdefault(citation.number, [])
        if citation.quote not in of_source:
            of_source.append(citation.quote)
    return {
        "answer": answer.text,
        "cited_uris": answer.cited_uris,
        "sources": [
            {
                "number": number,
                "cited": number in quotes,
                "doc_uri": passage.doc_uri,
                "url": passage.url,
                "title": passage.title,
                "chunk_id": passage.chunk_id,
                "score": round(passage.score, 4),
                "quotes": quotes.get(number, []),
            }
            for number, passage in enumerate(answer.passages, start=1)
        ],
        "abstained": answer.abstained,
        "reader": answer.reader,
        "fallback_reason": answer.fallback_reason or None,
        "usage": _tokens(answer.usage),
    }


def _tokens(usage: Mapping[str, int]) -> dict[str, int] | None:
    """Tokens under the names of the Responses interface; None where no language model was asked."""
    if not usage:
        return None
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "output_tokens": usage.get("completion_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
    }


def describe_failure(error: Exception) -> str:
    """Why a row failed, on one line, and never a key."""
    text = str(error) if isinstance(error, CiteqaError) else hide_secrets(repr(error))
    return " ".join(text.split())

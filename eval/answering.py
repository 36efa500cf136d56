"""Have an agent answer questions, and keep of each what its trace and its response show."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlflow.entities import Trace
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

from eval.evidence import RetrieverMapping, retrieved_documents, retriever_spans
from eval.questions import Question
from eval.records import AnswerRecord, Retrieved
from eval.traces import TraceCollector, TracedCall
from retrieval.errors import CiteqaError

Agent: TypeAlias = Callable[[ResponsesAgentRequest], ResponsesAgentResponse]
"""Anything that answers as a `ResponsesAgent.predict` does, and traces its retrieval."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's record, and the traces that prove it."""

    record: AnswerRecord
    traces: tuple[Trace, ...]
    retrieval_seen: bool


def answer_questions(
    agent: Agent,
    questions: Sequence[Question],
    collector: TraceCollector,
    *,
    threads: int = 1,
    mapping: RetrieverMapping | None = None,
) -> Generator[Answered, None, None]:
    """Each question's outcome, as it becomes known; a question that fails says why and stops no other.

    When the consumer stops, or is interrupted, no further question is begun.
    """
    waiting = iter(questions)
    running: set[Future[Answered]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="citeqa-eval") as pool:

        def begin_next() -> None:
            if (question := next(waiting, None)) is not None:
                running.add(pool.submit(_answer, agent, question, collector, mapping))

        try:
            for _ in range(threads):
                begin_next()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    begin_next()
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def to_request(question: Question) -> ResponsesAgentRequest:
    """The question as an agent is asked it, after the turns before it."""
    messages = [*question.history, {"role": "user", "content": question.question}]
    return ResponsesAgentRequest(input=[dict(message) for message in messages])


def _answer(
    agent: Agent, question: Question, collector: TraceCollector, mapping: RetrieverMapping | None
) -> Answered:
    started = time.perf_counter()
    call = collector.call(agent, to_request(question))
    latency_ms = 1000 * (time.perf_counter() - started)
    trace_id = call.traces[0].info.trace_id if call.traces else None
    try:
        record = _record(question.id, call, latency_ms, trace_id, mapping)
    except CiteqaError as error:
        record = AnswerRecord(id=question.id, error=str(error), latency_ms=latency_ms, trace_id=trace_id)
    seen = any(retriever_spans(trace) for trace in call.traces) if record.error is None else False
    return Answered(record, call.traces, seen)


def _record(
    question_id: str,
    call: TracedCall[ResponsesAgentResponse],
    latency_ms: float,
    trace_id: str | None,
    mapping: RetrieverMapping | None,
) -> AnswerRecord:
    if call.error is not None:
        error = str(call.error) if isinstance(call.error, CiteqaError) else repr(call.error)
        return AnswerRecord(id=question_id, error=error, latency_ms=latency_ms, trace_id=trace_id)
    retrieved = retrieved_documents(*call.traces, mapping=mapping)
    return AnswerRecord(
        id=question_id,
        retrieved=tuple(Retrieved(doc_uri=r.doc_uri, chunk_id=r.chunk_id, score=r.score) for r in retrieved),
        latency_ms=round(latency_ms, 3),
        trace_id=trace_id,
        **read_response(call.value()),
    )


def read_response(response: ResponsesAgentResponse) -> dict[str, Any]:
    """The parts of a response that metrics need, as fields of an `AnswerRecord`.

    An agent that does not say whether it abstained (`custom_outputs.abstained`) is taken to have answered.
    """
    said = response.custom_outputs or {}
    contents = [content for item in response.output if item.type == "message" for content in _contents(item)]
    annotations = [note for content in contents for note in content.get("annotations") or ()]
    return {
        "answer": "".join(str(content.get("text") or "") for content in contents),
        "cited_uris": tuple(
            dict.fromkeys(str(note["url"]) for note in annotations if note.get("type") == "url_citation")
        ),
        "abstained": bool(said.get("abstained", False)),
        "dropped_markers": int(said.get("dropped_markers", 0)),
        "reader": str(said.get("reader") or response.model or ""),
        "usage": _usage(response),
    }


def _contents(item: Any) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = item.model_dump().get("content") or []
    return contents


def _usage(response: ResponsesAgentResponse) -> dict[str, int]:
    if response.usage is None:
        return {}
    return {
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
        "total_tokens": response.usage.total_tokens,
    }

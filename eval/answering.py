"""Have an agent answer questions, and keep of each what its trace and its response show."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlflow.entities import Trace
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse
from pydantic import ValidationError

from eval.evidence import RetrieverMapping, RetrieverMappings, retrieved_documents, retriever_spans
from eval.questions import Question
from eval.records import AnswerRecord, Retrieved
from eval.replies import Reply, read_said
from eval.replies import read_response as read_response
from eval.traces import TraceCollector, TracedCall
from program.call_notes import noting_calls
from program.threads import map_in_threads
from retrieval.errors import CiteqaError, DataError
from retrieval.tracing import in_current_trace

Agent: TypeAlias = Callable[[ResponsesAgentRequest], ResponsesAgentResponse | Reply]
"""Anything that answers as a `ResponsesAgent.predict` does, and traces its retrieval.

One whose spans are not seen in this process replies with its traces.
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's record, and the traces that prove it, unless they are in the tracking store already."""

    record: AnswerRecord
    traces: tuple[Trace, ...]
    retrieval_seen: bool


def answer_questions(
    agent: Agent,
    questions: Sequence[Question],
    collector: TraceCollector,
    *,
    threads: int = 1,
    mapping: RetrieverMapping | RetrieverMappings | None = None,
) -> Generator[Answered, None, None]:
    """Each question's outcome, as it becomes known; a question that fails says why and stops no other.

    The agent sees the caller's context variables (`dspy.context` among them). Stopped or interrupted, it
    ends as `map_in_threads` does: no answer is paid for twice.
    """
    answer = in_current_trace(_answer)
    return map_in_threads(
        lambda question: answer(agent, question, collector, mapping),
        questions,
        threads=threads,
        name="citeqa-eval",
    )


def to_request(question: Question) -> ResponsesAgentRequest:
    """The question as an agent is asked it, after the turns before it.

    Raises:
        DataError: if the history holds a role that the Responses interface does not know.
    """
    messages = [*question.history, {"role": "user", "content": question.question}]
    try:
        return ResponsesAgentRequest(input=[dict(message) for message in messages])
    except ValidationError as error:
        raise DataError(
            f"The question and its history are no request to an agent: {error.errors()[0]['msg']}."
        ) from None


def _answer(
    agent: Agent,
    question: Question,
    collector: TraceCollector,
    mapping: RetrieverMapping | RetrieverMappings | None,
) -> Answered:
    with noting_calls() as noted:
        started = time.perf_counter()
        call = collector.call(lambda: agent(to_request(question)))
        measured_ms = 1000 * (time.perf_counter() - started)
    reply = _as_reply(call, round(noted.would_take_ms(measured_ms), 3))
    record, seen = to_record(question.id, reply, mapping)
    if noted.calls:
        record = record.model_copy(update={"calls": noted.calls})
    return Answered(record, () if reply.stored else reply.traces, seen)


def _as_reply(call: TracedCall[ResponsesAgentResponse | Reply], latency_ms: float) -> Reply:
    if isinstance(call.result, Reply):
        return call.result
    return Reply(call.result, call.traces, latency_ms, call.error)


def to_record(
    question_id: str, reply: Reply, mapping: RetrieverMapping | RetrieverMappings | None = None
) -> tuple[AnswerRecord, bool]:
    """What a reply says of a question, and whether its traces show a search at all.

    What failed, or cannot be read, is the record's error, and never evidence of nothing.
    """
    trace_id = reply.traces[0].info.trace_id if reply.traces else None
    try:
        evidence = _evidence(reply, mapping)
        seen = any(retriever_spans(trace, mapping) for trace in reply.traces)
    except CiteqaError as error:
        evidence, seen = {"error": str(error)}, False
    except Exception as error:  # noqa: BLE001 - whatever the agent raised: the reason of this question
        evidence, seen = {"error": repr(error)}, False
    return AnswerRecord(id=question_id, latency_ms=reply.latency_ms, trace_id=trace_id, **evidence), seen


def _evidence(reply: Reply, mapping: RetrieverMapping | RetrieverMappings | None) -> dict[str, Any]:
    if reply.error is not None:
        raise reply.error
    said = read_said(reply.said)
    retrieved = retrieved_documents(*reply.traces, mapping=mapping)
    passages = [Retrieved(doc_uri=r.doc_uri, chunk_id=r.chunk_id, score=r.score) for r in retrieved]
    return {"retrieved": tuple(passages), **said}

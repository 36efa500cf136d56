"""Have an agent answer questions, and keep of each what its trace and its response show."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlflow.entities import Trace
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse
from pydantic import BaseModel, ValidationError

from eval.evidence import RetrieverMapping, retrieved_documents, retriever_spans
from eval.questions import Question
from eval.records import AnswerRecord, Retrieved
from eval.traces import TraceCollector, TracedCall
from program.threads import map_in_threads
from retrieval.errors import CiteqaError, DataError
from retrieval.tracing import in_current_trace

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
    agent: Agent, question: Question, collector: TraceCollector, mapping: RetrieverMapping | None
) -> Answered:
    started = time.perf_counter()
    call = collector.call(lambda: agent(to_request(question)))
    latency_ms = round(1000 * (time.perf_counter() - started), 3)
    trace_id = call.traces[0].info.trace_id if call.traces else None
    try:
        evidence = _evidence(call, mapping)
        seen = any(retriever_spans(trace) for trace in call.traces)
    except CiteqaError as error:
        evidence, seen = {"error": str(error)}, False
    except Exception as error:  # noqa: BLE001 - whatever the agent raised: the reason of this question
        evidence, seen = {"error": repr(error)}, False
    record = AnswerRecord(id=question.id, latency_ms=latency_ms, trace_id=trace_id, **evidence)
    return Answered(record, call.traces, seen)


def _evidence(call: TracedCall[ResponsesAgentResponse], mapping: RetrieverMapping | None) -> dict[str, Any]:
    response = read_response(call.value())
    retrieved = retrieved_documents(*call.traces, mapping=mapping)
    passages = [Retrieved(doc_uri=r.doc_uri, chunk_id=r.chunk_id, score=r.score) for r in retrieved]
    return {"retrieved": tuple(passages), **response}


def read_response(response: ResponsesAgentResponse) -> dict[str, Any]:
    """The parts of a response that metrics need, as fields of an `AnswerRecord`.

    An agent that does not say whether it abstained (`custom_outputs.abstained`) is taken to have answered.

    Raises:
        DataError: if it is no response, or says something of another type than ours in `custom_outputs`.
    """
    if not isinstance(response, ResponsesAgentResponse):
        raise DataError(f"The agent returned {type(response).__name__}, not a ResponsesAgentResponse.")
    contents = [content for item in response.output if item.type == "message" for content in _contents(item)]
    annotations = [note for content in contents for note in content.get("annotations") or ()]
    said = _read_custom_outputs(response)
    return {
        "answer": "".join(str(content.get("text") or "") for content in contents),
        "cited_uris": tuple(
            dict.fromkeys(str(note["url"]) for note in annotations if note.get("type") == "url_citation")
        ),
        "abstained": said.abstained,
        "dropped_markers": said.dropped_markers,
        "reader": said.reader or response.model or "",
        "usage": _usage(response),
    }


class _CustomOutputs(BaseModel):
    """What we read of `custom_outputs`; an agent may say anything else there."""

    abstained: bool = False
    dropped_markers: int = 0
    reader: str | None = None


def _read_custom_outputs(response: ResponsesAgentResponse) -> _CustomOutputs:
    try:
        return _CustomOutputs.model_validate(response.custom_outputs or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"custom_outputs.{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}."
        ) from None


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

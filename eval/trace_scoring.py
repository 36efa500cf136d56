"""Score traces that are there already, such as production's: which question each answers, and what it shows.

A trace belongs to a question, the first that applies:

    1. its own: a trace with an expectation `expected_retrieved_context` (an MLflow assessment) brings its gold,
       and its `expected_facts`, `expected_response` and `accepted_answers` where there are any
    2. the ground truth's of the same text, and the same turns before it; Unicode's compatibility forms (NFKC),
       case and white space make no difference

Of several traces of one question, the newest counts. A trace without a question is listed, and scored nowhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mlflow.entities import Expectation, Span, SpanStatusCode, Trace, TraceState
from mlflow.genai.utils.trace_utils import parse_outputs_to_str
from mlflow.tracing.constant import TraceMetadataKey

from eval.answering import to_record
from eval.evidence import RetrieverMappings
from eval.formats.agent_evaluation_set import to_question
from eval.ground_truth import GroundTruth
from eval.questions import Question
from eval.records import AnswerRecord
from eval.replies import Reply, duration_ms, read_said
from eval.retriever_rows import parse_json_text
from retrieval.errors import AgentError, DataError, GroundTruthError

GOLD = "expected_retrieved_context"
_EXPECTATIONS = (GOLD, "expected_facts", "expected_response", "accepted_answers")
_AROUND = ("request", "inputs", "model_input")
_Asked: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnmatchedTrace:
    """A trace that is scored nowhere, and why."""

    trace_id: str
    question: str
    reason: str


@dataclass(frozen=True, slots=True)
class MatchedTraces:
    """Traces by the questions that they answer.

    Attributes:
        questions: those that were asked.
        records: what the newest trace of each shows.
        unmatched: the traces that answer no question that is known.
        read: how many traces there were in all.
        older: how many were of a question that a newer one asks, too.
        of_runs: how many belong to MLflow runs, and were left out.
        unfinished: how many were not finished.
        searched: whether any that counts shows a search at all.
    """

    questions: Sequence[Question]
    records: Sequence[AnswerRecord]
    unmatched: Sequence[UnmatchedTrace]
    read: int = 0
    older: int = 0
    of_runs: int = 0
    unfinished: int = 0
    searched: bool = False

    def describe(self, experiment: str) -> str:
        """What became of the traces, in a sentence."""
        if not self.read:
            return f"experiment '{experiment}' has no trace that the filter and the time let pass."
        parts = [f"{len(self.records)} scored"]
        parts += [f"{self.older} older ones of a question that a newer one asks"] * bool(self.older)
        parts += [f"{self.of_runs} of MLflow runs (--set evaluation.traces.of_runs=true)"] * bool(
            self.of_runs
        )
        parts += [f"{self.unfinished} not finished"] * bool(self.unfinished)
        if self.unmatched:
            first = self.unmatched[0]
            why = f"{first.trace_id}: {first.reason}"
            parts.append(f"{len(self.unmatched)} without a question, in unmatched.jsonl, such as {why}")
        return f"Of {self.read} traces in experiment '{experiment}': {'; '.join(parts)}."


def match_traces(
    traces: Iterable[Trace],
    ground_truth: Callable[[], GroundTruth],
    mappings: RetrieverMappings,
    *,
    with_runs: bool = False,
) -> MatchedTraces:
    """Match traces, which come newest first and are not kept. Without `with_runs`, those of MLflow runs are left out.

    `ground_truth` is read when a trace has no gold of its own, and not before.

    Raises:
        GroundTruthError: if the ground truth is not usable.
    """
    matching = _Matching(ground_truth, mappings)
    read = of_runs = unfinished = 0
    for trace in traces:
        read += 1
        if trace.info.trace_metadata.get(TraceMetadataKey.SOURCE_RUN) and not with_runs:
            of_runs += 1
        elif trace.info.state == TraceState.IN_PROGRESS:
            unfinished += 1
        else:
            matching.take(trace)
    return replace(matching.result(), read=read, of_runs=of_runs, unfinished=unfinished)


class _Matching:
    def __init__(self, ground_truth: Callable[[], GroundTruth], mappings: RetrieverMappings) -> None:
        self._read_ground_truth = ground_truth
        self._mappings = mappings
        self._by_text: dict[_Asked, Question] | None = None
        self._taken: dict[_Asked, tuple[Question, AnswerRecord]] = {}
        self._unmatched: list[UnmatchedTrace] = []
        self._older = 0
        self._searched = False

    def take(self, trace: Trace) -> None:
        try:
            asked = asked_question(trace)
        except DataError as error:
            self._leave(trace, "", str(error))
            return
        key = _text_key(asked)
        if key in self._taken:
            self._older += 1
            return
        try:
            own = _expected_question(trace, asked)
        except GroundTruthError as error:
            self._leave(trace, asked.question, str(error))
            return
        question = own or self._known().get(key)
        if question is None:
            self._leave(trace, asked.question, "no question of the ground truth has its text")
            return
        record, searched = to_record(question.id, to_reply(trace), self._mappings)
        self._taken[key] = (question, record)
        self._searched |= searched

    def result(self) -> MatchedTraces:
        questions = [question for question, _ in self._taken.values()]
        records = [record for _, record in self._taken.values()]
        return MatchedTraces(questions, records, self._unmatched, older=self._older, searched=self._searched)

    def _leave(self, trace: Trace, question: str, reason: str) -> None:
        self._unmatched.append(UnmatchedTrace(trace.info.trace_id, question, reason))

    def _known(self) -> Mapping[_Asked, Question]:
        if self._by_text is None:
            self._by_text = {}
            for question in self._read_ground_truth().questions:
                # Large public sets ask one question twice: the first of them stands for both.
                self._by_text.setdefault(_text_key(question), question)
        return self._by_text


def asked_question(trace: Trace) -> Question:
    """The question that a trace's root span was given, with the turns before it, and no gold.

    Read are a ResponsesAgent's `input`, a chat's `messages`, a `question` or `query`, and a lone text.

    Raises:
        DataError: if the root span holds no question.
    """
    inputs = _messages_alone(_unwrapped(_root(trace).inputs))
    return to_question({"inputs": inputs, "expectations": {GOLD: []}}, _place(trace))


def to_reply(trace: Trace) -> Reply:
    """What the trace shows of an answer: as it was said, its time, and why it failed where it did."""
    root = _root(trace)
    latency_ms = duration_ms(trace)
    if trace.info.state == TraceState.ERROR or root.status.status_code == SpanStatusCode.ERROR:
        return Reply(None, (trace,), latency_ms, AgentError(_failure(root)), stored=True)
    return Reply(_as_said(root.outputs), (trace,), latency_ms, stored=True)


def _as_said(outputs: Any) -> Any:
    outputs = parse_json_text(outputs)
    try:
        read_said(outputs)
    except DataError:
        # Whatever else it is, MLflow's own judges read it as this text.
        return (
            outputs
            if isinstance(outputs, Mapping) and "custom_outputs" in outputs
            else parse_outputs_to_str(outputs)
        )
    return outputs


def _failure(root: Span) -> str:
    messages = [
        event.attributes.get("exception.message") for event in root.events if event.name == "exception"
    ]
    said = next(filter(None, messages), None) or root.status.description
    return f"It failed when it was asked: {said or 'no reason is recorded'}"


def _root(trace: Trace) -> Span:
    known = {span.span_id for span in trace.data.spans}
    root = next((span for span in trace.data.spans if span.parent_id not in known), None)
    if root is None:
        raise DataError(f"{_place(trace)} has no spans.")
    return root


def _unwrapped(inputs: Any) -> Any:
    """The request itself, where the span has a function's arguments by their names."""
    inputs = parse_json_text(inputs)
    while isinstance(inputs, Mapping):
        inside = next((inputs[name] for name in _AROUND if isinstance(inputs.get(name), Mapping | str)), None)
        if inside is None:
            break
        inputs = parse_json_text(inside)
    return inputs


def _messages_alone(inputs: Any) -> Any:
    """Inputs as `to_question` reads them: without tool calls among the messages; a lone text is the question."""
    if not isinstance(inputs, Mapping):
        return inputs
    for name in ("messages", "input"):
        if isinstance(inputs.get(name), list):
            said = [
                turn
                for turn in inputs[name]
                if isinstance(turn, Mapping) and turn.get("role") and turn.get("content")
            ]
            return {"messages": said}
    texts = [value for value in inputs.values() if isinstance(value, str)]
    if len(texts) == 1 and not {"question", "query"} & set(inputs):
        return texts[0]
    return inputs


def _expected_question(trace: Trace, asked: Question) -> Question | None:
    found = [said for said in trace.search_assessments() if isinstance(said, Expectation)]
    found.sort(key=lambda said: said.last_update_time_ms or 0)
    expected = {said.name: parse_json_text(said.value) for said in found if said.name in _EXPECTATIONS}
    if GOLD not in expected:
        return None
    inputs = {"question": asked.question, "history": [dict(turn) for turn in asked.history]}
    return to_question({"inputs": inputs, "expectations": expected}, _place(trace))


def _text_key(question: Question) -> _Asked:
    turns = (f"{turn['role']}: {turn['content']}" for turn in question.history)
    return tuple(
        " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        for text in (question.question, *turns)
    )


def _place(trace: Trace) -> str:
    return f"trace {trace.info.trace_id}"

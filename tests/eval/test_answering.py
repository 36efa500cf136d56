"""Questions put to an agent: each with its own evidence, whoever wrote the agent and whatever it does."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, TraceState
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

from eval.answering import Agent, Answered, answer_questions, read_response, to_request
from eval.evidence import RetrieverMapping
from eval.ground_truth import GroundTruth
from eval.questions import Question
from eval.records import Retrieved
from eval.traces import collect_traces
from program.agent import CiteqaAgent, CitingAgent
from program.retrievers import open_retriever
from program.settings import Settings
from program.types import CitedAnswer, Emit, Turn
from retrieval.errors import DataError, RetrievalError
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

pytestmark = pytest.mark.usefixtures("mlflow_as_found")


def ask(agent: Agent, *questions: Question, **how: Any) -> list[Answered]:
    with collect_traces() as collector:
        return list(answer_questions(agent, questions, collector, **how))


def asking(text: str, **fields: Any) -> Question:
    return Question(id=text, question=text, gold=(), **fields)


def message(text: str, **fields: Any) -> ResponsesAgentResponse:
    content = {"type": "output_text", "text": text, "annotations": fields.pop("annotations", [])}
    item = {"type": "message", "id": "m", "role": "assistant", "content": [content]}
    return ResponsesAgentResponse(output=[item], **fields)


def text_of(request: ResponsesAgentRequest) -> str:
    return str(request.input[-1].model_dump()["content"])


@mlflow.trace(name="somebody_elses", span_type=SpanType.AGENT)
def somebody_elses(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    """An agent that knows nothing of ours: spans of MLflow's own, in its default shape."""
    with mlflow.start_span("lookup", span_type=SpanType.RETRIEVER) as span:
        span.set_inputs({"query": text_of(request)})
        span.set_outputs(
            [
                {"page_content": "x", "metadata": {"doc_uri": "https://a", "chunk_id": "a1"}, "id": "1"},
                {"page_content": "y", "metadata": {"doc_uri": "https://b"}, "id": "b1"},
            ]
        )
    note = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2}
    return message("ok", annotations=[note, note])


def test_the_evidence_is_what_a_direct_search_returns(
    make_settings: Callable[..., Settings], quiz: GroundTruth
) -> None:
    settings = make_settings()
    retriever = open_retriever(settings)
    agent = CiteqaAgent(settings)
    for question, answered in zip(
        quiz.questions, ask(agent.predict, *quiz.questions, threads=1), strict=True
    ):
        found = retriever.search(question.question, 3)
        assert answered.record.retrieved == tuple(
            Retrieved(doc_uri=p.doc_uri, chunk_id=p.chunk_id, score=p.score) for p in found
        )
        assert answered.record.id == question.id
        assert answered.retrieval_seen
    assert sum(len(retriever.search(q.question, 3)) for q in quiz.questions) > len(quiz.questions)


def test_the_answer_its_citations_and_its_reader_are_recorded(
    make_settings: Callable[..., Settings], quiz: GroundTruth
) -> None:
    (answered,) = ask(CiteqaAgent(make_settings()).predict, quiz.questions[2])
    record = answered.record
    assert "Steel is iron with a little carbon." in record.answer
    assert "https://library.example/iron" in record.cited_uris
    assert (record.reader, record.abstained, record.dropped_markers) == ("extractive", False, 0)
    assert record.latency_ms > 0
    assert record.trace_id == answered.traces[0].info.trace_id


def test_an_agent_that_abstains_is_recorded_as_abstaining(
    make_settings: Callable[..., Settings], quiz: GroundTruth
) -> None:
    (answered,) = ask(CiteqaAgent(make_settings()).predict, quiz.questions[3])
    assert answered.record.abstained
    assert answered.record.error is None


def test_an_agent_of_somebody_else_is_evaluated_all_the_same() -> None:
    (answered,) = ask(somebody_elses, asking("q"))
    assert answered.record.retrieved == (
        Retrieved(doc_uri="https://a", chunk_id="a1"),
        Retrieved(doc_uri="https://b", chunk_id="b1"),
    )
    assert (answered.record.answer, answered.record.cited_uris) == ("ok", ("https://a",))
    assert not answered.record.abstained
    assert answered.retrieval_seen


def test_rows_with_other_field_names_are_read_by_their_mapping() -> None:
    @mlflow.trace(span_type=SpanType.RETRIEVER)
    def lookup(query: str) -> list[dict[str, str]]:
        return [{"page": "https://a", "key": "7"}]

    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        lookup("x")
        return message("ok")

    (answered,) = ask(agent, asking("q"), mapping=RetrieverMapping(primary_key="key", doc_uri="page"))
    assert answered.record.retrieved == (Retrieved(doc_uri="https://a", chunk_id="7"),)
    (unmapped,) = ask(agent, asking("q"))
    assert unmapped.record.error is not None
    assert "'doc_uri'" in unmapped.record.error


class BrokenDisk:
    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        raise RetrievalError(f"the index is gone for {query}")


def test_a_question_that_fails_has_its_reason_and_its_trace_and_stops_no_other() -> None:
    def answerer(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        if turn.question == "unlucky":
            traced_search(BrokenDisk(), turn.question, 3)
        return CitedAnswer("fine", (), (), "test", turn.question)

    agent = CitingAgent(answerer)
    failed, fine = ask(agent.predict, asking("unlucky"), asking("lucky"))
    assert failed.record.error == "the index is gone for unlucky"
    assert failed.record.observation() is None
    (trace,) = failed.traces
    assert trace.info.state == TraceState.ERROR
    assert failed.record.trace_id == trace.info.trace_id
    assert (fine.record.error, fine.record.answer) == (None, "fine")


def test_the_reason_of_an_unforeseen_error_names_its_kind_on_one_line() -> None:
    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        raise ValueError("first\nsecond")

    (answered,) = ask(agent, asking("q"))
    assert answered.record.error == "ValueError('first\\nsecond')"
    assert answered.traces == ()


def test_a_search_that_was_not_traced_is_not_seen() -> None:
    (answered,) = ask(lambda request: message("from memory"), asking("q"))
    assert answered.record.answer == "from memory"
    assert not answered.retrieval_seen


def test_a_search_that_found_nothing_is_seen() -> None:
    class Empty:
        def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
            return []

    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        traced_search(Empty(), "x", 3)
        return message("nothing")

    (answered,) = ask(agent, asking("q"))
    assert answered.retrieval_seen
    assert answered.record.retrieved == ()


def test_the_turns_before_a_question_are_passed_on() -> None:
    history = ({"role": "user", "content": "What is iron?"}, {"role": "assistant", "content": "A metal."})
    request = to_request(asking("And steel?", history=history))
    assert [(item.role, item.content) for item in request.input] == [
        ("user", "What is iron?"),
        ("assistant", "A metal."),
        ("user", "And steel?"),
    ]


def test_a_history_that_no_agent_can_be_sent_fails_its_question_alone() -> None:
    odd = asking("odd", history=({"role": "narrator", "content": "Once upon a time"},))
    failed, fine = ask(somebody_elses, odd, asking("q"))
    assert str(failed.record.error).startswith("The question and its history are no request to an agent: ")
    assert fine.record.error is None


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (["text"], "The agent returned list, which holds no `output`, `messages` or `choices`."),
        (None, "The agent returned NoneType"),
        (message("x", custom_outputs={"dropped_markers": "some"}), "custom_outputs.dropped_markers = 'some'"),
    ],
)
def test_a_response_that_cannot_be_read_is_the_failure_of_its_question(response: Any, complaint: str) -> None:
    (answered,) = ask(lambda request: response, asking("q"))
    assert complaint in str(answered.record.error)
    with pytest.raises(DataError):
        read_response(response)


def test_tokens_are_counted_as_the_agent_reports_them() -> None:
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    said = read_response(message("x", usage=usage, model="gpt"))
    assert said["usage"] == {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    assert said["reader"] == "gpt"


class Canaries:
    """Each question has a document of its own, found after a while that differs from question to question."""

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        time.sleep(int(query[1:]) * 5 % 7 / 1000)
        return [Passage(chunk_id=query, doc_uri=f"https://canary/{query}", text=query)]


def sing(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    (passage,) = traced_search(Canaries(), text_of(request), 1)
    return message(passage.text)


def test_threads_never_mix_what_they_find() -> None:
    questions = [asking(f"q{number}") for number in range(80)]
    outcomes = ask(sing, *questions, threads=8)
    assert {answered.record.id for answered in outcomes} == {question.id for question in questions}
    for answered in outcomes:
        assert [r.doc_uri for r in answered.record.retrieved] == [f"https://canary/{answered.record.id}"]
        assert answered.record.answer == answered.record.id


def test_so_many_threads_answer_at_once_and_no_more() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return message("x")

    ask(agent, *(asking(f"q{number}") for number in range(20)), threads=3)
    assert most == 3


def test_the_agent_sees_the_context_of_who_evaluates_it() -> None:
    model = contextvars.ContextVar("model", default="the global one")
    model.set("the one that was asked for")
    (answered,) = ask(lambda request: message(model.get()), asking("q"))
    assert answered.record.answer == "the one that was asked for"


def outcomes_until(
    raised: type[BaseException], agent: Agent, questions: Sequence[Question], threads: int
) -> list[str]:
    kept = []
    with collect_traces() as collector, pytest.raises(raised):  # noqa: PT012 - the loop is what raises
        for answered in answer_questions(agent, questions, collector, threads=threads):
            kept.append(answered.record.id)
    return kept


def test_what_is_running_at_an_interruption_is_kept_and_no_more_is_begun() -> None:
    begun, others_run = [], threading.Barrier(3, timeout=5)

    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        begun.append(text_of(request))
        others_run.wait()
        if text_of(request) == "q1":
            raise KeyboardInterrupt
        time.sleep(0.05)
        return message("x")

    kept = outcomes_until(KeyboardInterrupt, agent, [asking(f"q{n}") for n in range(9)], threads=3)
    assert sorted(kept) == ["q0", "q2"]
    assert sorted(begun) == ["q0", "q1", "q2"]


def test_nothing_more_is_begun_when_nobody_listens_any_longer() -> None:
    begun = []

    def agent(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        begun.append(text_of(request))
        return message("x")

    with collect_traces() as collector:
        outcomes = answer_questions(agent, [asking(f"q{n}") for n in range(9)], collector)
        next(outcomes)
        outcomes.close()
    assert begun == ["q0", "q1"]

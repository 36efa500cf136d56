"""The agent as MLflow and its clients meet it: whole, streamed, traced, broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanStatusCode, SpanType, Trace, TraceState
from mlflow.genai.utils.trace_utils import extract_retrieval_context_from_trace
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CiteqaAgent, CitingAgent
from program.asking import ask_agent, render_json, render_sources_list
from program.citations import cite
from program.streaming import StreamAbandonedError
from program.types import CitedAnswer, Emit, Turn
from retrieval.errors import LanguageModelError, RequestError
from retrieval.types import Passage

PASSAGE = Passage("c1", "https://e.org/1", "Water boils at 100 degrees.", "Water")
ANSWER = {"answerable": True, "answer": "At 100 degrees [1]. Earlier on mountains [2]. Not on the moon [9]."}
DELTA, ANNOTATION = "response.output_text.delta", "response.output_text.annotation.added"
DONE = "response.output_item.done"


def request(question: str = "When does water boil?", **more: Any) -> ResponsesAgentRequest:
    return ResponsesAgentRequest(input=[{"role": "user", "content": question}], **more)


@pytest.fixture
def extractive(make_settings: Any) -> CiteqaAgent:
    return CiteqaAgent(make_settings())


@pytest.fixture
def lm_agent(make_settings: Any, language_model: Any) -> CiteqaAgent:
    language_model.fills(ANSWER, chunk=3)
    return CiteqaAgent(make_settings(language_model))


@pytest.fixture(params=["extractive", "lm_agent"])
def agent(request: pytest.FixtureRequest) -> CiteqaAgent:
    found: CiteqaAgent = request.getfixturevalue(request.param)
    return found


def stream(agent: CitingAgent, asked: ResponsesAgentRequest | None = None) -> list[dict[str, Any]]:
    return [event.model_dump(exclude_none=True) for event in agent.predict_stream(asked or request())]


def without_chance(response: dict[str, Any]) -> dict[str, Any]:
    custom = {**response["custom_outputs"], "timings_ms": sorted(response["custom_outputs"]["timings_ms"])}
    [item] = response["output"]
    return {"content": item["content"], "custom_outputs": custom}


def test_whole_and_streamed_answers_agree(agent: CiteqaAgent) -> None:
    whole = agent.predict(request()).model_dump(exclude_none=True)
    done = stream(agent)[-1]
    streamed = {"output": [done["item"]], "custom_outputs": done["custom_outputs"]}
    assert without_chance(streamed) == without_chance(whole)
    assert whole["output"][0]["content"][0]["annotations"]


def test_deltas_annotations_and_the_finished_item_come_in_order(agent: CiteqaAgent) -> None:
    *events, done = stream(agent)
    said, annotations = "", []
    for event in events:
        if event["type"] == DELTA:
            said += event["delta"]
        else:
            assert event["type"] == ANNOTATION
            annotation = event["annotation"]
            assert said.endswith(f"[{annotation['number']}]")
            assert annotation["end_index"] == len(said)
            annotations.append(annotation)
    assert done["type"] == DONE
    content = done["item"]["content"][0]
    assert content["text"] == said
    assert content["annotations"] == annotations
    assert {event["item_id"] for event in events} == {done["item"]["id"]}


def test_a_language_models_answer_comes_in_many_deltas_with_checked_links(lm_agent: CiteqaAgent) -> None:
    events = stream(lm_agent)
    assert len([event for event in events if event["type"] == DELTA]) > 10
    assert [e["annotation"]["url"] for e in events if e["type"] == ANNOTATION] == [
        "https://docs.example/water",
        "https://docs.example/mountains",
    ]
    assert events[-1]["custom_outputs"]["dropped_markers"] == 1
    assert events[-1]["item"]["content"][0]["text"].endswith("Not on the moon.")


def test_usage_is_told_in_the_words_of_the_responses_api(lm_agent: CiteqaAgent) -> None:
    usage = lm_agent.predict(request()).model_dump()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (11, 7, 18)


@pytest.mark.parametrize("way", ["predict", "predict_stream"])
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ResponsesAgentRequest(input=[]), "holds no message"),
        (request(""), "empty"),
        (request(custom_inputs={"k": "3"}), "k = '3'"),
        (request(custom_inputs={"program": "verse"}), "program = 'verse' is not there. Known: default"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_its_reason(
    extractive: CiteqaAgent, asked: ResponsesAgentRequest, reason: str, way: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        extractive.predict(asked) if way == "predict" else stream(extractive, asked)


def test_custom_inputs_reach_the_search(extractive: CiteqaAgent) -> None:
    custom = {"k": 2, "filters": {"title": ["Water", "Iron"]}}
    sources = extractive.predict(request("water melts", custom_inputs=custom)).custom_outputs["sources"]  # type: ignore[index]
    assert {source["title"] for source in sources} == {"Water", "Iron"}


def test_a_conversation_comes_with_the_request_and_nothing_of_it_stays(
    extractive: CiteqaAgent,
) -> None:
    follow_up = ResponsesAgentRequest(
        input=[
            {"role": "user", "content": "What of iron?"},
            {"role": "assistant", "content": "It melts."},
            {"role": "user", "content": "When?"},
        ]
    )
    assert extractive.predict(follow_up).custom_outputs["query"] == "What of iron?\nWhen?"  # type: ignore[index]
    assert extractive.predict(request("When?")).custom_outputs["query"] == "When?"  # type: ignore[index]


def spans_by_type(trace: Trace, span_type: str) -> list[Any]:
    return [span for span in trace.data.spans if span.span_type == span_type]


@pytest.mark.parametrize("way", ["predict", "predict_stream"])
def test_a_trace_has_an_agent_root_with_one_retriever_span_that_mlflow_reads(
    agent: CiteqaAgent, tracing: Callable[[], Trace], way: str
) -> None:
    agent.predict(request()) if way == "predict" else stream(agent)
    trace = tracing()
    root, *_ = trace.data.spans
    [retriever] = spans_by_type(trace, SpanType.RETRIEVER)
    assert (root.span_type, root.parent_id, trace.info.state) == (SpanType.AGENT, None, TraceState.OK)
    parents = {span.span_id: span.parent_id for span in trace.data.spans}
    above = retriever.parent_id
    while parents[above]:
        above = parents[above]
    assert above == root.span_id
    [chunks] = extract_retrieval_context_from_trace(trace).values()
    assert [chunk["doc_uri"] for chunk in chunks][:2] == [
        "https://docs.example/water",
        "https://docs.example/mountains",
    ]
    assert chunks[0]["content"].startswith("# Water")


def test_the_language_models_calls_are_in_the_trace_too(
    lm_agent: CiteqaAgent, tracing: Callable[[], Trace]
) -> None:
    stream(lm_agent)
    trace = tracing()
    assert len(spans_by_type(trace, SpanType.RETRIEVER)) == 1
    assert spans_by_type(trace, SpanType.CHAT_MODEL)
    assert "sk-canary" not in trace.to_json()


@pytest.mark.parametrize(
    ("more", "session", "user"),
    [
        ({"context": {"conversation_id": "c1", "user_id": "u1"}}, "c1", "u1"),
        ({"custom_inputs": {"session_id": "s2", "user_id": "u2"}}, "s2", "u2"),
        (
            {"context": {"conversation_id": "c1", "user_id": "u1"}, "custom_inputs": {"session_id": "s2"}},
            "s2",
            "u1",
        ),
        ({}, None, None),
    ],
)
def test_session_and_user_are_on_the_trace(
    extractive: CiteqaAgent, tracing: Callable[[], Trace], more: Any, session: str | None, user: str | None
) -> None:
    stream(extractive, request(**more))
    metadata = tracing().info.trace_metadata
    assert metadata.get("mlflow.trace.session") == session
    assert metadata.get("mlflow.trace.user") == user


class Slow:
    """Says a word a millisecond, for ever; remembers how it ended."""

    def __init__(self) -> None:
        self.ended: BaseException | None = None
        self.has_ended = threading.Event()
        self.words = 0

    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        assert emit is not None
        try:
            while True:
                emit("word ")
                self.words += 1
                time.sleep(0.001)
        except BaseException as error:
            self.ended = error
            raise
        finally:
            self.has_ended.set()


def held_traces() -> int:
    manager = InMemoryTraceManager.get_instance()
    return len(manager._traces) + len(manager._otel_id_to_mlflow_trace_id)


def test_a_client_that_leaves_stops_the_answerer_and_ends_the_trace_as_cancelled(
    tracing: Callable[[], Trace],
) -> None:
    slow = Slow()
    events = CitingAgent(slow).predict_stream(request())
    assert next(events).model_dump()["delta"] == "word "
    events.close()
    assert slow.has_ended.wait(5)
    assert isinstance(slow.ended, StreamAbandonedError)
    trace = tracing()
    assert trace.info.state == TraceState.ERROR
    assert trace.data.spans[0].status.status_code == SpanStatusCode.ERROR
    assert "cancelled" in trace.data.spans[0].status.description
    assert held_traces() == 0


def test_an_answerer_waits_for_a_client_that_reads_slowly() -> None:
    slow = Slow()
    events = CitingAgent(slow).predict_stream(request())
    next(events)
    before = -1
    while slow.words > before:
        before = slow.words
        assert before < 400, "nothing holds the answerer back"
        time.sleep(0.2)
    assert before > 100
    events.close()
    assert slow.has_ended.wait(5)


def test_leaving_a_language_models_answer_stops_it_and_leaves_no_trace_open(
    make_settings: Any, language_model: Any, tracing: Callable[[], Trace]
) -> None:
    language_model.fills({"answerable": True, "answer": "word " * 400}, chunk=5, delay_s=0.005)
    events = CiteqaAgent(make_settings(language_model)).predict_stream(request())
    next(events)
    events.close()
    assert language_model.wait_for_hang_up()
    assert language_model.deltas_sent < 100
    wait_for_threads()
    assert tracing().info.state == TraceState.ERROR
    assert held_traces() == 0


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "citeqa-answer":
            thread.join(5)


def test_an_error_in_the_middle_is_raised_where_the_events_are_read(tracing: Callable[[], Trace]) -> None:
    def breaks(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        assert emit is not None
        emit("So far ")
        raise LanguageModelError("the line went dead")

    events = CitingAgent(breaks).predict_stream(request())
    assert next(events).model_dump()["delta"] == "So far "
    with pytest.raises(LanguageModelError, match="the line went dead"):
        next(events)
    assert tracing().info.state == TraceState.ERROR
    assert held_traces() == 0


def test_an_error_of_the_language_model_is_raised_by_both_ways(
    make_settings: Any, language_model: Any
) -> None:
    language_model.says("no", status=400)
    agent = CiteqaAgent(make_settings(language_model))
    with pytest.raises(LanguageModelError, match="no"):
        agent.predict(request())
    with pytest.raises(LanguageModelError, match="no"):
        stream(agent)


def test_agents_by_name_are_asked_by_name() -> None:
    def answerer(name: str) -> Callable[..., CitedAnswer]:
        return lambda turn, emit=None: cite(
            f"{name} [1]", [PASSAGE], reader=name, query=turn.question, emit=emit
        )

    agent = CitingAgent({"default": answerer("first"), "other": answerer("second")})
    assert agent.predict(request()).output[0].content[0]["text"] == "first [1]"
    asked = request(custom_inputs={"program": "other"})
    assert stream(agent, asked)[-1]["custom_outputs"]["reader"] == "second"


def test_conversations_at_once_do_not_mix(make_settings: Any, language_model: Any) -> None:
    def answer(body: dict[str, Any]) -> str:
        canary = str(body["messages"][-1]["content"]).partition("canary-")[2][:2]
        return f"[[ ## answerable ## ]]\nTrue\n\n[[ ## answer ## ]]\n{f'{canary} ' * 20}"

    language_model.computes(answer, chunk=5, delay_s=0.001)
    agent = CiteqaAgent(make_settings(language_model))
    generators = [agent.predict_stream(request(f"water canary-{number:02}")) for number in range(12)]
    texts = ["" for _ in generators]
    waiting = set(range(len(generators)))
    while waiting:
        for number in sorted(waiting):
            event = next(generators[number], None)
            if event is None:
                waiting.remove(number)
            elif event.type == DELTA:
                texts[number] += event.model_dump()["delta"]
    assert [set(text.split()) for text in texts] == [{f"{number:02}"} for number in range(12)]


def test_a_question_on_the_terminal_streams_and_lists_its_sources(agent: CiteqaAgent) -> None:
    said: list[str] = []
    answer = ask_agent(agent, "When does water boil?", {"lang": "en"}, said.append)
    assert "".join(said) == answer["answer"]
    assert answer["question"] == "When does water boil?"
    listed = render_sources_list(answer)
    assert "[1] Water — https://docs.example/water" in listed
    assert "“Water boils at 100 degrees at sea level.”" in listed
    assert ("Reader: extractive" in listed) == (answer["reader"] == "extractive")
    assert '"doc_uri": "https://docs.example/water"' in render_json(answer)


def test_an_abstention_on_the_terminal_lists_nothing_as_cited(extractive: CiteqaAgent) -> None:
    listed = render_sources_list(ask_agent(extractive, "Who was Napoleon of the water?", {"lang": "en"}))
    assert listed.startswith("Retrieved, not cited")


def test_tracing_being_off_changes_nothing(extractive: CiteqaAgent) -> None:
    mlflow.tracing.disable()
    custom = {"session_id": "s1"}
    assert extractive.predict(request(custom_inputs=custom)).output
    assert stream(extractive, request(custom_inputs=custom))[-1]["type"] == DONE

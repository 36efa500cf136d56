"""Calls under observation: each with its own traces, and tracing afterwards as it was before."""

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import mlflow
import mlflow.tracing.provider as mlflow_provider
import pytest
from mlflow.entities import SpanType, TraceState
from mlflow.tracing.provider import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager

from eval.traces import TracedCall, collect_traces
from retrieval.errors import ConfigurationError
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

# Both are mlflow's own, when parts of it are first imported: its type hints, and its use of SQLAlchemy 2.1.


class OneDocument:
    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return [Passage(chunk_id="c1", doc_uri="https://docs/1", text=query)]


@mlflow.trace(span_type=SpanType.AGENT)
def answer(question: str) -> str:
    traced_search(OneDocument(), question, 3)
    return f"about {question}"


def fail(question: str) -> str:
    with mlflow.start_span("doomed"):
        raise RuntimeError(f"no idea about {question}")


@pytest.fixture(autouse=True)
def tracing_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.tracing.reset()
    yield
    mlflow.tracing.reset()


def held_traces() -> int:
    manager = InMemoryTraceManager.get_instance()
    return len(manager._traces) + len(manager._otel_id_to_mlflow_trace_id)


def root_inputs(call: TracedCall[str]) -> list[object]:
    return [trace.data.spans[0].inputs for trace in call.traces]


def test_a_call_comes_back_with_its_result_and_its_trace() -> None:
    with collect_traces() as collector:
        call = collector.call(answer, "tides")
    assert call.value() == "about tides"
    (trace,) = call.traces
    assert trace.info.state == TraceState.OK
    assert [(span.name, span.span_type) for span in trace.data.spans] == [
        ("answer", "AGENT"),
        ("retrieve", "RETRIEVER"),
    ]


def test_each_of_many_threads_gets_its_own_trace() -> None:
    questions = [f"question {number}" for number in range(200)]
    with collect_traces() as collector, ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(lambda question: collector.call(answer, question), questions))
    assert [root_inputs(call) for call in calls] == [[{"question": question}] for question in questions]
    assert all(len(call.traces[0].data.spans) == 2 for call in calls)
    assert len({call.traces[0].info.trace_id for call in calls}) == len(questions)


def test_an_exception_is_returned_with_its_trace_in_state_error() -> None:
    with collect_traces() as collector:
        call = collector.call(fail, "tides")
    assert [trace.info.state for trace in call.traces] == [TraceState.ERROR]
    with pytest.raises(RuntimeError, match="no idea about tides"):
        call.value()


def test_ctrl_c_is_raised_and_leaves_nothing_behind() -> None:
    @mlflow.trace
    def interrupted() -> None:
        raise KeyboardInterrupt

    before = held_traces()
    with collect_traces() as collector, pytest.raises(KeyboardInterrupt):
        collector.call(interrupted)
    assert held_traces() == before


def test_a_program_without_tracing_gives_no_trace_and_two_roots_give_two() -> None:
    def two_roots() -> None:
        for name in ("first", "second"):
            with mlflow.start_span(name):
                pass

    with collect_traces() as collector:
        assert collector.call(str.upper, "x") == TracedCall("X", None, ())
        assert [t.data.spans[0].name for t in collector.call(two_roots).traces] == ["first", "second"]


def test_a_span_that_is_active_outside_is_no_parent_of_the_call() -> None:
    with collect_traces() as collector, mlflow.start_span("sweep"):
        (trace,) = collector.call(answer, "tides").traces
    assert trace.data.spans[0].parent_id is None
    assert trace.data.spans[0].name == "answer"


def test_context_variables_reach_the_call_and_stay_as_they_were_outside() -> None:
    model = contextvars.ContextVar("model", default="none")
    model.set("small")

    def switch() -> str:
        seen = model.get()
        model.set("large")
        return seen

    with collect_traces() as collector:
        assert collector.call(switch).value() == "small"
    assert model.get() == "small"


def test_a_span_left_open_is_kept_unfinished_and_does_not_swallow_the_next_call() -> None:
    kept_alive = []

    def leave_open() -> None:
        kept_alive.append(mlflow.start_span("stream"))
        kept_alive[-1].__enter__()

    before = held_traces()
    with collect_traces() as collector:
        (unfinished,) = collector.call(leave_open).traces
        (next_trace,) = collector.call(answer, "tides").traces
    assert unfinished.info.state == TraceState.IN_PROGRESS
    assert next_trace.data.spans[0].name == "answer"
    assert held_traces() == before


def test_a_search_in_a_detached_thread_is_a_stray() -> None:
    def search_in_a_thread() -> None:
        thread = threading.Thread(target=traced_search, args=(OneDocument(), "tides", 3))
        thread.start()
        thread.join()

    before = held_traces()
    with collect_traces() as collector:
        assert collector.call(search_in_a_thread).traces == ()
        (stray,) = collector.take_strays()
        assert collector.take_strays() == []
    assert stray.data.spans[0].inputs["query"] == "tides"
    assert held_traces() == before


def test_a_thread_that_outlives_its_call_begins_strays() -> None:
    over, late = threading.Event(), []

    def answer_later(context: contextvars.Context) -> None:
        over.wait(10)
        context.run(answer, "late")

    def leave_a_thread() -> None:
        thread = threading.Thread(target=answer_later, args=(contextvars.copy_context(),))
        thread.start()
        late.append(thread)

    with collect_traces() as collector:
        assert collector.call(leave_a_thread).traces == ()
        over.set()
        late[0].join()
        assert [trace.data.spans[0].name for trace in collector.take_strays()] == ["answer"]


def test_mlflow_holds_none_of_the_traces_that_were_collected() -> None:
    before = held_traces()
    with collect_traces() as collector:
        for number in range(50):
            collector.call(fail if number % 2 else answer, "tides")
        assert held_traces() == before


def test_the_tracer_provider_that_was_there_comes_back_running_even_after_an_exception() -> None:
    mlflow.tracing.enable()
    mlflow.tracing.get_bridged_tracer_provider()
    found = provider.get()
    with suppress(RuntimeError), collect_traces():
        assert provider.get() is not found
        raise RuntimeError
    assert provider.get() is found
    assert all(
        processor._batch_delegate is not None for processor in found._active_span_processor._span_processors
    )


def test_tracing_that_was_never_set_up_is_left_to_be_set_up() -> None:
    with collect_traces():
        pass
    assert provider.get() is None
    assert not provider.once._done


def test_tracing_that_another_thread_is_setting_up_does_not_take_the_collections_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    set_up = mlflow_provider._initialize_tracer_provider

    def slowly(disabled: bool = False) -> None:
        begun.set()
        assert go_on.wait(10)
        set_up(disabled)

    monkeypatch.setattr(mlflow_provider, "_initialize_tracer_provider", slowly)
    straggler = threading.Thread(target=provider.get_or_init_tracer, args=["straggler"])
    straggler.start()
    assert begun.wait(10)
    threading.Timer(0.2, go_on.set).start()
    with collect_traces() as collector:
        straggler.join()
        assert root_inputs(collector.call(answer, "tides")) == [{"question": "tides"}]


def test_collections_that_overlap_give_tracing_back_when_the_last_ends() -> None:
    mlflow.tracing.get_bridged_tracer_provider()
    found = provider.get()
    first, second = collect_traces(), collect_traces()
    one, two = first.__enter__(), second.__enter__()
    assert root_inputs(one.call(answer, "a")) == [{"question": "a"}]
    first.__exit__(None, None, None)
    assert provider.get() is not found
    assert root_inputs(two.call(answer, "b")) == [{"question": "b"}]
    second.__exit__(None, None, None)
    assert provider.get() is found


def test_disabled_tracing_is_refused_and_stays_disabled() -> None:
    mlflow.tracing.disable()
    with pytest.raises(ConfigurationError, match=r"mlflow\.tracing\.enable\(\)"), collect_traces():
        pass
    with mlflow.start_span("unseen") as span:
        assert span.trace_id == "MLFLOW_NO_OP_SPAN_TRACE_ID"


def test_tracing_set_up_anew_by_the_program_is_an_error_and_stays_as_the_program_set_it() -> None:
    with collect_traces() as collector:
        with pytest.raises(ConfigurationError, match="set up anew"):
            collector.call(mlflow.tracing.disable)
        with pytest.raises(ConfigurationError, match="set up anew"):
            collector.call(answer, "tides")
    with pytest.raises(ConfigurationError, match="disabled"), collect_traces():
        pass


def test_sampling_does_not_thin_out_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACE_SAMPLING_RATIO", "0")
    with collect_traces() as collector:
        assert len(collector.call(answer, "tides").traces) == 1


def test_what_a_span_processor_redacts_stays_redacted() -> None:
    mlflow.tracing.configure(span_processors=[lambda span: span.set_inputs("redacted")])
    with collect_traces() as collector:
        assert root_inputs(collector.call(answer, "secret")) == ["redacted"]


def test_collecting_asks_no_tracking_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with collect_traces() as collector:
        assert len(collector.call(answer, "tides").traces) == 1


def test_a_responses_agent_gives_one_agent_span_with_its_searches_inside() -> None:
    from mlflow.pyfunc import ResponsesAgent
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

    class Agent(ResponsesAgent):
        def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
            traced_search(OneDocument(), request.input[-1].content, 3)
            return ResponsesAgentResponse(output=[self.create_text_output_item("text", "id")])

    request = ResponsesAgentRequest(input=[{"role": "user", "content": "tides"}])
    with collect_traces() as collector:
        (trace,) = collector.call(Agent().predict, request).traces
    root, search = trace.data.spans
    assert (root.span_type, root.parent_id) == (SpanType.AGENT, None)
    assert (search.span_type, search.parent_id) == (SpanType.RETRIEVER, root.span_id)

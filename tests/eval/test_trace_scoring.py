"""Traces that are there already: which question each answers, what it shows, and which are left out and said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, Trace, TraceState

from eval import stored_traces
from eval.evaluate import Evaluation, evaluate
from eval.ground_truth import GroundTruth
from eval.questions import Question
from eval.trace_scoring import MatchedTraces, asked_question, match_traces, to_reply
from eval.traces import collect_traces
from program.agent import CiteqaAgent
from program.settings import Settings
from program.trace_store import write_traces
from program.tracking import connect
from retrieval.errors import ConfigurationError, DataError, GroundTruthError, RunStoppedError

MakeSettings = Callable[..., Settings]
pytestmark = pytest.mark.usefixtures("mlflow_as_found")


def traced(
    inputs: Any, outputs: Any = "an answer", found: Iterable[str] | None = ("https://library.example/iron",)
) -> Trace:
    """A trace whose root has these inputs and outputs, around a search that found these documents."""

    def program() -> None:
        with mlflow.start_span("root", span_type=SpanType.AGENT) as root:
            root.set_inputs(inputs)
            if found is not None:
                with mlflow.start_span("search", span_type=SpanType.RETRIEVER) as span:
                    span.set_outputs([{"page_content": "x", "metadata": {"doc_uri": uri}} for uri in found])
            if isinstance(outputs, Exception):
                raise outputs
            root.set_outputs(outputs)

    with collect_traces() as collector:
        return collector.call(program).traces[0]


def aged(trace: Trace, minutes: float) -> Trace:
    """The trace as if it had begun so long ago."""
    trace.info.request_time = int(1000 * (time.time() - 60 * minutes))
    return trace


def expecting(trace: Trace, **expectations: Any) -> Trace:
    trace.info.assessments = [
        mlflow.entities.Expectation(
            name=name,
            value=value,
            source=mlflow.entities.AssessmentSource(source_type="HUMAN", source_id="someone"),
            trace_id=trace.info.trace_id,
        )
        for name, value in expectations.items()
    ]
    return trace


def matched(traces: Iterable[Trace], truth: GroundTruth, **how: Any) -> MatchedTraces:
    return match_traces(traces, lambda: truth, {}, **how)


@pytest.mark.parametrize(
    "inputs",
    [
        "What is steel made of?",
        {"question": "What is steel made of?", "k": 3},
        {"query": "What is steel made of?"},
        {"text": "What is steel made of?", "k": 3},
        {"input": "What is steel made of?"},
        {"messages": [{"role": "user", "content": "What is steel made of?"}], "model": "m", "user": "u"},
        {"request": {"input": [{"role": "user", "content": "What is steel made of?"}], "user": None}},
        {
            "request": {
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "What is steel made of?"}]}
                ]
            }
        },
        {"model_input": json.dumps({"messages": [{"role": "user", "content": "What is steel made of?"}]})},
    ],
)
def test_the_question_is_found_in_what_a_root_span_was_given(inputs: Any) -> None:
    asked = asked_question(traced(inputs))
    assert (asked.question, asked.history) == ("What is steel made of?", ())


def test_the_turns_before_a_question_are_its_history_and_tool_calls_are_none() -> None:
    turns = [
        {"role": "user", "content": "Hello."},
        {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "1"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
        {"role": "user", "content": "And on Everest?"},
    ]
    asked = asked_question(traced({"request": {"input": turns}}))
    assert asked.question == "And on Everest?"
    assert [dict(turn) for turn in asked.history] == [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
    ]


@pytest.mark.parametrize("inputs", [None, {}, {"k": 3}, {"messages": []}, {"a": "b", "c": "d"}, [1], " "])
def test_a_trace_without_a_question_is_told(inputs: Any) -> None:
    trace = traced(inputs)
    with pytest.raises(DataError, match=trace.info.trace_id):
        asked_question(trace)


def test_text_is_matched_whatever_its_case_white_space_and_width(quiz: GroundTruth) -> None:
    spellings = [
        "what is  STEEL made of?\n",
        "富士山の高さは何メートルですか",
        "ﾌｼﾞ",
        "Ｗｈａｔ makes bread rise?",
    ]
    found = matched([traced(text) for text in spellings], quiz)
    assert [question.id for question in found.questions] == ["q03", "q10", "q09"]
    (left,) = found.unmatched
    assert (left.question, left.reason) == ("ﾌｼﾞ", "no question of the ground truth has its text")


def test_a_follow_up_is_no_question_without_its_turns(quiz: GroundTruth) -> None:
    turns = ({"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"})
    follow_up = replace(quiz.questions[2], id="f1", history=turns)
    truth = replace(quiz, questions=(*quiz.questions, follow_up))
    messages = [*map(dict, turns), {"role": "user", "content": "What is steel made of?"}]
    assert [q.id for q in matched([traced({"messages": messages})], truth).questions] == ["f1"]
    assert [q.id for q in matched([traced({"messages": messages[-1:]})], truth).questions] == ["q03"]
    assert matched([traced({"messages": messages})], quiz).questions == []


def test_of_several_traces_of_a_question_the_newest_counts(quiz: GroundTruth) -> None:
    question = "What is steel made of?"
    found = matched(
        [traced(question, "new"), traced(question, "old"), traced(question.upper(), "oldest")], quiz
    )
    (record,) = found.records
    assert (record.answer, found.older, found.read) == ("new", 2, 3)


def test_an_expectation_on_a_trace_is_its_gold_and_needs_no_ground_truth() -> None:
    def no_ground_truth() -> GroundTruth:
        raise AssertionError("it is not read")

    trace = expecting(
        traced("Where is the key?"),
        expected_retrieved_context=[{"doc_uri": "https://a"}, ["https://b", "https://c"]],
        expected_facts=["under the mat"],
        something_else=1,
    )
    found = match_traces([trace], no_ground_truth, {})
    (question,) = found.questions
    assert question.question == "Where is the key?"
    assert [[item.doc_uri for item in group] for group in question.gold] == [
        ["https://a"],
        ["https://b", "https://c"],
    ]
    assert question.expected_facts == ("under the mat",)


def test_expectations_without_documents_leave_the_gold_to_the_ground_truth(quiz: GroundTruth) -> None:
    trace = expecting(traced("What is steel made of?"), expected_facts=["iron"])
    assert matched([trace], quiz).questions == [quiz.questions[2]]


def test_an_expectation_that_is_not_usable_leaves_its_trace_out(quiz: GroundTruth) -> None:
    bad = expecting(traced("What is steel made of?"), expected_retrieved_context="https://a")
    found = matched([bad, traced("What makes bread rise?")], quiz)
    assert [question.id for question in found.questions] == ["q09"]
    assert "expected_retrieved_context" in found.unmatched[0].reason


def test_what_is_not_finished_and_what_is_of_a_run_is_left_out_and_counted(quiz: GroundTruth) -> None:
    running, of_run, fine = (traced(question.question) for question in quiz.questions[:3])
    running.info.state = TraceState.IN_PROGRESS
    of_run.info.trace_metadata["mlflow.sourceRun"] = "r"
    found = matched([running, of_run, fine], quiz)
    assert (len(found.records), found.unfinished, found.of_runs) == (1, 1, 1)
    assert len(matched([running, of_run, fine], quiz, with_runs=True).records) == 2
    told = found.describe("production")
    assert told == (
        "Of 3 traces in experiment 'production': 1 scored; 1 of MLflow runs "
        "(--set evaluation.traces.of_runs=true); 1 not finished."
    )


def test_a_trace_that_failed_is_unscored_with_its_reason(quiz: GroundTruth) -> None:
    (record,) = matched([traced("What is steel made of?", TimeoutError("the index slept"))], quiz).records
    assert record.error == "It failed when it was asked: the index slept"
    assert record.trace_id


@pytest.mark.parametrize(
    ("outputs", "answer"),
    [
        ("text", "text"),
        ({"answer": "text", "reasoning": "because"}, "text"),
        ({"messages": [{"role": "assistant", "content": "text"}]}, "text"),
        ({"choices": [{"message": {"role": "assistant", "content": "text"}}]}, "text"),
        ({"title": "a", "body": "b"}, '{"title": "a", "body": "b"}'),
    ],
)
def test_the_answer_is_read_whatever_the_interface(quiz: GroundTruth, outputs: Any, answer: str) -> None:
    (record,) = matched([traced("What is steel made of?", outputs)], quiz).records
    assert (record.answer, record.error) == (answer, None)


def test_the_time_is_the_traces_own() -> None:
    trace = traced("q")
    assert to_reply(trace).latency_ms == pytest.approx(trace.info.execution_duration, abs=1)


Produce = Callable[..., list[Trace]]


@pytest.fixture
def produce(make_settings: MakeSettings, store: str) -> Produce:
    """Has our agent answer the quiz in production; and other traces, as they are, beside."""

    def bring(
        *others: Trace, questions: Iterable[Question] = (), experiment: str = "production"
    ) -> list[Trace]:
        settings = make_settings()
        connect(settings.tracking)
        agent = CiteqaAgent(settings)
        traces = []
        with collect_traces() as collector:
            for question in questions:
                request = {"input": [{"role": "user", "content": question.question}]}
                traces += collector.call(agent.predict, request).traces
        found = mlflow.get_experiment_by_name(experiment)
        id_ = found.experiment_id if found else mlflow.create_experiment(experiment)
        write_traces([*traces, *others], experiment_id=id_)
        return traces

    return bring


def metrics_of(evaluation: Evaluation) -> Mapping[str, tuple[float, int]]:
    intervals = evaluation.result.summary.overall.intervals
    return {name: (i.mean, i.n) for name, i in intervals.items() if name != "latency_ms"}


def test_production_scores_as_an_evaluation_of_the_same_answers(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth
) -> None:
    traces = produce(questions=quiz.questions)
    production = make_settings(evaluation={"traces": {"experiment": "production"}})
    evaluation = evaluate(production)
    assert metrics_of(evaluation) == metrics_of(evaluate(make_settings()))
    assert (evaluation.k, evaluation.subject) == (3, "traces of production")
    assert evaluation.notes[0] == "Of 12 traces in experiment 'production': 12 scored."
    assert list(evaluation.result.questions) == list(quiz.questions), "in their own order"

    run = mlflow.get_run(evaluation.mlflow_run_id)
    assert run.data.params["traces.experiment"] == "production"
    linked = mlflow.MlflowClient().search_traces(
        locations=[traces_of("production")], filter_string=f"attribute.run_id = '{run.info.run_id}'"
    )
    assert {trace.info.trace_id for trace in linked} == {trace.info.trace_id for trace in traces}


def traces_of(experiment: str) -> str:
    found = mlflow.get_experiment_by_name(experiment)
    assert found is not None
    return str(found.experiment_id)


def test_what_is_new_makes_another_run_and_what_is_not_the_same_one(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth
) -> None:
    settings = make_settings(evaluation={"traces": {"experiment": "production"}})
    produce(traced("Who asked this?"), questions=quiz.questions[:3])
    first = evaluate(settings)
    assert evaluate(settings).result.path == first.result.path
    assert first.notes[1] == "3 of the 12 questions of quiz were asked; the others are in no mean."
    assert first.result.summary.overall.unscored == 0
    (left,) = map(json.loads, (first.result.path / "unmatched.jsonl").read_text().splitlines())
    assert left["question"] == "Who asked this?"
    assert (
        f"1 without a question, in unmatched.jsonl, such as {left['trace_id']}: no question" in first.notes[0]
    )
    produce(questions=quiz.questions[3:4])
    second = evaluate(settings)
    assert second.result.path != first.result.path
    assert second.result.summary.overall.scored == 4
    again = evaluate(settings, rescore=True)
    assert (again.result.path, again.mlflow_run_id) == (second.result.path, None)


def test_an_evaluations_own_traces_are_not_productions(
    make_settings: MakeSettings, quiz: GroundTruth
) -> None:
    evaluate(make_settings())
    settings = make_settings(evaluation={"traces": {"experiment": "citeqa"}})
    with pytest.raises(RunStoppedError, match=r"There is nothing to score: .* 12 of MLflow runs"):
        evaluate(settings)
    assert (
        evaluate(
            make_settings(evaluation={"traces": {"experiment": "citeqa", "of_runs": True}})
        ).result.summary.overall.scored
        == 12
    )


def test_gold_on_the_traces_alone_makes_a_run(
    make_settings: MakeSettings, produce: Produce, tmp_path: Path
) -> None:
    trace = traced("Where is the key?", found=("https://a", "https://b"))
    produce(trace)
    mlflow.log_expectation(
        trace_id=trace.info.trace_id,
        name="expected_retrieved_context",
        value=[{"doc_uri": "https://b"}],
        source=mlflow.entities.AssessmentSource(source_type="HUMAN", source_id="someone"),
    )
    settings = make_settings(
        evaluation={"traces": {"experiment": "production"}, "dataset": str(tmp_path / "none.jsonl")}
    )
    evaluation = evaluate(settings)
    assert metrics_of(evaluation)["mrr"] == (0.5, 1)
    produce(traced("And the cat?"))
    with pytest.raises(GroundTruthError, match="No ground truth at"):
        evaluate(settings)


def test_traces_are_read_newest_first_in_pages_until_they_are_too_old_or_enough(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [question.question for question in quiz.questions]
    produce(*(aged(traced(text), 10 * age) for age, text in enumerate(texts)))
    monkeypatch.setattr(stored_traces, "PAGE_SIZE", 5)

    def asked(**how: Any) -> list[str]:
        limit = how.pop("limit", None)
        return [
            asked_question(trace).question
            for trace in stored_traces.read_traces(
                experiment,
                make_settings(evaluation={"traces": how}).evaluation.traces,
                settings.tracking.uri,
                limit=limit,
                now_ms=int(1000 * time.time()),
            )
        ]

    settings = make_settings()
    experiment = stored_traces.find_experiment("production", settings.tracking.uri)
    assert asked() == texts
    assert asked(since="35m") == texts[:4]
    assert asked(since="1h", limit=6) == texts[:6]
    assert asked(limit=7) == texts[:7]
    assert asked(since="2w") == texts


def test_only_a_page_of_traces_is_in_memory(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(*(traced(question.question) for question in quiz.questions))
    monkeypatch.setattr(stored_traces, "PAGE_SIZE", 5)
    pages: list[int] = []
    really_search = mlflow.MlflowClient.search_traces

    def search(self: mlflow.MlflowClient, *args: Any, **kwargs: Any) -> Any:
        page = really_search(self, *args, **kwargs)
        pages.append(len(page))
        return page

    monkeypatch.setattr(mlflow.MlflowClient, "search_traces", search)
    settings = make_settings()
    experiment = stored_traces.find_experiment("production", settings.tracking.uri)
    reading = stored_traces.read_traces(
        experiment, settings.evaluation.traces, settings.tracking.uri, limit=None, now_ms=0
    )
    next(reading)
    assert pages == [5]
    assert len(list(reading)) == 11
    assert pages == [5, 5, 2]


@pytest.mark.parametrize(
    ("traces", "complaint"),
    [
        (
            {"experiment": "productoin"},
            r"no such experiment\. Did you mean 'production'\? There are: .*citeqa",
        ),
        ({"experiment": "99"}, "no such experiment"),
        (
            {"experiment": "production", "filter": "status == 'OK'"},
            "--trace-filter status == 'OK': Invalid comparator",
        ),
        ({"experiment": "production", "filter": "tags.env ="}, "--trace-filter tags.env =: "),
    ],
)
def test_what_names_no_traces_is_told(
    make_settings: MakeSettings, produce: Produce, traces: dict[str, str], complaint: str
) -> None:
    produce(traced("q"))
    with pytest.raises(ConfigurationError, match=complaint):
        evaluate(make_settings(evaluation={"traces": traces}))


def test_an_experiment_may_be_named_by_its_id_and_its_traces_chosen_by_a_filter(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth
) -> None:
    marked = traced(quiz.questions[2].question)
    marked.info.tags["env"] = "staging"
    produce(marked, traced(quiz.questions[4].question))
    settings = make_settings(
        evaluation={"traces": {"experiment": traces_of("production"), "filter": "tags.env = 'staging'"}}
    )
    assert list(evaluate(settings).result.records) == ["q03"]
    nothing = make_settings(
        evaluation={"traces": {"experiment": "production", "filter": "tags.env = 'none'"}}
    )
    with pytest.raises(RunStoppedError, match="has no trace that the filter and the time let pass"):
        evaluate(nothing)


def test_traces_without_a_search_are_not_scored_as_finding_nothing(
    make_settings: MakeSettings, produce: Produce, quiz: GroundTruth
) -> None:
    produce(*(traced(question.question, found=None) for question in quiz.questions[:3]))
    with pytest.raises(RunStoppedError, match="No RETRIEVER span in any of the 3 traces"):
        evaluate(make_settings(evaluation={"traces": {"experiment": "production"}}))

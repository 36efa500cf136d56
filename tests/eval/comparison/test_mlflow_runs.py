"""Runs out of MLflow: ours by their artifact, those of mlflow.genai.evaluate by the feedback on their traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import AssessmentSource, Document, Feedback, SpanType

from eval.comparison.changes import question_changes
from eval.comparison.comparison import compare_runs
from eval.comparison.loading import read_scored_run
from eval.comparison.score_files import read_run_directory
from eval.scored_runs import ScoredRun
from eval.traces import collect_traces
from program.settings import TrackingSettings
from program.trace_store import write_traces
from retrieval.errors import DataError

# Of pandas, about what mlflow.genai.evaluate does with its table.
pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0:DeprecationWarning")

Read = Callable[[str], ScoredRun]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_MAX_SCORER_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
        "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def experiment(store: str, tmp_path: Path) -> str:
    mlflow.set_tracking_uri(store)
    return mlflow.create_experiment("others", (tmp_path / "artifacts").as_uri())


@pytest.fixture
def read(store: str) -> Read:
    return lambda source: read_scored_run(source, TrackingSettings(uri=store))


FOUND = {"How hot is it?": "a", "How deep is it?": "x", "高さは何メートルですか": "c"}


@mlflow.trace(span_type=SpanType.RETRIEVER)
def search(question: str) -> list[Document]:
    return [Document("text", {"doc_uri": f"https://d/{FOUND[question]}"}, "1")]


@mlflow.trace(span_type=SpanType.AGENT)
def agent(question: str) -> str:
    return f"From {search(question)[0].metadata['doc_uri']}"


def evaluate_with_mlflow(experiment: str, scorers: list[Any]) -> str:
    rows = [
        {
            "inputs": {"question": question},
            "expectations": {"expected_retrieved_context": [{"doc_uri": f"https://d/{gold}"}]},
            "tags": {"lang": lang},
        }
        for question, gold, lang in [
            ("How hot is it?", "a", "en"),
            ("How deep is it?", "b", "en"),
            ("高さは何メートルですか", "c", "ja"),
        ]
    ]
    mlflow.set_experiment(experiment_id=experiment)
    return str(mlflow.genai.evaluate(data=rows, predict_fn=agent, scorers=scorers).run_id)


def test_an_evaluation_by_mlflow_is_compared_with_a_run_of_ours_by_the_questions_themselves(
    experiment: str, read: Read, baseline: Path
) -> None:
    from eval.scorers import as_mlflow_scorers

    @mlflow.genai.scorer
    def short(outputs: str) -> bool:
        return len(outputs) < 17

    @mlflow.genai.scorer
    def judged(outputs: str) -> str:
        return "yes" if outputs.endswith("a") else "no"

    @mlflow.genai.scorer
    def broken(outputs: str) -> float:
        raise ValueError("no judge")

    @mlflow.genai.scorer
    def wordy(outputs: str) -> str:
        return "rather good"

    run_id = evaluate_with_mlflow(
        experiment, [*as_mlflow_scorers(["recall@1"]), short, judged, broken, wordy]
    )
    run = read(run_id)
    assert list(run.questions.values()) == list(FOUND)
    assert set(run.values) == {"recall@1", "short", "judged"}
    np.testing.assert_array_equal(run.values["recall@1"], [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(run.values["judged"], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(run.values["short"], [1.0, 1.0, 1.0])
    assert [run.tags[id_]["lang"] for id_ in run.questions] == ["en", "en", "ja"]
    assert run.matched_by == "question"

    comparison = compare_runs(read_run_directory(baseline), run, ["recall@1"], by=("lang",))
    assert comparison.pairing.pairs[0][0] == "q1"
    assert len(comparison.pairing.pairs) == 3
    assert comparison.pairing.only_a == ["q4"]
    assert comparison.headline["recall@1"].difference.mean == 0.0
    assert question_changes(comparison) == []
    row = run.row(next(iter(run.questions)))
    assert row["gold"] == [["https://d/a"]]
    assert row["retrieved"] == [{"doc_uri": "https://d/a"}]
    assert row["answer"] == "From https://d/a"


def log(run: str, request: Any, **values: Any) -> str:
    """One trace of a run with feedback on it, as any program may write them; its id."""

    def answer() -> None:
        with mlflow.start_span("agent", span_type=SpanType.AGENT) as span:
            span.set_inputs(request)
            span.set_outputs("an answer")

    with collect_traces() as collector:
        (trace,) = collector.call(answer).traces
    write_traces([trace], experiment_id=mlflow.get_run(run).info.experiment_id, run_id=run)
    for name, value in values.items():
        mlflow.log_feedback(trace_id=trace.info.trace_id, name=name, value=value)
    return str(trace.info.trace_id)


def asked(question: str) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": question}]}


def start(experiment: str, name: str) -> str:
    mlflow.set_experiment(experiment_id=experiment)
    return str(mlflow.MlflowClient().create_run(experiment, run_name=name).info.run_id)


def test_two_runs_of_any_program_are_compared_by_the_feedback_on_their_traces(
    experiment: str, read: Read
) -> None:
    one, two = start(experiment, "one"), start(experiment, "two")
    for run, scores in ((one, [0.1, 0.2, 0.9]), (two, [0.4, 0.2, 0.8])):
        for place, score in enumerate(scores):
            log(run, asked(f"question {place}"), score=score, ok=score > 0.15, recall_at_5=1.0)
    log(two, asked("another question"), score=1.0)
    comparison = compare_runs(read("one"), read(f"runs:/{two}"))
    assert list(comparison.headline) == ["recall@5"]
    score = comparison.others["score"]
    assert (score.n, score.wins, score.losses, score.ties) == (3, 1, 1, 1)
    assert comparison.others["ok"].wins == 1
    assert len(comparison.pairing.only_b) == 1
    assert not comparison.pairing.by_text


def test_of_feedback_the_last_that_counts_does(experiment: str, read: Read) -> None:
    run = start(experiment, "run")
    trace = log(run, asked("why?"), score=0.1)
    mlflow.log_feedback(trace_id=trace, name="score", value=0.7)
    mlflow.log_feedback(trace_id=trace, name="broken", error=ValueError("no judge"))
    mlflow.log_assessment(
        trace,
        Feedback(
            "score",
            0.0,
            source=AssessmentSource("CODE", "other"),
            metadata={"mlflow.assessment.sourceRunId": "x"},
        ),
    )
    log(run, asked("how?"), score=float("nan"))
    log(run, asked("who?"))
    scored = read("run")
    np.testing.assert_array_equal(scored.values["score"], [0.7, np.nan, np.nan])
    assert set(scored.values) == {"score"}
    assert list(scored.unscored.values()) == ["no feedback that is a number"] * 2


def test_a_question_that_was_asked_again_counts_as_it_was_answered_last(experiment: str, read: Read) -> None:
    run = start(experiment, "run")
    log(run, asked("why?"), score=0.1)
    log(run, asked("why?"), score=0.9)
    assert read("run").values["score"].tolist() == [0.9]


def test_a_run_of_ours_is_read_from_its_artifact_with_its_settings(
    experiment: str, read: Read, baseline: Path
) -> None:
    client = mlflow.MlflowClient()
    run = start(experiment, "ours")
    client.log_artifact(run, str(baseline / "scores.jsonl"))
    client.log_param(run, "retrieval.k", 2)
    client.log_param(run, "dataset.digest", "abc")
    scored = read("ours")
    assert (scored.name, scored.source, scored.dataset) == ("ours", f"runs:/{run}", "abc")
    assert scored.settings == {"retrieval.k": "2"}
    assert scored.row("q2")["answer"] == "It is deep."
    assert not compare_runs(scored, read_run_directory(baseline)).settings


def test_what_names_no_run_or_several_says_what_to_do(experiment: str, read: Read) -> None:
    start(experiment, "twin")
    start(experiment, "twin")
    with pytest.raises(DataError, match=r"2 runs are called 'twin'. Name one by its id: \w{32}, \w{32}"):
        read("twin")
    with pytest.raises(DataError, match="Nothing is called 'nobody'"):
        read("nobody")
    with pytest.raises(DataError, match=r"has no run '0{32}'"):
        read("0" * 32)
    with pytest.raises(DataError, match="has no traces, and no scores"):
        read(start(experiment, "empty"))


@pytest.mark.parametrize("name", ["it's", 'a "quoted" name', "50 % of it"])
def test_a_name_may_hold_quotes(experiment: str, read: Read, name: str) -> None:
    log(start(experiment, name), asked("why?"), score=0.5)
    assert read(name).name == name


def test_a_request_of_any_shape_is_a_question(experiment: str, read: Read) -> None:
    run = start(experiment, "run")
    log(run, {"numbers": [1, 2], "mode": "再計算"}, score=1)
    (text,) = read("run").questions.values()
    assert json.loads(text) == {"mode": "再計算", "numbers": [1, 2]}

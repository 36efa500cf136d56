"""A run as MLflow shows it: one run, with its parameters, scores, table, data and traces, however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, Trace

from eval.evaluate import Evaluation, evaluate
from eval.ground_truth import GroundTruth
from eval.metrics import parse_metrics
from eval.mlflow_run import RUN_ID, MlflowRun, flatten
from eval.records import RunDirectory
from eval.run import RunPlan, RunResult, score_run
from program.settings import Settings, TrackingSettings
from retrieval.errors import StorageError

MakeSettings = Callable[..., Settings]


def run_of(evaluation: Evaluation) -> Run:
    assert evaluation.mlflow_run_id is not None
    return MlflowClient().get_run(evaluation.mlflow_run_id)


def traces_of(evaluation: Evaluation) -> list[Trace]:
    run = run_of(evaluation)
    return mlflow.search_traces(
        locations=[run.info.experiment_id], run_id=run.info.run_id, return_type="list"
    )


def table_of(evaluation: Evaluation) -> Any:
    return mlflow.load_table("questions.json", run_ids=[str(evaluation.mlflow_run_id)])


def test_an_evaluation_is_one_run_with_parameters_scores_and_data(make_settings: MakeSettings) -> None:
    evaluation = evaluate(make_settings())
    run = run_of(evaluation)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == evaluation.result.path.name
    assert run.data.params["retrieval.k"] == "3"
    assert run.data.params["reader.kind"] == "auto"
    assert run.data.params["dataset.digest"] == evaluation.ground_truth.digest

    intervals = evaluation.result.summary.overall.intervals
    metrics = run.data.metrics
    assert (metrics["questions_scored"], metrics["questions_unscored"]) == (12, 0)
    for name, interval in intervals.items():
        mlflow_name = name.replace("@", "_at_")
        found = [metrics[mlflow_name + end] for end in ("", ".low", ".high")]
        assert found == [interval.mean, interval.low, interval.high]
    japanese = evaluation.result.summary.slices["lang"]["ja"].intervals["recall@3"]
    assert metrics["recall_at_3/lang/ja"] == japanese.mean

    (dataset_input,) = run.inputs.dataset_inputs
    assert (dataset_input.dataset.name, dataset_input.dataset.digest) == (
        "quiz",
        evaluation.ground_truth.digest,
    )
    assert json.loads(dataset_input.dataset.source)["uri"] == str(evaluation.ground_truth.path)
    assert {tag.key: tag.value for tag in dataset_input.tags} == {"mlflow.data.context": "evaluation"}


def test_the_table_has_a_row_a_question_with_its_answer_and_scores(make_settings: MakeSettings) -> None:
    evaluation = evaluate(make_settings())
    table = table_of(evaluation).set_index("id")
    assert len(table) == 12
    assert table.loc["q10", "question"] == "富士山の高さは何メートルですか"
    assert "3776" in table.loc["q10", "answer"]
    assert table.loc["q10", "lang"] == "ja"
    assert {name: table.loc["q07", name] for name in ("recall@3", "mrr")} == {"recall@3": 1.0, "mrr": 1.0}
    assert set(table["trace_id"]) == {trace.info.trace_id for trace in traces_of(evaluation)}


def test_the_result_files_are_artifacts_next_to_the_store(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    evaluation = evaluate(make_settings())
    folder = Path(mlflow.artifacts.download_artifacts(run_id=evaluation.mlflow_run_id))
    for name in ("scores.jsonl", "summary.json"):
        assert (folder / name).read_bytes() == (evaluation.result.path / name).read_bytes()
    assert folder.is_relative_to(tmp_path / "store" / "artifacts")


def test_every_trace_is_linked_to_its_run(make_settings: MakeSettings) -> None:
    evaluation = evaluate(make_settings())
    evaluate(make_settings(retrieval={"k": 2}))
    traces = traces_of(evaluation)
    expected = {record.trace_id for record in evaluation.result.records.values()}
    assert {trace.info.trace_id for trace in traces} == expected
    assert len(traces) == 12
    assert all(trace.search_spans(span_type="RETRIEVER") for trace in traces)


def interrupt_at(count: int) -> Callable[[int, int], None]:
    def on_answer(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return on_answer


def test_an_interrupted_run_is_killed_and_the_same_run_is_finished_later(make_settings: MakeSettings) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_settings(), on_answer=interrupt_at(7))
    (killed,) = MlflowClient().search_runs([mlflow.get_experiment_by_name("citeqa").experiment_id])
    assert killed.info.status == "KILLED"
    evaluation = evaluate(make_settings())
    assert evaluation.mlflow_run_id == killed.info.run_id
    assert evaluation.result.answered_now == 5
    assert run_of(evaluation).info.status == "FINISHED"
    assert {trace.info.trace_id for trace in traces_of(evaluation)} >= {
        record.trace_id for record in evaluation.result.records.values()
    }


def test_a_run_that_is_finished_again_replaces_its_table_and_keeps_its_parameters(
    make_settings: MakeSettings,
) -> None:
    first = evaluate(make_settings())
    again = evaluate(make_settings(evaluation={"slices": ["type"]}, chunking={"max_tokens": 100}))
    assert again.mlflow_run_id == first.mlflow_run_id
    assert again.result.answered_now == 0
    assert len(table_of(again)) == 12
    assert run_of(again).data.params["chunking.max_tokens"] == "200"
    assert len(run_of(again).inputs.dataset_inputs) == 1


def test_a_run_goes_on_in_another_experiment_as_a_run_of_that(make_settings: MakeSettings) -> None:
    first = evaluate(make_settings())
    moved = evaluate(make_settings(tracking={"experiment": "elsewhere"}))
    assert moved.mlflow_run_id != first.mlflow_run_id
    assert run_of(moved).info.experiment_id != run_of(first).info.experiment_id
    assert len(table_of_in(moved, "elsewhere")) == 12


def table_of_in(evaluation: Evaluation, experiment: str) -> Any:
    experiment_id = mlflow.get_experiment_by_name(experiment).experiment_id
    return MlflowClient().load_table(experiment_id, "questions.json", [str(evaluation.mlflow_run_id)])


def test_a_run_that_the_store_has_lost_is_begun_anew(make_settings: MakeSettings, quiz: GroundTruth) -> None:
    settings = make_settings()
    first = evaluate(settings)
    MlflowClient().delete_run(str(first.mlflow_run_id))
    again = evaluate(settings)
    assert again.mlflow_run_id != first.mlflow_run_id
    assert json.loads((again.result.path / "run.json").read_text())[RUN_ID] == again.mlflow_run_id


def test_filters_and_long_values_are_parameters_that_mlflow_takes(make_settings: MakeSettings) -> None:
    many = [f"language {number}" for number in range(1000)]
    evaluation = evaluate(make_settings(retrieval={"filters": {"lang NOT": ["fr"], "title NOT": many}}))
    params = run_of(evaluation).data.params
    assert params["retrieval.filters.lang NOT"] == "['fr']"
    assert len(params["retrieval.filters.title NOT"]) == 6000


def test_conditions_with_signs_that_mlflow_forbids_in_names_are_logged_too(
    make_settings: MakeSettings, tmp_path: Path, quiz: GroundTruth
) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        run = MlflowRun(make_settings().tracking, directory, "name", quiz)
        run.finish(scored(directory, quiz), {"retrieval": {"filters": {"year >=": 2024}}})
    params = MlflowClient().get_run(run.run_id).data.params
    assert params == {"retrieval.filters.year __": "2024"}


def test_more_scores_than_mlflow_takes_at_once_are_logged_all_the_same(
    make_settings: MakeSettings, tmp_path: Path, quiz: GroundTruth
) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        result = scored(directory, quiz)
        interval = evaluate(make_settings()).result.summary.overall.intervals["mrr"]
        part = replace(result.summary.overall, intervals={"mrr": interval})
        slices = {"topic": {f"topic {number}": part for number in range(1100)}}
        run = MlflowRun(make_settings().tracking, directory, "name", quiz)
        run.finish(replace(result, summary=replace(result.summary, slices=slices)), {})
    metrics = MlflowClient().get_run(run.run_id).data.metrics
    assert sum(name.startswith("mrr/topic/") for name in metrics) == 1100


def scored(directory: RunDirectory, quiz: GroundTruth) -> RunResult:
    """A run of which nothing is answered yet."""
    return score_run(RunPlan("name", {}, quiz, parse_metrics(["mrr"])), directory)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{folder}/file/mlflow.db", "File exists|Not a directory"),
        ("sqlite:///{folder}/file", "file is not a database"),
        ("carrier-pigeon://loft", "unsupported URI"),
        ("http://127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_at_once(
    uri: str,
    reason: str,
    tmp_path: Path,
    quiz: GroundTruth,
    mlflow_as_found: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "file").write_text("not a database, but long enough to be taken for one" * 20)
    uri = uri.format(folder=tmp_path)
    started = time.monotonic()
    with (
        RunDirectory(tmp_path / "run") as directory,
        pytest.raises(
            StorageError, match=rf"The tracking store at '{uri}' cannot be used: .*({reason})"
        ) as e,
    ):
        MlflowRun(TrackingSettings(uri=uri), directory, "name", quiz)
    assert "\n" not in str(e.value)
    assert time.monotonic() - started < 20, "MLflow alone tries a database for minutes"


def test_a_store_that_breaks_on_the_way_costs_no_answer_and_no_trace(
    make_settings: MakeSettings, store: str, empty_store: Path
) -> None:
    database = Path(store.removeprefix("sqlite:///"))

    def break_at_the_end(done: int, total: int) -> None:
        if done == total:
            database.write_bytes(b"scratched" * 1000)

    with pytest.raises(StorageError) as e:
        evaluate(make_settings(), on_answer=break_at_the_end)
    assert "\n" not in str(e.value)

    repaired = database.with_name("repaired.db")
    repaired.write_bytes(empty_store.read_bytes())
    evaluation = evaluate(make_settings(tracking={"uri": f"sqlite:///{repaired}"}))
    assert evaluation.result.answered_now == 0
    assert len(traces_of(evaluation)) == 12
    assert run_of(evaluation).info.status == "FINISHED"


def test_nested_settings_become_dotted_names() -> None:
    assert dict(flatten({"a": {"b": 1, "c": {}}, "d": [2]})) == {"a.b": 1, "a.c": {}, "d": [2]}

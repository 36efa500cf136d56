"""A sweep in MLflow: a parent with the verdict, a child for each configuration, each of them once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from eval.stats import Interval
from eval.summary import Slice, Summary
from eval.sweep import mlflow_sweep
from eval.sweep.files import write_result
from eval.sweep.mlflow_sweep import log_sweep
from eval.sweep.results import FinalCheck, Spending, SweepResult
from eval.sweep.run import run_sweep
from eval.sweep.space import build_space
from program.settings import TrackingSettings
from retrieval.errors import StorageError

Swept = Callable[..., SweepResult]


@pytest.fixture
def swept(sweeps: Any) -> Swept:
    """A sweep that was run and written, with a report of one line."""

    def run(**keys: Any) -> SweepResult:
        specification = sweeps.specify(**keys)
        result = run_sweep(specification, "sweep.yaml")
        write_result(result, build_space(specification, "sweep.yaml"))
        (result.path / "report.html").write_text("<!doctype html>", encoding="utf-8")
        return result

    return run


@pytest.fixture
def tracking(store: str) -> TrackingSettings:
    return TrackingSettings(uri=store, experiment="sweeps")


def runs() -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("sweeps")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def children_of(parent: str) -> dict[str, Run]:
    """The runs below a parent, by the number of their configuration."""
    return {
        run.data.tags["citeqa.trial"]: run
        for run in runs()
        if run.data.tags.get("mlflow.parentRunId") == parent
    }


def test_a_sweep_is_a_parent_with_a_child_for_each_configuration(
    swept: Swept, tracking: TrackingSettings
) -> None:
    result = swept(factors={"retrieval.k": [1, 3], "retrieval.filters": [{}, {"lang": "ja"}]}, holdout=0.3)
    parent = log_sweep(result, tracking)
    children = children_of(parent)
    assert len(runs()) == 5
    assert sorted(children) == ["1", "2", "3", "4"]
    trial, child = result.trials[1], children["2"]
    assert child.data.params == {"retrieval.k": "1", "retrieval.filters": "{}"}
    assert child.info.run_name == "#2 k=1, filters={}"
    recall = trial.summary.overall.intervals["recall@3"]
    assert child.data.metrics["recall_at_3"] == pytest.approx(recall.mean)
    assert child.data.metrics["recall_at_3.low"] == pytest.approx(recall.low)
    assert child.data.metrics["questions.scored"] == trial.summary.overall.scored
    assert (child.info.status, child.data.tags["citeqa.state"]) == ("FINISHED", "complete")
    verdict = mlflow.get_run(parent)
    assert result.final is not None
    best = result.trial(result.winner or 0)
    assert verdict.data.metrics["configurations"] == 4
    assert verdict.data.metrics["best.citation_recall"] == pytest.approx(best.objectives["citation_recall"])
    assert verdict.data.metrics["held_out.citation_recall"] == pytest.approx(result.final.held_out)
    assert verdict.data.tags["best.retrieval.k"] == str(best.parameters["retrieval.k"])
    assert verdict.data.params["factor.retrieval.filters"] == '[{}, {"lang": "ja"}]'
    assert (verdict.info.run_name, verdict.info.status) == ("quiz", "FINISHED")


def test_the_report_and_the_result_are_its_artifacts_and_the_scores_its_childrens(
    swept: Swept, tracking: TrackingSettings, tmp_path: Path
) -> None:
    result = swept()
    parent = log_sweep(result, tracking)
    client = mlflow.MlflowClient()
    names = {file.path for file in client.list_artifacts(parent)}
    assert names == {"report.html", "result.json", "winner.yaml"}
    child = children_of(parent)["1"].info.run_id
    assert {file.path for file in client.list_artifacts(child)} == {"scores.jsonl", "summary.json"}
    copied = Path(client.download_artifacts(parent, "result.json", str(tmp_path)))
    assert json.loads(copied.read_bytes())["winner"] == result.winner


def test_a_repeat_logs_nothing_anew_and_asks_mlflow_nothing(
    swept: Swept, tracking: TrackingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = swept()
    parent = log_sweep(result, tracking)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: pytest.fail("MLflow was asked"))
    assert log_sweep(swept(), tracking) == parent


def test_what_is_new_joins_the_same_parent(swept: Swept, tracking: TrackingSettings) -> None:
    result = swept(factors={"retrieval.k": [1, 2, 3]})
    early = replace(
        result,
        trials=result.trials[:2],
        ranking=[1, 2],
        winner=1,
        stopped_early="the budget of 5 tokens is spent",
    )
    parent = log_sweep(early, tracking)
    first = {number: run.info.run_id for number, run in children_of(parent).items()}
    assert log_sweep(result, tracking) == parent
    later = {number: run.info.run_id for number, run in children_of(parent).items()}
    assert later.items() >= first.items()
    assert sorted(later) == ["1", "2", "3"]
    assert len(runs()) == 4


def test_a_store_that_was_deleted_gets_everything_anew(
    swept: Swept, tracking: TrackingSettings, empty_store: Path
) -> None:
    result = swept()
    before = log_sweep(result, tracking)
    mlflow.tracking._tracking_service.utils._get_store().engine.dispose()
    shutil.copy(empty_store, tracking.uri.removeprefix("sqlite:///"))
    parent = log_sweep(result, tracking)
    assert parent != before
    assert len(runs()) == 3


def test_a_parent_that_was_deleted_is_logged_anew(swept: Swept, tracking: TrackingSettings) -> None:
    result = swept()
    before = log_sweep(result, tracking)
    mlflow.delete_run(before)
    parent = log_sweep(result, tracking)
    assert parent != before
    assert len(children_of(parent)) == 2


def test_another_store_gets_everything(
    swept: Swept, tracking: TrackingSettings, empty_store: Path, tmp_path: Path
) -> None:
    result = swept()
    before = log_sweep(result, tracking)
    other = shutil.copy(empty_store, tmp_path / "other.db")
    parent = log_sweep(result, TrackingSettings(uri=f"sqlite:///{other}", experiment="sweeps"))
    assert parent != before
    assert len(runs()) == 3


def test_logging_that_was_killed_goes_on_and_leaves_no_second_parent(
    swept: Swept, tracking: TrackingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = swept(factors={"retrieval.k": [1, 2, 3]})
    really_log = mlflow_sweep._Logging._log_trial

    def killed(self: Any, trial: Any, parent: str) -> str:
        if trial.number == 3:
            raise KeyboardInterrupt
        return really_log(self, trial, parent)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow_sweep._Logging, "_log_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            log_sweep(result, tracking)
    parent = log_sweep(result, tracking)
    assert sorted(children_of(parent)) == ["1", "2", "3"]
    assert len(runs()) == 4


def test_a_damaged_note_of_what_was_logged_logs_anew(swept: Swept, tracking: TrackingSettings) -> None:
    result = swept()
    before = log_sweep(result, tracking)
    (result.path / "mlflow.json").write_text("{", encoding="utf-8")
    assert log_sweep(result, tracking) != before


def test_failed_and_stopped_configurations_say_why(swept: Swept, tracking: TrackingSettings) -> None:
    result = swept(factors={"reader.kind": ["extractive", "lm"]}, baseline={"reader.kind": "extractive"})
    child = children_of(log_sweep(result, tracking))["2"]
    assert child.info.status == "FAILED"
    assert "No language model is configured" in child.data.tags["citeqa.reason"]
    assert "spent.usd" in child.data.metrics


def test_long_values_many_metrics_and_unknown_costs_are_borne(
    swept: Swept, tracking: TrackingSettings
) -> None:
    result = swept()
    intervals = {f"recall@{n}": Interval(0.5, 0.4, 0.6, 12) for n in range(1, 500)}
    long = {"retrieval.k": 3, "retrieval.filters": {"lang": ["日本語" * 100] * 40}}
    trial = replace(
        result.trials[0],
        parameters=long,
        summary=Summary(Slice(intervals, 12, 0, {}), {}),
        spending=Spending(None, 11, 7, 1),
    )
    final = FinalCheck("test", 12, "recall@3", 0.5, 0.4, None, None, trial.path, None)
    result = replace(result, trials=[trial, result.trials[1]], winner=1, final=final)
    parent = log_sweep(result, tracking)
    child = children_of(parent)["1"]
    assert child.data.metrics["recall_at_499.high"] == 0.6
    assert "spent.usd" not in child.data.metrics
    assert child.data.metrics["spent.tokens"] == 18
    assert mlflow.get_run(parent).data.metrics["held_out.recall_at_3"] == 0.4


def test_a_store_that_refuses_is_told_in_one_line(swept: Swept, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("no database\n" * 100, encoding="utf-8")
    with pytest.raises(
        StorageError, match=r"The tracking store at 'sqlite:.*notes\.db' cannot be used"
    ) as raised:
        log_sweep(swept(), TrackingSettings(uri=f"sqlite:///{tmp_path / 'notes.db'}"))
    assert "\n" not in str(raised.value)

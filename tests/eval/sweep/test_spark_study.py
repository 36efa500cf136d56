"""Trials on a real local Spark: a list is tried once each, whatever runs at once, and a study goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from eval.sweep.spark_study import ListedSampler, run_trials_on_spark

spark_test = [pytest.mark.slow, pytest.mark.usefixtures("spark")]

Run = Callable[..., list[FrozenTrial]]
GRID = [{"k": k, "reader": reader} for k in (1, 2, 3, 5) for reader in ("lm", "抽出")]


def on_spark(function: Callable[..., None]) -> Callable[..., None]:
    for mark in spark_test:
        function = mark(function)
    return function


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run_trials_on_spark` in a store and an experiment of the test's own."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(store)
    experiment_id = mlflow.create_experiment("sweep", (tmp_path / "artifacts").as_uri())

    def call(
        objective: Any, sampler: BaseSampler, n_trials: int, n_jobs: int, **how: Any
    ) -> list[FrozenTrial]:
        arguments = {"study_name": "sweep trials", "directions": ["maximize"], **how}
        return run_trials_on_spark(
            objective,
            experiment_id=experiment_id,
            tracking_uri=store,
            sampler=sampler,
            n_trials=n_trials,
            n_jobs=n_jobs,
            **arguments,
        )

    return call


def child_runs() -> list[Any]:
    """The runs below the study's, as MLflow has them."""
    return mlflow.MlflowClient().search_runs(["1"], "tags.mlflow.parentRunId != ''")


@on_spark
def test_each_listed_configuration_is_tried_once_and_the_results_are_the_local_ones(run: Run) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        k = trial.suggest_categorical("k", [1, 2, 3, 5])
        reader = trial.suggest_categorical("reader", ["lm", "抽出"])
        return float(k) + (reader == "lm"), float(k)

    directions = ["maximize", "minimize"]
    trials = run(objective, ListedSampler(GRID), len(GRID), 2, directions=directions)
    local = optuna.create_study(sampler=ListedSampler(GRID), directions=directions)
    local.optimize(objective, n_trials=len(GRID))
    assert [(trial.number, trial.params, trial.values) for trial in trials] == [
        (trial.number, trial.params, trial.values) for trial in local.trials
    ]
    assert [trial.params for trial in trials] == GRID
    runs = child_runs()
    assert len(runs) == len(GRID)
    assert {trial._trial_id for trial in trials} == {each.info.run_id for each in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}


@on_spark
def test_a_study_goes_on_and_tries_again_what_failed_or_was_left_under_way(run: Run, tmp_path: Path) -> None:
    mended = tmp_path / "mended"

    def objective(trial: optuna.Trial) -> float:
        k = trial.suggest_categorical("k", [1, 2, 3])
        if k == 2 and not mended.exists():
            raise ValueError("no index for two")
        return float(k)

    def listed(*values: int) -> ListedSampler:
        return ListedSampler([{"k": value} for value in values])

    first, second = run(objective, listed(1, 2), 2, 1)
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.FAIL)
    client = mlflow.MlflowClient()
    [failed] = [each for each in child_runs() if each.info.status == "FAILED"]
    trace = Path(client.download_artifacts(failed.info.run_id, "error_message.txt")).read_text()
    assert "no index for two" in trace
    [finished] = [each for each in child_runs() if each.info.status == "FINISHED"]

    # As a process leaves it that is killed.
    client.update_run(failed.info.run_id, status="RUNNING")
    mended.touch()
    trials = run(objective, listed(1, 2, 3), 3, 0)
    assert [(trial.params["k"], trial.value) for trial in trials] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert trials[0]._trial_id == finished.info.run_id
    assert client.get_run(failed.info.run_id).info.status == "FAILED"
    assert [trial._trial_id for trial in run(objective, listed(3, 1), 2, 2)] == [
        trials[2]._trial_id,
        trials[0]._trial_id,
    ]
    assert len(child_runs()) == 4


@on_spark
def test_one_task_suggests_what_one_process_suggests(run: Run) -> None:
    def objective(trial: optuna.Trial) -> float:
        # Ties, which the order in which trials are read decides.
        x = trial.suggest_int("x", 1, 20)
        return round(-abs(x - 7) / 5) + (trial.suggest_categorical("y", ["a", "b", "c"]) != "a")

    local = optuna.create_study(sampler=TPESampler(seed=3, n_startup_trials=4), direction="maximize")
    local.optimize(objective, n_trials=14)
    trials = run(objective, TPESampler(seed=3, n_startup_trials=4), 14, 1)
    assert [(trial.params, trial.value) for trial in trials] == [
        (trial.params, trial.value) for trial in local.trials
    ]
    more = run(objective, TPESampler(seed=3, n_startup_trials=4), 16, 2)
    assert [trial._trial_id for trial in more[:14]] == [trial._trial_id for trial in trials]
    assert len(more) == 16


def test_a_listed_sampler_gives_its_list_in_order_with_values_of_every_kind() -> None:
    values: list[Any] = [None, True, 2, 0.5, "日本語"]

    def objective(trial: optuna.Trial) -> float:
        return float(values.index(trial.suggest_categorical("v", values)))

    study = optuna.create_study(sampler=ListedSampler([{"v": value} for value in values]))
    study.optimize(objective, n_trials=len(values))
    assert [trial.value for trial in study.trials] == [0, 1, 2, 3, 4]

"""A sweep's trials on Spark: MLflow's `MlflowSparkStudy` runs them, and what it leaves open is settled here.

What was found of it (mlflow 3.17.2), and what is done about it:

- A configuration that is queued (`enqueue_trial`) is taken by two tasks, or by none; `GridSampler` tries some points
  twice when tasks run at once, and seeded samplers are seeded anew. `ListedSampler` hands a list out by the tasks'
  own numbers: each configuration once, whatever runs at once.
- Trials are read newest first, which decides ties in TPE otherwise than locally, and with four queries each, whenever
  one is asked for. They are read in order and with one query here.
- It adds to a study of the same name as many trials as it is told, and takes those that a killed process left behind
  for running ones. Here a study is completed: what is finished stays, what is left behind is closed as failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from program.content_store import content_key
from retrieval.errors import RunStoppedError

Evaluate: TypeAlias = Callable[[optuna.trial.Trial], "float | Sequence[float]"]

_CONFIGURATION = "configuration"
"""The attribute of a trial that says, by hash, which of the listed configurations it is."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class ListedSampler(BaseSampler):
    """Suggests the configurations of a list, in its order, each once; on Spark each task takes a part of the list.

    The values are those that the objective asks for by name: None, bool, int, float or str.
    """

    def __init__(self, configurations: Sequence[Mapping[str, Any]], tasks: int = 1) -> None:
        """`tasks` is among how many Spark tasks the list is dealt out."""
        self.configurations = [dict(configuration) for configuration in configurations]
        self._tasks = tasks
        self._asked = 0
        self._current: Mapping[str, Any] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the trial's configuration."""
        place = _task() * len(self.configurations) // self._tasks + self._asked
        self._asked += 1
        self._current = self.configurations[place]
        study._storage.set_trial_user_attr(trial._trial_id, _CONFIGURATION, content_key(self._current))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The configuration's value of that name."""
        return self._current[param_name]


def run_trials_on_spark(
    objective: Evaluate,
    *,
    study_name: str,
    experiment_id: str,
    tracking_uri: str,
    sampler: BaseSampler,
    n_trials: int,
    n_jobs: int,
    directions: Sequence[str],
) -> list[FrozenTrial]:
    """Complete a study of so many trials with `n_jobs` Spark tasks at once (0: one for each trial); the trials.

    A study is a run of the experiment with this name, which no other run there may have, and each trial a run
    below it, whose id is `trial._trial_id`. Finished trials of the study stay, and are not run again. A trial whose
    objective raises is a failed one, with its trace as an artifact, and stops no other; it is tried again by the
    next call.

    With a `ListedSampler`, `n_trials` is the length of its list, and the result is in the order of the list,
    numbered from 0. Other samplers suggest otherwise than in one process when `n_jobs` is not 1: each task draws
    from a seed of its own, and knows of what has ended when it asks. With 1, and nothing finished before, the
    suggestions are those of `Study.optimize`.

    The objective must not log metrics of its own to the trial's run while a study of several objectives runs, which
    MLflow's storage takes for values; do it afterwards.

    Raises:
        ConfigurationError: if Spark or Java is missing.
        RunStoppedError: if a task fails otherwise than by its objective; what was finished is kept.
    """
    import mlflow
    from mlflow.exceptions import ExecutionException
    from mlflow.optuna.storage import MlflowStorage
    from mlflow.pyspark.optuna.study import MlflowSparkStudy

    from program.spark.session import first_reason, open_spark

    open_spark()
    mlflow.set_tracking_uri(tracking_uri)
    storage = MlflowStorage(experiment_id=experiment_id)
    known = storage.get_study_id_by_name_if_exists(study_name)
    before = _close_left_behind(storage, known) if known else []
    waiting, count = _what_is_left(sampler, before, n_trials)
    jobs = min(n_jobs, count) if n_jobs > 0 else count
    if isinstance(waiting, ListedSampler):
        # As Spark itself deals a range of rows out to its partitions.
        waiting = ListedSampler(waiting.configurations, tasks=jobs)
    if count:
        study = MlflowSparkStudy(
            study_name,
            storage,
            sampler=_InOrder(waiting),
            pruner=optuna.pruners.NopPruner(),
            mlflow_tracking_uri=tracking_uri,
            directions=list(directions),
        )
        try:
            study.optimize(objective, n_trials=count, n_jobs=jobs, catch=(Exception,))
        except ExecutionException as error:
            raise RunStoppedError(
                f"Stopped: a Spark task failed: {first_reason(error)}. What was finished is kept; mend the cause "
                "and the same command goes on."
            ) from error
    return _in_order(sampler, read_trials(storage, str(storage.get_study_id_from_name(study_name))))


def read_trials(
    storage: Any, study_id: str, deepcopy: bool = True, states: Sequence[TrialState] | None = None
) -> list[FrozenTrial]:
    """A study's trials by number, with one query for a thousand; in place of `MlflowStorage.get_all_trials`."""
    storage.flush_all_batches()
    trials, page = [], None
    while True:
        runs = storage._mlflow_client.search_runs(
            [storage._experiment_id], f"tags.mlflow.parentRunId = '{study_id}'", page_token=page
        )
        trials += [_read_trial(storage, run) for run in runs]
        page = runs.token
        if not page:
            break
    trials.sort(key=lambda trial: trial.number)
    return [trial for trial in trials if states is None or trial.state in states]


class _InOrder(BaseSampler):
    """Another sampler, that is shown the trials as they are locally: in their order, and without long queries."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        storage: Any = study._storage
        storage.get_all_trials = partial(read_trials, storage)
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _task() -> int:
    """The number of this Spark task, from 0; 0 where there is no Spark."""
    if "pyspark" not in sys.modules:
        return 0
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.partitionId() if task else 0


def _close_left_behind(storage: Any, study_id: str) -> list[FrozenTrial]:
    """The study's trials, of which none is under way: those that were left so by a killed process are failed."""
    trials = read_trials(storage, study_id)
    for trial in trials:
        if not trial.state.is_finished():
            storage._mlflow_client.set_terminated(trial._trial_id, status="FAILED")
    return trials


def _what_is_left(
    sampler: BaseSampler, before: Sequence[FrozenTrial], n_trials: int
) -> tuple[BaseSampler, int]:
    finished = [trial for trial in before if trial.state in _FINISHED]
    if isinstance(sampler, ListedSampler):
        done = {trial.user_attrs.get(_CONFIGURATION) for trial in finished}
        left = [each for each in sampler.configurations if content_key(each) not in done]
        return ListedSampler(left), len(left)
    if before:
        # From its seed it would draw what it drew before.
        sampler.reseed_rng()
    return sampler, max(0, n_trials - len(finished))


def _in_order(sampler: BaseSampler, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Of a list, each configuration's trial in the list's order: a finished one, else the last; else all trials."""
    if not isinstance(sampler, ListedSampler):
        return list(trials)
    best: dict[str, FrozenTrial] = {}
    for trial in trials:
        key = trial.user_attrs.get(_CONFIGURATION, "")
        if key not in best or best[key].state not in _FINISHED:
            best[key] = trial
    listed = [best[key] for each in sampler.configurations if (key := content_key(each)) in best]
    for number, trial in enumerate(listed):
        trial.number = number
    return listed


def _read_trial(storage: Any, run: Any) -> FrozenTrial:
    from mlflow.optuna.storage import mlflow_optuna_status_map

    tags, metrics = run.data.tags, run.data.metrics
    stated = {name: json_to_distribution(text) for name, text in json.loads(tags["param_directions"]).items()}
    internal = _tagged(tags, "param_internal_val_")
    values = [metrics[f"value_{place}"] for place in range(_count_values(metrics))]
    return FrozenTrial(
        trial_id=run.info.run_id,
        number=int(tags.get("numbers", 0)),
        state=mlflow_optuna_status_map[run.info.status],
        value=None,
        values=values or ([metrics["value"]] if "value" in metrics else None),
        datetime_start=_time(run.info.start_time),
        datetime_complete=_time(run.info.end_time),
        params={name: stated[name].to_external_repr(float(value)) for name, value in internal.items()},
        distributions=stated,
        user_attrs=_tagged(tags, "user_"),
        system_attrs=_tagged(tags, "sys_"),
        intermediate_values=_intermediate(storage, run) if "intermediate_value" in metrics else {},
    )


def _count_values(metrics: Mapping[str, float]) -> int:
    count = 0
    while f"value_{count}" in metrics:
        count += 1
    return count


def _tagged(tags: Mapping[str, str], prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): json.loads(text) for key, text in tags.items() if key.startswith(prefix)
    }


def _intermediate(storage: Any, run: Any) -> dict[int, float]:
    history = storage._mlflow_client.get_metric_history(run.info.run_id, "intermediate_value")
    return {entry.step: entry.value for entry in history}


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000) if milliseconds else None

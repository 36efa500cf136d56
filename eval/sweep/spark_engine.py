"""A sweep's configurations evaluated on Spark, into the cache that the sweep then reads.

Each Spark task runs whole configurations through the same stages as a local sweep, on a file system that all share.
What the driver ranks afterwards it evaluates itself, from what is kept: the result is that of a local sweep.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from eval.sweep.optuna_space import OptunaSpace
from eval.sweep.planning import baseline_of
from eval.sweep.space import Parameters, Space
from eval.sweep.specification import SweepSpecification
from eval.sweep.stages import Stages
from eval.sweep.study import Study, sampler_of
from eval.sweep.trials import TrialPlan, run_trial
from program.tracking import absolute_uri, connect
from retrieval.errors import RunStoppedError


@dataclass(frozen=True, slots=True)
class _Work:
    """What a task needs: the plan without its stages, which it opens itself, and where relative paths start."""

    plan: TrialPlan
    cache: Path
    own_indexes: bool
    directory: str


def evaluate_on_spark(
    specification: SweepSpecification, plan: TrialPlan, tasks: int | None
) -> list[Parameters]:
    """Evaluate the configurations of a sweep on Spark, by MLflow's `MlflowSparkStudy`; the configurations.

    A grid and a random search are listed beforehand, and are those of a local sweep. With `tpe`, the suggestions are
    a local sweep's if there is one task; several tasks know less of one another's results. Racing stops nothing here.

    Raises:
        ConfigurationError: if Spark or Java is missing.
        RunStoppedError: if a task fails. A configuration that fails is evaluated again by the driver, which says why.
    """
    from eval.sweep.spark_study import ListedSampler, run_trials_on_spark
    from program.spark.session import open_spark, parallelism

    tracking = plan.space.base.tracking
    tasks = tasks or parallelism(open_spark())
    listed = None if specification.search.method == "tpe" else _listed(specification, plan)
    space = plan.space if listed is None else _space_of(plan.space, listed)
    translated = OptunaSpace(space)
    trials = run_trials_on_spark(
        partial(_evaluate, work=_work(plan), space=space),
        study_name=f"{plan.directory.name}-spark",
        experiment_id=connect(tracking),
        tracking_uri=absolute_uri(tracking.uri),
        sampler=sampler_of(specification.search)
        if listed is None
        else ListedSampler([translated.encode(parameters) for parameters in listed]),
        n_trials=specification.search.trials if listed is None else len(listed),
        n_jobs=tasks,
        directions=["minimize" if objective.minimize else "maximize" for objective in plan.objectives],
    )
    if listed is not None:
        return listed
    # A failed one may lack parameters; what it tried is not known, and not missed.
    return [
        translated.decode(trial.params) for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE
    ]


def _listed(specification: SweepSpecification, plan: TrialPlan) -> list[Parameters]:
    """All configurations, in the order of a local sweep, which no result changes."""
    study = Study(plan.space, specification.search, plan.objectives, baseline_of(specification, plan.space))
    listed = []
    for suggestion in study:
        listed.append(suggestion.parameters)
        study.tell(suggestion, None)
    return listed


def _space_of(space: Space, listed: Sequence[Parameters]) -> Space:
    """A space of exactly the values that are listed: the baseline may lie outside of the factors'."""
    values: dict[str, list[Any]] = {name: [] for name in space.factors}
    for parameters in listed:
        for name, value in parameters.items():
            if value not in values[name]:
                values[name].append(value)
    return replace(space, factors=values)


def _work(plan: TrialPlan) -> _Work:
    # A connection cannot travel, and progress has nobody to show it to.
    bare = replace(
        plan,
        stages=None,  # type: ignore[arg-type]
        looks=(),
        on_progress=_ignore,
        before_asking=_ignore,
    )
    return _Work(bare, plan.stages.directory, plan.stages.own_indexes, str(Path.cwd()))


def _ignore(*_: Any) -> None:
    """Do nothing."""


def _evaluate(trial: optuna.trial.Trial, *, work: _Work, space: Space) -> tuple[float, ...]:
    if Path(work.directory).is_dir():
        os.chdir(work.directory)
    parameters = OptunaSpace(space).suggest(trial)
    with Stages(work.cache, own_indexes=work.own_indexes) as stages:
        scored = run_trial(replace(work.plan, stages=stages), trial.number + 1, parameters)
    values = [scored.trial.objectives[objective.name] for objective in work.plan.objectives]
    if scored.trial.state != "complete" or None in values:
        raise RunStoppedError(f"{scored.trial.label}: {scored.trial.reason or 'no value for an objective'}")
    return tuple(value for value in values if value is not None)

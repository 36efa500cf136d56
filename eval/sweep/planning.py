"""What all configurations of a sweep have in common: metrics, depth of search, order, looks of a race."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.ground_truth import GroundTruth
from eval.metrics import Metric, default_metrics, parse_metrics
from eval.sweep.questions import order_of_asking
from eval.sweep.space import NO_PART_OF_AN_ANSWER, Parameters, Space, rounded, values_of
from eval.sweep.specification import Range, SweepSpecification, objectives_of
from eval.sweep.stages import Stages
from eval.sweep.trials import TrialPlan
from program.content_store import content_key
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    import optuna


def plan_trials(
    specification: SweepSpecification,
    space: Space,
    stages: Stages,
    ground_truth: GroundTruth,
    directory: Path,
    *,
    retry_errors: bool = False,
) -> TrialPlan:
    """The plan that every trial follows."""
    order = order_of_asking(ground_truth.questions, specification.search.seed)
    return TrialPlan(
        space=space,
        stages=stages,
        ground_truth=ground_truth,
        digest=ground_truth.digest,
        split=specification.select_on or "all",
        order=order,
        metrics=_metrics(specification, space, ground_truth),
        objectives=objectives_of(specification),
        directory=directory,
        depth=_depth(space, baseline_of(specification, space)),
        looks=_looks(specification, len(order)),
        retry_errors=retry_errors,
    )


def baseline_of(specification: SweepSpecification, space: Space) -> Parameters:
    """The configuration that others are compared with: as configured, but for what `baseline` says."""
    stated = {**space.current(), **specification.baseline}
    return {name: _as_factor_has_it(space.factors[name], value) for name, value in stated.items()}


def pruner_of(specification: SweepSpecification, plan: TrialPlan) -> optuna.pruners.BasePruner | None:
    """What stops hopeless configurations; None where nothing does."""
    if specification.racing is None:
        return None
    from eval.sweep.racing import make_pruner

    return make_pruner(specification.racing.alpha, plan.looks)


def sweep_directory(
    specification: SweepSpecification, space: Space, chosen_on: GroundTruth, reported_on: GroundTruth | None
) -> Path:
    """Where a sweep's files are: the same for the same specification and questions, whatever it may spend."""
    content = specification.model_dump(
        mode="json", exclude={"name", "budget", "max_trials", "results", "cache", "config", "set"}
    )
    digests = [chosen_on.digest, reported_on.digest if reported_on else ""]
    key = content_key(content, shared_settings(space), digests)
    return Path(specification.results) / f"{specification.name}-{key[:10]}"


def shared_settings(space: Space) -> dict[str, Any]:
    """The settings that an answer depends on and all configurations share, by dotted key."""
    dumped = space.base.model_dump(mode="json", exclude=set(NO_PART_OF_AN_ANSWER))
    flat = {f"{section}.{key}": value for section, part in dumped.items() for key, value in part.items()}
    return {key: value for key, value in flat.items() if key not in space.factors}


def check_size(specification: SweepSpecification, space: Space) -> None:
    """Refuse a grid that is larger than was meant.

    Raises:
        ConfigurationError: if it has more than `max_trials` configurations; says how many.
    """
    size = space.size
    if specification.search.method == "grid" and size and size > specification.max_trials:
        raise ConfigurationError(
            f"{space.place}: the grid has {size:,} configurations, more than max_trials = "
            f"{specification.max_trials:,}. Name fewer values, search by random or tpe, or confirm with --yes."
        )


def count_configurations(specification: SweepSpecification, space: Space) -> int | None:
    """How many configurations will be tried; None where that is not known before."""
    if specification.search.method != "grid" or space.size is None:
        return specification.search.trials
    baseline = baseline_of(specification, space)
    inside = all(baseline[name] in (values_of(values) or ()) for name, values in space.factors.items())
    return space.size + (not inside)


def shown_values(values: Sequence[Any] | Range) -> list[Any]:
    """The values of a factor for people; of a range without steps, its ends."""
    if isinstance(values, Range) and values_of(values) is None:
        return [f"{values.low} – {values.high}"]
    return list(values_of(values) or ())


def _as_factor_has_it(values: Sequence[Any] | Range, value: Any) -> Any:
    # A setting has 0.0 where the file says 0: one configuration, which must not be tried twice.
    if isinstance(values, Range) and isinstance(value, float):
        value = rounded(value)
    return next((own for own in values_of(values) or () if own == value), value)


def _looks(specification: SweepSpecification, questions: int) -> Sequence[int]:
    if specification.racing is None:
        return ()
    from eval.sweep.racing import looks

    return looks(questions, specification.racing.looks)


def _metrics(specification: SweepSpecification, space: Space, ground_truth: GroundTruth) -> list[Metric]:
    """The same for all configurations, whatever their k, so that each can be compared with each."""
    wanted = parse_metrics(
        metric for objective in objectives_of(specification) for metric in objective.metrics
    )
    cutoffs = {*space.base.evaluation.ks, *(metric.cutoff for metric in wanted if metric.cutoff)}
    names_passages = any(
        item.chunk_id is not None for q in ground_truth.questions for group in q.gold for item in group
    )
    metrics = [m for m in default_metrics(cutoffs) if names_passages or not m.passage_level]
    return list(dict.fromkeys([*metrics, *wanted]))


def _depth(space: Space, baseline: Parameters) -> int:
    """The largest k of any configuration."""
    values = space.factors.get("retrieval.k", [space.base.retrieval.k])
    steps = [values.high] if isinstance(values, Range) else values
    return max(int(k) for k in (*steps, baseline.get("retrieval.k", 1)))

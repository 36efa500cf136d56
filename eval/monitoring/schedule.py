"""Register scorers with an experiment, let them score a sample of its traces, and stop them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.genai.scorers import RelevanceToQuery, RetrievalGroundedness, Safety, ScorerSamplingConfig
from mlflow.genai.scorers.registry import list_scorers

from eval.monitoring.trace_scorers import PREFIX, TRACE_SCORERS
from program.settings import TrackingSettings
from program.tracking import connect, tracking_errors
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean
from retrieval.workspace_errors import workspace_errors

JUDGES: dict[str, Callable[..., Any]] = {
    "groundedness": RetrievalGroundedness,
    "relevance": RelevanceToQuery,
    "safety": Safety,
}
"""Judges of MLflow's own, which ask a language model: each trace that they score costs a call."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A scorer that is registered with an experiment, and how much of the traces it scores; 0 where it is stopped."""

    name: str
    sample_rate: float
    filter: str | None = None

    def render(self) -> str:
        """One line."""
        share = f"{self.sample_rate:.0%} of the traces" if self.sample_rate else "stopped"
        return f"{self.name}: {share}{f' where {self.filter}' if self.filter and self.sample_rate else ''}"


def start_monitoring(
    tracking: TrackingSettings,
    names: Sequence[str] = (),
    *,
    judges: Iterable[str] = (),
    sample_rate: float,
    filter: str | None = None,
) -> list[Watch]:
    """Let scorers score a share of the traces that the experiment gets from now on; all of ours where none is named.

    What is registered already gets the new share and filter, and its new source: the same call may be made again.

    Raises:
        ConfigurationError: if a name is no scorer's, or the store is none that scores by itself.
        StorageError, WorkspaceError: if it refuses.
    """
    chosen = [_ours(name) for name in names or TRACE_SCORERS] + [_judge(name) for name in judges]
    with _experiment(tracking) as experiment:
        watches = []
        for scorer in chosen:
            registered = scorer.register(experiment_id=experiment)
            config = ScorerSamplingConfig(sample_rate=sample_rate, filter_string=filter or "")
            started = registered.start(experiment_id=experiment, sampling_config=config)
            watches.append(_watch(started))
        return watches


def list_monitoring(tracking: TrackingSettings) -> list[Watch]:
    """What scores the experiment's traces, others' scorers among them. Raises as `start_monitoring`."""
    with _experiment(tracking) as experiment:
        return [_watch(scorer) for scorer in list_scorers(experiment_id=experiment)]


def stop_monitoring(tracking: TrackingSettings, names: Sequence[str] = ()) -> list[Watch]:
    """Stop scorers of ours, all where none is named; they stay registered. Raises as `start_monitoring`."""
    wanted = {_registered_name(name) for name in names}
    ours = {*(PREFIX + name for name in TRACE_SCORERS), *(PREFIX + name for name in JUDGES)}
    with _experiment(tracking) as experiment:
        there = [one for one in list_scorers(experiment_id=experiment) if one.name in (wanted or ours)]
        return [_watch(scorer.stop(experiment_id=experiment)) for scorer in there]


def _ours(name: str) -> Any:
    if name not in TRACE_SCORERS:
        raise ConfigurationError(
            f"No scorer is called {name!r}. {did_you_mean(name, TRACE_SCORERS)}There are {', '.join(TRACE_SCORERS)}."
        )
    return TRACE_SCORERS[name]


def _judge(name: str) -> Any:
    if name not in JUDGES:
        raise ConfigurationError(
            f"No judge is called {name!r}. {did_you_mean(name, JUDGES)}There are {', '.join(JUDGES)}."
        )
    return JUDGES[name](name=PREFIX + name)


def _registered_name(name: str) -> str:
    if name not in TRACE_SCORERS and name not in JUDGES:
        _ours(name)
    return PREFIX + name


def _watch(scorer: Any) -> Watch:
    return Watch(scorer.name, float(scorer.sample_rate or 0), scorer.filter_string or None)


@contextmanager
def _experiment(tracking: TrackingSettings) -> Iterator[str]:
    if not tracking.uri.startswith("databricks"):
        raise ConfigurationError(
            f"The tracking store at '{tracking.uri}' does not score traces by itself; a Databricks workspace does "
            "(--set tracking.uri=databricks). Elsewhere run, as often as you like: citeqa eval --traces "
            f"{tracking.experiment} --since 1d"
        )
    experiment = connect(tracking)
    with tracking_errors(tracking.uri), workspace_errors("The scorers of the experiment"):
        try:
            yield experiment
        except MlflowException as error:
            if "not active" in str(error).lower():
                raise ConfigurationError(f"The experiment '{tracking.experiment}' was deleted.") from error
            raise

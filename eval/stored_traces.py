"""Traces that are in a tracking store already: found by experiment, read newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import mlflow
from mlflow.entities import Experiment, Trace
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

from program.settings import TraceSettings
from program.tracking import tracking_errors
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean, there_is

PAGE_SIZE = 100
"""Traces in memory at once, with all their spans."""

_MS_IN = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_NAMED_AT_MOST = 20


def find_experiment(name_or_id: str, tracking_uri: str) -> Experiment:
    """The experiment of a name, or else of an id.

    Raises:
        ConfigurationError: if there is none; names the nearest.
        StorageError: if the store cannot be reached.
    """
    with tracking_errors(tracking_uri):
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        experiment = client.get_experiment_by_name(name_or_id)
        if experiment is None and name_or_id.isdecimal():
            try:
                experiment = client.get_experiment(name_or_id)
            except MlflowException:
                experiment = None
        if experiment is not None:
            return experiment
        names = [known.name for known in client.search_experiments(max_results=1000)]
    raise ConfigurationError(
        f"--traces {name_or_id}: the tracking store '{tracking_uri}' has no such experiment. "
        f"{did_you_mean(name_or_id, names)}There are: {there_is(names[:_NAMED_AT_MOST])}."
    )


def read_traces(
    experiment: Experiment, settings: TraceSettings, tracking_uri: str, *, limit: int | None, now_ms: int
) -> Iterator[Trace]:
    """The experiment's traces that the filter lets pass, newest first, at most `limit`, none before `since`.

    Raises:
        ConfigurationError: if MLflow does not take the filter.
        StorageError: if the store cannot be reached.
    """
    since_ms = _since(settings.since, now_ms)
    found = _pages(experiment, settings, tracking_uri)
    if limit is not None:
        found = islice(found, limit)
    for trace in found:
        if trace.info.request_time < since_ms:
            return
        yield trace


def _since(since: str | None, now_ms: int) -> int:
    return now_ms - int(since[:-1]) * _MS_IN[since[-1]] if since else 0


def _pages(experiment: Experiment, settings: TraceSettings, tracking_uri: str) -> Iterator[Trace]:
    client = mlflow.MlflowClient(tracking_uri=tracking_uri)
    token = None
    while True:
        with tracking_errors(tracking_uri):
            try:
                page = client.search_traces(
                    locations=[experiment.experiment_id],
                    filter_string=settings.filter,
                    max_results=PAGE_SIZE,
                    order_by=["timestamp_ms DESC"],
                    page_token=token,
                )
            except MlflowException as error:
                if settings.filter and error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE):
                    raise ConfigurationError(
                        f"--trace-filter {settings.filter}: {str(error).splitlines()[0].rstrip('.')}. "
                        "It is written as for mlflow.search_traces, e.g. \"tags.env = 'production'\"."
                    ) from error
                raise
        # The pages are in order; within one, spans are loaded by location, which may change it.
        yield from sorted(page, key=lambda trace: trace.info.request_time, reverse=True)
        token = page.token
        if not token:
            return

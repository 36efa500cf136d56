"""A run as MLflow shows it: parameters, metrics with their intervals, the table of questions, the traces."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param, Trace
from mlflow.exceptions import MlflowException

from eval.metric_names import parse_metric
from eval.records import RunDirectory
from eval.run import RunResult, score_row
from eval.trace_store import write_traces
from program.settings import TrackingSettings
from program.tracking import connect
from retrieval.errors import StorageError

RUN_ID = "mlflow_run_id"
_LONGEST_PARAMETER = 6000


class MlflowRun:
    """One evaluation's MLflow run, begun or continued. Few calls, so that a local store costs little."""

    def __init__(self, settings: TrackingSettings, directory: RunDirectory, name: str) -> None:
        """Begin the run, or continue the one that the run directory remembers.

        Raises:
            StorageError: if the tracking store cannot be reached.
        """
        with _explained(settings.uri):
            self.experiment_id = connect(settings)
            self._client = mlflow.MlflowClient()
            manifest = directory.read_manifest()
            self.run_id = self._known(manifest.get(RUN_ID)) or self._begin(name)
            directory.write_manifest({**manifest, RUN_ID: self.run_id})
        self._settings = settings

    def keep_traces(self, traces: Sequence[Trace]) -> None:
        """Write traces to the run's experiment; none is lost silently.

        Raises:
            StorageError: if the store refuses some; they stay with the run and are tried again with it.
        """
        report = write_traces(traces, experiment_id=self.experiment_id, run_id=self.run_id)
        if report.failed:
            reason = next(iter(report.failed.values()))
            raise StorageError(f"{len(report.failed)} of {len(traces)} traces could not be stored: {reason}")

    def finish(self, result: RunResult, parameters: Mapping[str, Any]) -> None:
        """Log the configuration, the scores and the table, and end the run."""
        with _explained(self._settings.uri):
            now = int(1000 * time.time())
            self._client.log_batch(
                self.run_id,
                metrics=[MlflowMetric(name, value, now, 0) for name, value in _metrics(result)],
                params=[Param(k, str(v)[:_LONGEST_PARAMETER]) for k, v in flatten(parameters)],
            )
            self._log_table(result)
            self._client.set_terminated(self.run_id, "FINISHED")

    def interrupt(self) -> None:
        """Mark the run as stopped before its end; the same command continues it."""
        with _explained(self._settings.uri):
            self._client.set_terminated(self.run_id, "KILLED")

    def _known(self, run_id: str | None) -> str | None:
        """The run, if the store still has it: run directories outlive stores."""
        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return run_id

    def _begin(self, name: str) -> str:
        run_id: str = self._client.create_run(self.experiment_id, run_name=name).info.run_id
        return run_id

    def _log_table(self, result: RunResult) -> None:
        rows = [score_row(question, result) for question in result.questions]
        flat = [{**row, **row["tags"], **row["metrics"]} for row in rows]
        table = pd.DataFrame(flat).drop(columns=["tags", "metrics"]).map(_cell)
        self._client.log_table(self.run_id, table, "questions.json")
        for file in (result.path / "scores.jsonl", result.path / "summary.json"):
            self._client.log_artifact(self.run_id, str(file))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dictionaries as dotted keys with their values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _metrics(result: RunResult) -> Iterator[tuple[str, float]]:
    overall = result.summary.overall
    yield "questions_scored", float(overall.scored)
    yield "questions_unscored", float(overall.unscored)
    for name, interval in overall.intervals.items():
        mlflow_name = parse_metric(name).mlflow_name
        yield mlflow_name, interval.mean
        yield f"{mlflow_name}.low", interval.low
        yield f"{mlflow_name}.high", interval.high
    for tag, slices in result.summary.slices.items():
        for value, part in slices.items():
            for name, interval in part.intervals.items():
                yield f"{parse_metric(name).mlflow_name}/{tag}/{_safe(value)}", interval.mean


def _safe(value: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in value)


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, (list, tuple, dict)) else value


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StorageError(f"The tracking store at '{uri}' cannot be used: {error}") from error

"""A run as MLflow shows it: parameters, metrics with their intervals, the table of questions, the traces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, Feedback, InputTag, Param, Trace
from mlflow.entities import Metric as MlflowMetric
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import AssessmentMetadataKey
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_ARTIFACTS
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from eval.ground_truth import GroundTruth
from eval.judges.judgements import judging_cost
from eval.metric_names import parse_metric
from eval.records import RunDirectory
from eval.run import RunResult, score_row
from program.settings import TrackingSettings
from program.trace_store import write_traces
from program.tracking import connect, tracking_errors
from retrieval.errors import StorageError

RUN_ID = "mlflow_run_id"
TABLE = "questions.json"
_LONGEST_PARAMETER = 6000
MAX_TRACE_LINKS_PER_REQUEST = 100  # as MLflow's stores have it, each in a module of its own


class MlflowRun:
    """One evaluation's MLflow run, begun or continued. Few calls, so that a local store costs little."""

    def __init__(
        self, settings: TrackingSettings, directory: RunDirectory, name: str, ground_truth: GroundTruth
    ) -> None:
        """Begin the run, or continue the one that the run directory remembers.

        Raises:
            StorageError: if the tracking store cannot be reached.
        """
        self.experiment_id = connect(settings)
        self._uri = settings.uri
        manifest = directory.read_manifest()
        with tracking_errors(self._uri):
            self._client = mlflow.MlflowClient()
            self.run_id = self._known(manifest.get(RUN_ID)) or self._begin(name, ground_truth)
        directory.write_manifest({**manifest, RUN_ID: self.run_id})

    def keep_traces(self, traces: Sequence[Trace]) -> None:
        """Write traces to the run's experiment; none is lost silently.

        Raises:
            StorageError: if the store refuses some; they stay with the run and are tried again with it.
        """
        with tracking_errors(self._uri):
            report = write_traces(traces, experiment_id=self.experiment_id, run_id=self.run_id)
        if report.failed:
            reason = next(iter(report.failed.values()))
            raise StorageError(f"{len(report.failed)} of {len(traces)} traces could not be stored: {reason}")

    def link_traces(self, trace_ids: Iterable[str | None]) -> None:
        """Have MLflow show traces that the store had before, such as those of a server, with the run.

        A store that cannot do so, and a trace that it does not have, are passed over: the run directory names them.
        """
        ids = [trace_id for trace_id in trace_ids if trace_id]
        for start in range(0, len(ids), MAX_TRACE_LINKS_PER_REQUEST):
            with suppress(MlflowException, SQLAlchemyError, NotImplementedError):
                self._client.link_traces_to_run(ids[start : start + MAX_TRACE_LINKS_PER_REQUEST], self.run_id)

    def fetch_trace(self, trace_id: str) -> Trace | None:
        """The trace as the store has it; None where it is not there."""
        try:
            trace: Trace = self._client.get_trace(trace_id, display=False)
        except (MlflowException, SQLAlchemyError):
            return None
        return trace

    def keep_feedback(self, trace_id: str, feedbacks: Sequence[Feedback]) -> None:
        """Put what a judge said on a trace of the run.

        A trace that the store does not have is passed over: the verdict stands in the run directory.
        """
        for feedback in feedbacks:
            feedback.trace_id = trace_id
            feedback.metadata = {
                **(feedback.metadata or {}),
                AssessmentMetadataKey.SOURCE_RUN_ID: self.run_id,
            }
            with suppress(MlflowException, SQLAlchemyError):
                mlflow.log_assessment(trace_id, feedback)

    def finish(
        self, result: RunResult, parameters: Mapping[str, Any], more: Iterable[tuple[str, float]] = ()
    ) -> None:
        """Log the parameters, the scores, `more` metrics and the table, and end the run.

        A run that is continued keeps the parameters that it has: an answer depends on none that differs.
        Its scores and its table are replaced.

        Raises:
            StorageError: if the tracking store refuses.
        """
        with tracking_errors(self._uri):
            self._log_parameters(parameters)
            self._log_metrics([*_metrics(result), *more])
            self._log_table([score_row(question, result) for question in result.questions])
            for name in ("scores.jsonl", "summary.json"):
                self._client.log_artifact(self.run_id, str(result.path / name))
            self._client.set_terminated(self.run_id, "FINISHED")

    def interrupt(self) -> None:
        """Mark the run as stopped before its end; the same command continues it."""
        # Something else is being raised, and is what a person must see.
        with suppress(MlflowException, SQLAlchemyError, OSError):
            self._client.set_terminated(self.run_id, "KILLED")

    def _known(self, run_id: str | None) -> str | None:
        """The run, if the experiment still has it: run directories outlive stores."""
        if run_id is None:
            return None
        try:
            if self._client.get_run(run_id).info.experiment_id != self.experiment_id:
                return None
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return run_id

    def _begin(self, name: str, ground_truth: GroundTruth) -> str:
        run_id: str = self._client.create_run(self.experiment_id, run_name=name).info.run_id
        source = json.dumps({"uri": str(ground_truth.path)})
        dataset = Dataset(ground_truth.name, ground_truth.digest, source_type="local", source=source)
        context = InputTag(MLFLOW_DATASET_CONTEXT, "evaluation")
        self._client.log_inputs(run_id, [DatasetInput(dataset, [context])])
        return run_id

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        there = self._client.get_run(self.run_id).data.params
        named = {_safe(key): str(value)[:_LONGEST_PARAMETER] for key, value in flatten(parameters)}
        new = [Param(key, value) for key, value in named.items() if key not in there]
        for start in range(0, len(new), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + MAX_PARAMS_TAGS_PER_BATCH])

    def _log_metrics(self, named: Iterable[tuple[str, float]]) -> None:
        now = int(1000 * time.time())
        metrics = [MlflowMetric(name, value, now, 0) for name, value in named]
        for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + MAX_METRICS_PER_BATCH])

    def _log_table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows as MLflow's own `log_table` writes them, which would append to a table that is there."""
        flat = [{**row["tags"], **row, **row["metrics"]} for row in rows]
        columns = [name for name in dict.fromkeys(chain(*flat)) if name not in ("tags", "metrics")]
        data = [[_cell(row.get(name)) for name in columns] for row in flat]
        self._client.log_dict(self.run_id, {"columns": columns, "data": data}, TABLE)
        tag = json.dumps([{"path": TABLE, "type": "table"}])
        self._client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, tag)


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
    if result.judgements:
        yield from judging_cost(result.judgements).metrics()
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

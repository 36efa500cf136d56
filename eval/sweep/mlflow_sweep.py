"""A sweep as MLflow shows it: a parent run with the verdict and the report, a child run for each configuration."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.metric_names import parse_metric
from eval.records import write_json
from eval.sweep.results import SweepResult, Trial
from eval.sweep.space import label
from eval.sweep.table import describe
from program.content_store import content_key
from program.settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILE = "mlflow.json"
_PARENT = "mlflow.parentRunId"
_LONGEST_PARAMETER = 6000
_LOCAL_STORE = "sqlite:///"


def log_sweep(result: SweepResult, tracking: TrackingSettings) -> str:
    """Log what is not logged yet, and return the parent run's id.

    A trial that is in MLflow as it is now is left alone, so that a sweep that is run again costs nothing here;
    nothing is even imported then.

    Raises:
        StorageError: if the tracking store refuses.
    """
    known = _read(result.path / _FILE)
    state = _state(result)
    if known.get("uri") == tracking.uri and known.get("state") == state and _is_there(known, tracking.uri):
        return str(known["parent"])

    import mlflow

    from program.tracking import connect, tracking_errors

    experiment = connect(tracking)
    with tracking_errors(tracking.uri):
        client = mlflow.MlflowClient()
        logging = _Logging(client, experiment, result, known if known.get("uri") == tracking.uri else {})
        for logged in logging.log():
            # At once, so that whatever ends this leaves no run that nobody knows of.
            write_json(result.path / _FILE, {"uri": tracking.uri, **logged})
    write_json(result.path / _FILE, {"uri": tracking.uri, **logged, "state": state})
    return str(logged["parent"])


class _Logging:
    def __init__(
        self, client: MlflowClient, experiment: str, result: SweepResult, known: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._result = result
        self._children: dict[str, str] = dict(known.get("children", {}))
        self._parent = self._existing(known.get("parent"))
        if self._parent is None:
            self._children = {}

    def log(self) -> Iterator[dict[str, Any]]:
        """Log all, and say after each new run which there are."""
        parent = self._parent or self._create(self._result.name, {"citeqa.sweep": str(self._result.path)})
        children = self._children
        yield {"parent": parent, "children": children}
        for trial in self._result.trials:
            key = _trial_key(trial)
            if key not in children:
                children[key] = self._log_trial(trial, parent)
                yield {"parent": parent, "children": children}
        self._log_verdict(parent)

    def _log_trial(self, trial: Trial, parent: str) -> str:
        tags = {_PARENT: parent, "citeqa.state": trial.state, "citeqa.trial": str(trial.number)}
        if trial.reason:
            tags["citeqa.reason"] = trial.reason[:_LONGEST_PARAMETER]
        run = self._create(f"#{trial.number} {describe(trial)}"[:250], tags)
        self._batch(run, dict(_metrics(trial)), {name: label(v) for name, v in trial.parameters.items()})
        for name in ("scores.jsonl", "summary.json"):
            if (trial.path / name).exists():
                self._client.log_artifact(run, str(trial.path / name))
        self._client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")
        return run

    def _log_verdict(self, run: str) -> None:
        result = self._result
        metrics: dict[str, float] = {"configurations": len(result.trials), "ranked": len(result.ranking)}
        if result.winner is not None:
            best = result.trial(result.winner)
            metrics |= {f"best.{_safe(k)}": v for k, v in best.objectives.items() if v is not None}
            for name, value in best.parameters.items():
                self._client.set_tag(run, f"best.{name}", label(value)[:_LONGEST_PARAMETER])
        if result.final is not None:
            metrics[f"held_out.{_safe(result.final.objective)}"] = result.final.held_out
        parameters = {"dataset": result.dataset, "split": result.split, "questions": result.questions}
        factors = {f"factor.{name}": label(list(values)) for name, values in result.factors.items()}
        there = self._client.get_run(run).data.params
        new = {k: str(v) for k, v in {**parameters, **factors}.items() if k not in there}
        self._batch(run, metrics, new)
        for name in ("report.html", "result.json", "winner.yaml"):
            if (result.path / name).exists():
                self._client.log_artifact(run, str(result.path / name))
        self._client.set_terminated(run, "FINISHED")

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run_id: str = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        return run_id

    def _batch(self, run: str, metrics: Mapping[str, float], parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        now = int(1000 * time.time())
        values = [Metric(name, value, now, 0) for name, value in metrics.items()]
        params = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in parameters.items()]
        self._client.log_batch(run, metrics=values[:MAX_METRICS_PER_BATCH], params=params)
        for start in range(MAX_METRICS_PER_BATCH, len(values), MAX_METRICS_PER_BATCH):
            self._client.log_batch(run, metrics=values[start : start + MAX_METRICS_PER_BATCH])

    def _existing(self, run_id: str | None) -> str | None:
        """The run, if the experiment still has it: a sweep's directory may outlive a store."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            found = self._client.get_run(run_id).info
        except MlflowException:
            return None
        is_ours = found.experiment_id == self._experiment and found.lifecycle_stage == "active"
        return run_id if is_ours else None


def _is_there(known: Mapping[str, Any], uri: str) -> bool:
    """Whether a local store still has the parent run, which takes MLflow seconds to say; of others, that it has."""
    if not uri.startswith(_LOCAL_STORE):
        return True
    file = Path(uri.removeprefix(_LOCAL_STORE))
    query = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as store:
            return store.execute(query, (known["parent"],)).fetchone() is not None
    except (sqlite3.Error, KeyError):
        return False


def _metrics(trial: Trial) -> Iterator[tuple[str, float]]:
    for name, interval in trial.summary.overall.intervals.items():
        yield _safe(name), interval.mean
        yield f"{_safe(name)}.low", interval.low
        yield f"{_safe(name)}.high", interval.high
    yield "questions.scored", trial.summary.overall.scored
    yield "questions.unscored", trial.summary.overall.unscored
    if trial.spending.usd is not None:
        yield "spent.usd", trial.spending.usd
    yield "spent.tokens", trial.spending.input_tokens + trial.spending.output_tokens


def _safe(name: str) -> str:
    return parse_metric(name).mlflow_name if "@" in name else name


def _trial_key(trial: Trial) -> str:
    """Another key when anything that its run shows is another."""
    return content_key(trial.label, trial.state, dict(_metrics(trial)))


def _state(result: SweepResult) -> str:
    held_out = result.final.held_out if result.final else None
    return content_key([_trial_key(trial) for trial in result.trials], result.winner, held_out)


def _read(file: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return body

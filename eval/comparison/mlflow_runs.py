"""A scored run out of MLflow: one of ours from its artifact, any other from the feedback on its traces."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from eval.comparison.score_files import SCORES_FILE, read_score_file
from eval.comparison.trace_scores import read_traces
from eval.scored_runs import ScoredRun
from program.mlflow_progress import without_progress_bar
from program.settings import TrackingSettings
from program.tracking import tracking_errors
from retrieval.errors import DataError, StorageError

_RUN_ID = re.compile(r"(?:runs:/)?(?P<id>[0-9a-f]{32})/?")
_LOCAL_STORE = "sqlite:///"
_DATASET_DIGEST = "dataset.digest"
_NO_SETTING = ("dataset.",)


def read_mlflow_run(source: str, tracking: TrackingSettings) -> ScoredRun:
    """The scored run of an MLflow run: `runs:/<id>`, its id, or a name that only one run has.

    A run with the artifact `scores.jsonl` is one of ours. Of any other the traces are read, as
    `eval.comparison.trace_scores` says.

    Raises:
        DataError: if there is no such run, several have the name, or it holds no scores.
        StorageError: if the tracking store cannot be reached.
    """
    _check_store(source, tracking.uri)
    with tracking_errors(tracking.uri):
        client = MlflowClient(tracking_uri=tracking.uri)
        run = _find(client, source, tracking)
        if any(item.path == SCORES_FILE for item in client.list_artifacts(run.info.run_id)):
            return _read_ours(client, run)
        return read_traces(client, run)


def _check_store(source: str, uri: str) -> None:
    """MLflow would make a database that is not there, and look for the run in it."""
    if uri.startswith(_LOCAL_STORE) and not Path(uri.removeprefix(_LOCAL_STORE)).exists():
        raise DataError(
            f"No file or directory at '{source}', and no MLflow store at '{uri}' to look for such a run in. "
            "Name a run's directory, or the store with --set tracking.uri=…"
        )


def _find(client: MlflowClient, source: str, tracking: TrackingSettings) -> Run:
    if match := _RUN_ID.fullmatch(source):
        try:
            return client.get_run(match["id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise DataError(f"The store at '{tracking.uri}' has no run '{match['id']}'.") from None
    return _find_by_name(client, source, tracking)


def _find_by_name(client: MlflowClient, name: str, tracking: TrackingSettings) -> Run:
    quoted = name.replace("'", "''") if '"' in name else name
    mark = "'" if '"' in name else '"'
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(
        experiments, f"attributes.run_name = {mark}{quoted}{mark}", ViewType.ACTIVE_ONLY, max_results=10
    )
    if not found:
        raise DataError(
            f"Nothing is called '{name}': no file or directory, and no run in the store at '{tracking.uri}'. "
            "Name a run's directory, a scores.jsonl, or an MLflow run by its id or name."
        )
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise DataError(f"{len(found)} runs are called '{name}'. Name one by its id: {ids}")
    return found[0]


def _read_ours(client: MlflowClient, run: Run) -> ScoredRun:
    # Evidence is read from the file as long as the process lasts.
    folder = tempfile.mkdtemp(prefix="citeqa-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with without_progress_bar():
        path = Path(client.download_artifacts(run.info.run_id, SCORES_FILE, folder))
    if not path.exists():
        raise StorageError(f"The artifact {SCORES_FILE} of run {run.info.run_id} cannot be downloaded.")
    scored = read_score_file(
        path, name=run.info.run_name or run.info.run_id, source=f"runs:/{run.info.run_id}"
    )
    return replace(scored, settings=_settings(run), dataset=_digest(run))


def _settings(run: Run) -> Mapping[str, Any]:
    return {key: value for key, value in run.data.params.items() if not key.startswith(_NO_SETTING)}


def _digest(run: Run) -> str:
    if known := run.data.params.get(_DATASET_DIGEST):
        return str(known)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return str(inputs[0].dataset.digest) if inputs else ""

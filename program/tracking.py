"""Where MLflow keeps runs and traces, as configured."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from program.settings import TrackingSettings
from retrieval.errors import StorageError

_LOCAL_STORE = "sqlite:///"


def connect(settings: TrackingSettings) -> str:
    """Point MLflow at the store and the experiment of the settings; the experiment's id.

    A local store, its folder and the experiment are made when they are not there.

    Raises:
        StorageError: if the store cannot be reached or made.
    """
    try:
        if settings.uri.startswith(_LOCAL_STORE):
            Path(settings.uri.removeprefix(_LOCAL_STORE)).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(settings.uri)
        return str(mlflow.set_experiment(settings.experiment).experiment_id)
    except (MlflowException, OSError) as error:
        raise StorageError(f"The tracking store at '{settings.uri}' cannot be used: {error}") from error


def ui_command(settings: TrackingSettings) -> str:
    """How a person opens MLflow's pages over the store."""
    if settings.uri.startswith(("http://", "https://", "databricks")):
        return f"the MLflow pages of {settings.uri}"
    return f"mlflow ui --backend-store-uri {settings.uri}"

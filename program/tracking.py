"""Where MLflow keeps runs and traces, as configured."""

from __future__ import annotations

import io
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from program.settings import TrackingSettings
from retrieval.errors import StorageError
from retrieval.secrets import hide_secrets

_LOCAL_STORE = "sqlite:///"
_LOCK_TIMEOUT_S = 30
_TALKATIVE = ("alembic", "mlflow.store.db", "mlflow.tracking.fluent")


def connect(settings: TrackingSettings) -> str:
    """Point MLflow at the store and the experiment of the settings; the experiment's id.

    A local store, its folder and the experiment are made when they are not there; artifacts go next to
    the database.

    Raises:
        StorageError: if the store cannot be reached or made.
    """
    with tracking_errors(settings.uri), _quietly():
        mlflow.set_tracking_uri(settings.uri)
        if settings.uri.startswith(_LOCAL_STORE):
            _make_local_experiment(settings)
        # What is printed is the command's: addresses of runs would stand in the middle of its JSON.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        with redirect_stderr(io.StringIO()):  # on Databricks, an advertisement
            return str(mlflow.set_experiment(settings.experiment).experiment_id)


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """What the tracking store at `uri` refuses is a StorageError of one line."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        # To refusals Databricks' SDK appends its whole configuration.
        said = (str(error) or repr(error)).partition(" Config: host=")[0]
        reason = hide_secrets(said.strip().splitlines()[0]).rstrip(".")
        raise StorageError(
            f"The tracking store at '{uri}' cannot be used: {reason}. Mend it, or name another with "
            "--set tracking.uri=…"
        ) from error


def absolute_uri(uri: str) -> str:
    """The same store for a process that runs elsewhere on this machine: a database's path from the root."""
    if not uri.startswith(_LOCAL_STORE):
        return uri
    return _LOCAL_STORE + str(Path(uri.removeprefix(_LOCAL_STORE)).resolve())


def ui_command(settings: TrackingSettings) -> str:
    """How a person opens MLflow's pages over the store."""
    if settings.uri.startswith(("http://", "https://", "databricks")):
        return f"the MLflow pages of {settings.uri}"
    return f"mlflow ui --backend-store-uri {settings.uri}"


def _make_local_experiment(settings: TrackingSettings) -> None:
    database = Path(settings.uri.removeprefix(_LOCAL_STORE)).resolve()
    folder = database.parent
    folder.mkdir(parents=True, exist_ok=True)
    _check_writable(database)
    # MLflow itself would put artifacts into the directory that happens to be the current one.
    if mlflow.get_experiment_by_name(settings.experiment) is None:
        mlflow.create_experiment(settings.experiment, (folder / "artifacts").as_uri())


def _check_writable(database: Path) -> None:
    # MLflow tries a database that cannot be opened again and again, for minutes.
    with closing(sqlite3.connect(database, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the news of how a new database is laid out: warnings only."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _TALKATIVE)}
    for logger in levels:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)

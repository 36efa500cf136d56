"""MLflow and databricks-agents say much while they work; what a person must know, we say."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from program.mlflow_progress import without_progress_bar

_TALKATIVE = ("mlflow", "alembic", "agents", "databricks.sdk")


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Within, they print and log nothing but errors: those come as exceptions, too."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with without_progress_bar(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

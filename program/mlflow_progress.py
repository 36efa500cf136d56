"""MLflow's progress bars, where there is nothing to wait for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """For a file of some kilobytes. MLflow offers no other way to say so than the environment."""
    before = os.environ.get(_PROGRESS_BAR)
    os.environ[_PROGRESS_BAR] = "false"
    try:
        yield
    finally:
        del os.environ[_PROGRESS_BAR]
        if before is not None:
            os.environ[_PROGRESS_BAR] = before

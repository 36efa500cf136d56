"""What people say of an answer, kept on its trace; and the way to that trace in MLflow's pages."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import mlflow
from mlflow.entities import AssessmentSource, AssessmentSourceType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from program.serving.failures import Failure, RequestFailedError
from program.serving.traces import TraceRecorder

logger = logging.getLogger(__name__)

T = TypeVar("T")

FEEDBACK_NAME = "user_feedback"
"""As Databricks' chat app names it, so that both can be counted together."""

_PENDING_TIMEOUT_S = 20.0
_TRIES = 5
_FIRST_PAUSE_S = 0.2
_UI_START_S = 60.0
_END_S = 5.0


def _without_half_characters(text: Any) -> Any:
    """Half an emoji (a lone surrogate), which no store takes, becomes the replacement character."""
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text
    )


class Feedback(BaseModel):
    """A person's word on one answer. With `assessment_id`, it takes the place of an earlier one."""

    model_config = ConfigDict(extra="forbid")

    trace_id: str = Field(min_length=1, max_length=128)
    value: bool
    comment: Annotated[str | None, BeforeValidator(_without_half_characters)] = Field(None, max_length=10_000)
    assessment_id: str | None = Field(None, max_length=128)
    user: str | None = Field(None, max_length=256)


def log_feedback(feedback: Feedback, recorder: TraceRecorder | None) -> str:
    """Put the feedback on its trace, waiting for a trace that is on its way to the store; the assessment's id.

    Raises:
        RequestFailedError: 404 if there is no such trace, 503 if it is still on its way, if the store
            fails, or if nothing is traced here.
    """
    if recorder is None:
        raise RequestFailedError(Failure(503, "tracing_off", "This server keeps no traces, so no feedback."))
    if not recorder.wait_for(feedback.trace_id, _PENDING_TIMEOUT_S):
        raise RequestFailedError(
            Failure(503, "trace_pending", "The trace of this answer is not stored yet. Try again.", 5)
        )
    return _tried(lambda: _log(feedback))


def _log(feedback: Feedback) -> str:
    comment = feedback.comment or None
    source = AssessmentSource(AssessmentSourceType.HUMAN, feedback.user or "playground")
    if feedback.assessment_id:
        logged = mlflow.override_feedback(
            trace_id=feedback.trace_id,
            assessment_id=feedback.assessment_id,
            value=feedback.value,
            rationale=comment,
            source=source,
        )
    else:
        logged = mlflow.log_feedback(
            trace_id=feedback.trace_id,
            name=FEEDBACK_NAME,
            value=feedback.value,
            rationale=comment,
            source=source,
        )
    return str(logged.assessment_id)


def _tried(call: Callable[[], T]) -> T:
    """`call`, tried again while the store is busy."""
    pause_s = _FIRST_PAUSE_S
    for is_last in [False] * (_TRIES - 1) + [True]:
        try:
            return call()
        except MlflowException as error:
            reason = str(error).partition("\n")[0]
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise RequestFailedError(Failure(404, "trace_unknown", f"{reason.rstrip('.')}.")) from None
            if is_last:
                raise RequestFailedError(
                    Failure(503, "store_failed", f"The feedback was not kept: {reason}")
                ) from None
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")


class MlflowPages:
    """Where a trace can be looked at: at a tracking server, or in MLflow's own pages, started when first asked for."""

    def __init__(
        self, tracking_uri: str, experiment_id: str, *, address: str | None, may_start: bool
    ) -> None:
        """`address` is where the pages are; `may_start` whether they may be started here, for people here."""
        is_server = tracking_uri.startswith(("http://", "https://"))
        self._tracking_uri = tracking_uri
        self._experiment_id = experiment_id
        self._address = address or (tracking_uri if is_server else None)
        self._may_start = may_start
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_address = ""

    def link(self, trace_id: str) -> str:
        """The address of the trace's page.

        Raises:
            RequestFailedError: 503, with the command that shows it, if there are no pages to be had.
        """
        address = (self._address or self._start()).rstrip("/")
        return (
            f"{address}/#/experiments/{quote(self._experiment_id, safe='')}/traces"
            f"?selectedEvaluationId={quote(trace_id, safe='')}"
        )

    def stop(self) -> None:
        """End the pages that were started here."""
        with self._lock:
            if self._process is not None:
                _end(self._process)

    def _start(self) -> str:
        command = f"mlflow ui --backend-store-uri {self._tracking_uri}"
        if not self._may_start:
            raise RequestFailedError(
                Failure(
                    503,
                    "no_pages",
                    f"No address of MLflow's pages is set (serving.mlflow_ui). Run: {command}",
                )
            )
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return self._started_address
            port = _free_port()
            address = f"http://127.0.0.1:{port}"
            self._process = subprocess.Popen(
                [
                    sys.executable, "-c", "import sys; del sys.path[0]; from mlflow.cli import cli; cli()", "ui",
                    "--backend-store-uri", self._tracking_uri, "--host", "127.0.0.1", "--port", str(port),
                    "--workers", "1",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Its jobs are six processes of 350 MB each, for evaluations that nobody starts from here.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )  # fmt: skip
            if not _answers(address, self._process):
                _end(self._process)
                raise RequestFailedError(
                    Failure(503, "no_pages", f"MLflow's pages did not start. Run: {command}")
                )
            self._started_address = address
            return address


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, which make up its session."""
    for signal_name in ("SIGTERM", "SIGKILL"):
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, signal_name))
            else:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _UI_START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False

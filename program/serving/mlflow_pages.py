"""The way to a trace in MLflow's own pages, which are started here where no server has them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from urllib.parse import quote

from program.serving.failures import Failure, RequestFailedError

_START_S = 60.0
_END_S = 5.0


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
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False

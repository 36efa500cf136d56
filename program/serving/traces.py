"""Every trace of the server reaches the tracking store, or is counted as one that did not."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import mlflow
from mlflow.entities import TraceInfo
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import Span as OTelSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from program.serving.trace_spool import TraceSpool, spool_line
from program.settings import ServingSettings
from program.trace_capture import CapturingProcessor, StandIn, pop_trace

logger = logging.getLogger(__name__)

_RESTART_PAUSE_S = 2.0
_LOG_EVERY_S = 60.0

# Not `-m`, which would put the working directory, with its folder `datasets`, on the path.
_WRITER_CODE = "import sys; del sys.path[0]; from program.serving.trace_writer import main; main()"


@dataclass(slots=True)
class TraceCounts:
    """What became of the traces so far."""

    stored: int = 0
    dropped: int = 0
    refused: int = 0


class TraceRecorder:
    """Takes the place of MLflow's exporter while the server runs.

    MLflow's own writes one trace after the other to the store and drops what its queue cannot hold without a
    word. This one appends each to a file, from which a process of its own writes them many at a time
    (`program.serving.trace_writer`). What has no room is dropped, counted, and said in the log.
    """

    def __init__(
        self, spool: TraceSpool, *, tracking_uri: str, experiment_id: str, sample_rate: float = 1.0
    ) -> None:
        """Begin. Each trace goes to the experiment at `tracking_uri`.

        Raises:
            ConfigurationError: if tracing is disabled.
        """
        self.counts = TraceCounts()
        self._spool = spool
        self._command = [
            sys.executable, "-c", _WRITER_CODE, str(spool.path), tracking_uri, experiment_id,
        ]  # fmt: skip
        self._lock = threading.Lock()
        self._pending: dict[str, int] = {}
        """The traces that are on their way to the store, and how many bytes of the spool each takes."""
        self._under_way: set[str] = set()
        self._last_logged_s = -_LOG_EVERY_S
        self._is_stopping = False
        self._stand_in = StandIn(_RecordingProcessor(self), sampler=TraceIdRatioBased(sample_rate))
        self._writer = self._start_writer()
        self._listener = threading.Thread(target=self._listen, name="citeqa-traces", daemon=True)
        self._listener.start()

    @property
    def pending(self) -> int:
        """How many traces are not finished, or on their way to the store."""
        with self._lock:
            return len(self._pending) + len(self._under_way)

    def is_pending(self, trace_id: str) -> bool:
        """Whether this trace is not finished, or on its way to the store."""
        with self._lock:
            return trace_id in self._pending or trace_id in self._under_way

    def wait_for(self, trace_id: str, timeout_s: float) -> bool:
        """Wait until the trace is not on its way any longer; whether it is so in the time."""
        deadline = time.monotonic() + timeout_s
        while self.is_pending(trace_id) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.is_pending(trace_id)

    def expect(self, trace_id: str) -> None:
        """A trace has begun."""
        with self._lock:
            self._under_way.add(trace_id)

    def keep(self, otel_trace_id: int) -> None:
        """Take a finished trace out of MLflow's memory and keep it."""
        trace = pop_trace(otel_trace_id)
        if trace is None:
            return
        trace_id = trace.info.trace_id
        line = spool_line(trace)
        with self._lock:
            self._under_way.discard(trace_id)
            self._pending[trace_id] = len(line)
        if not self._spool.append(line):
            with self._lock:
                del self._pending[trace_id]
                self.counts.dropped += 1
            self._log(f"{self.counts.dropped} traces were dropped so far: the spool is full")

    def stop(self, timeout_s: float) -> int:
        """Give MLflow its exporter back and wait for the writer; how many traces are left for the next start."""
        self._is_stopping = True
        self._stand_in.give_back()
        self._spool.close()
        self._close_input()
        try:
            self._writer.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._writer.terminate()
            self._writer.wait()
        self._listener.join()
        self._spool.leave(is_empty=not self._pending)
        return self.pending

    def _close_input(self) -> None:
        assert self._writer.stdin is not None
        self._writer.stdin.close()

    def _start_writer(self) -> subprocess.Popen[str]:
        # In a session of its own, so that Ctrl-C at the terminal ends the server, and the server its writer.
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def _listen(self) -> None:
        while True:
            assert self._writer.stdout is not None
            with self._writer.stdout as reports:
                for line in reports:
                    self._take_report(line)
            self._writer.wait()
            if self._is_stopping:
                return
            self._close_input()
            self._log(
                f"the process that writes traces ended with {self._writer.returncode}; it is started again"
            )
            time.sleep(_RESTART_PAUSE_S)
            if self._is_stopping:
                return
            self._writer = self._start_writer()

    def _take_report(self, line: str) -> None:
        report = json.loads(line)
        if "error" in report:
            self._log(f"traces wait to be written: {report['error']}")
            return
        is_own = report["spool"] == self._spool.path.name
        with self._lock:
            self.counts.stored += self._take_settled(report["stored"], is_own)
            self.counts.refused += self._take_settled(report["refused"], is_own) + report["damaged"]
        if report["refused"] or report["damaged"]:
            self._log(f"the tracking store refused {self.counts.refused} traces so far: {report['reason']}")

    def _take_settled(self, trace_ids: Sequence[str], is_own: bool) -> int:
        """Traces that are not on their way any longer; how many were not reported before.

        A writer that takes the place of another begins the spool's files anew and reports them again. What
        others left is reported once, by whoever removed it.
        """
        if not is_own:
            return len(trace_ids)
        sizes = [self._pending.pop(trace_id) for trace_id in trace_ids if trace_id in self._pending]
        self._spool.written(sum(sizes))
        return len(sizes)

    def _log(self, message: str) -> None:
        """Say it, but not for each trace of a flood."""
        now = time.monotonic()
        if now - self._last_logged_s >= _LOG_EVERY_S:
            self._last_logged_s = now
            logger.warning("Traces: %s.", message)


def record_traces(settings: ServingSettings, experiment_id: str, sample_rate: float = 1.0) -> TraceRecorder:
    """Begin to record for the current tracking store, by way of the spool that the settings name.

    Raises:
        StorageError: if the spool cannot be made.
        ConfigurationError: if tracing is disabled.
    """
    spool = TraceSpool(settings.trace_spool, int(settings.trace_spool_mb * 2**20))
    return TraceRecorder(
        spool,
        tracking_uri=mlflow.get_tracking_uri(),
        experiment_id=experiment_id,
        sample_rate=sample_rate,
    )


class _RecordingProcessor(CapturingProcessor):
    """Tells the recorder of each trace as it begins and as it ends."""

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder = recorder
        super().__init__(_SpoolingExporter(recorder))

    def _start_trace(self, root_span: OTelSpan) -> TraceInfo:
        info = super()._start_trace(root_span)
        self._recorder.expect(info.trace_id)
        return info


class _SpoolingExporter(SpanExporter):
    """Hands on each trace when its root span has ended."""

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder = recorder

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            if span.parent is None:
                self._recorder.keep(span.context.trace_id)
        return SpanExportResult.SUCCESS

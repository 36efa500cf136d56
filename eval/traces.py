"""Observe calls through MLflow tracing: every call comes back with exactly its own traces, in memory.

While traces are collected none is exported, so that a run can read its evidence at once and write all of
it in few transactions (`program.trace_store`) instead of one trace at a time.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlflow.entities import Trace, TraceInfo
from mlflow.tracing.provider import get_context_api
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import Span as OTelSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from program.trace_capture import CapturingProcessor, StandIn, pop_trace
from retrieval.errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TracedCall(Generic[T]):
    """What one call returned or raised, with the traces that it began, in the order of their beginning.

    A program with a root span of its own (an agent has one) gives one trace; one that only traces its
    parts gives one for each; one without tracing gives none. A span that the call left open is in its
    trace without an end.
    """

    result: T | None
    error: Exception | None
    traces: tuple[Trace, ...]

    def value(self) -> T:
        """What the call returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # None only where T allows it


class TraceCollector:
    """Calls functions and keeps the traces of each apart. Safe to use from many threads at once."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._strays: list[Trace] = []
        self._lock = threading.Lock()

    def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> TracedCall[T]:
        """Call `function` with roots of its own, and return its outcome together with its traces.

        The function sees the caller's context variables (`dspy.context` among them) but not its active
        span, and what it does to them stays with it. An exception is returned, not raised; its trace has
        the state ERROR. Whatever else ends the call (Ctrl-C) is raised, and its traces are dropped.

        Raises:
            ConfigurationError: if tracing was set up anew since the collection began.
        """
        self._check_installed()
        roots = _Roots()
        result, error = None, None
        try:
            result = contextvars.copy_context().run(_call_detached, roots, function, args, kwargs)
        except Exception as raised:  # noqa: BLE001  the caller records it with the question
            error = raised
        finally:
            traces = roots.pop_traces()
        self._check_installed()
        return TracedCall(result, error, traces)

    def take_strays(self) -> list[Trace]:
        """The finished traces, since the last time, that no call can claim; they are then forgotten here.

        They come from threads that a program starts without handing on its context (see
        `retrieval.tracing.in_current_trace`): evidence that cannot be paired with its question.
        """
        with self._lock:
            strays, self._strays = self._strays, []
        return strays

    def _keep_stray(self, trace: Trace) -> None:
        with self._lock:
            self._strays.append(trace)

    def _check_installed(self) -> None:
        if not self._stand_in.in_place:
            raise ConfigurationError(
                "MLflow tracing was set up anew while traces were being collected (mlflow.set_experiment, "
                "mlflow.tracing.set_destination, disable or reset), so the traces of this question would be "
                "lost. Make such calls before the evaluation, not while a question is answered."
            )


@contextmanager
def collect_traces() -> Iterator[TraceCollector]:
    """Keep every trace that finishes inside in memory, in place of whatever exports traces outside.

    Sampling is not applied: an evaluation needs the trace of each question. Span processors set with
    `mlflow.tracing.configure` are, so what they redact stays redacted. The exporter that was at work is
    put aside running and comes back unchanged, also after an exception. Collections may nest, or overlap
    in several threads; a stray trace goes to the one that began last.

    Raises:
        ConfigurationError: if tracing is disabled.
    """
    collector = _interception.enter()
    try:
        yield collector
    finally:
        _interception.leave(collector)


class _Roots:
    """The traces that one call began, by OpenTelemetry id."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._closed = False
        self._lock = threading.Lock()

    def add(self, otel_trace_id: int) -> bool:
        """Whether the call takes the trace: no longer, once it is over and only a thread of it still runs."""
        with self._lock:
            if not self._closed:
                self._ids.append(otel_trace_id)
            return not self._closed

    def pop_traces(self) -> tuple[Trace, ...]:
        """The traces, finished or not. MLflow holds nothing of them any longer."""
        with self._lock:
            self._closed = True
        return tuple(trace for trace in map(pop_trace, self._ids) if trace is not None)


_current_roots: contextvars.ContextVar[_Roots | None] = contextvars.ContextVar("current_roots", default=None)


def _call_detached(roots: _Roots, function: Callable[..., T], args: Any, kwargs: Any) -> T:
    _current_roots.set(roots)
    # No span is active in an empty context, so that the next one is a root.
    get_context_api().attach(Context())  # type: ignore[no-untyped-call]
    return function(*args, **kwargs)


class _CollectingProcessor(CapturingProcessor):
    """Gives each trace to the call that began it."""

    def __init__(self, keep_stray: Callable[[Trace], None]) -> None:
        self._exporter = _StrayExporter(keep_stray)
        super().__init__(self._exporter)

    def _start_trace(self, root_span: OTelSpan) -> TraceInfo:
        info = super()._start_trace(root_span)
        otel_trace_id = root_span.context.trace_id
        roots = _current_roots.get()
        if roots is None or not roots.add(otel_trace_id):
            self._exporter.expect(otel_trace_id)
        return info


class _StrayExporter(SpanExporter):
    """Passes on the traces that no call takes, and nothing else, when their root span ends."""

    def __init__(self, keep: Callable[[Trace], None]) -> None:
        self._keep = keep
        self._expected: set[int] = set()

    def expect(self, otel_trace_id: int) -> None:
        self._expected.add(otel_trace_id)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            if span.parent is None and span.context.trace_id in self._expected:
                self._expected.discard(span.context.trace_id)
                if trace := pop_trace(span.context.trace_id):
                    self._keep(trace)
        return SpanExportResult.SUCCESS


class _Interception:
    """One stand-in for MLflow's tracer provider while any collection is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._collectors: list[TraceCollector] = []
        self._stand_in: StandIn | None = None

    def enter(self) -> TraceCollector:
        with self._lock:
            self._stand_in = self._stand_in or StandIn(_CollectingProcessor(self._keep_stray))
            collector = TraceCollector(self._stand_in)
            self._collectors.append(collector)
        return collector

    def leave(self, collector: TraceCollector) -> None:
        with self._lock:
            self._collectors.remove(collector)
            if not self._collectors and self._stand_in:
                self._stand_in.give_back()
                self._stand_in = None

    def _keep_stray(self, trace: Trace) -> None:
        with self._lock:
            if self._collectors:
                self._collectors[-1]._keep_stray(trace)


_interception = _Interception()

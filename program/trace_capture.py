"""Finished traces caught in memory, in place of being exported one by one."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Trace, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
from mlflow.tracing.provider import is_tracing_enabled, provider
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils import generate_trace_id_v3
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as OTelSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from retrieval.errors import ConfigurationError

NO_EXPERIMENT = ""
"""The experiment of a captured trace, until it is written to one."""


class CapturingProcessor(BaseMlflowSpanProcessor):
    """MLflow's own bookkeeping of spans, whose ended spans go to an exporter of ours."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter, export_metrics=False)

    def _start_trace(self, root_span: OTelSpan) -> TraceInfo:
        # MLflow's own version asks the tracking store for the experiment; here it is named at writing.
        info = TraceInfo(
            trace_id=generate_trace_id_v3(root_span),
            trace_location=TraceLocation.from_experiment_id(NO_EXPERIMENT),
            request_time=(root_span.start_time or 0) // 1_000_000,
            state=TraceState.IN_PROGRESS,
            trace_metadata=self._get_basic_trace_metadata(),
            tags=self._get_basic_trace_tags(root_span),
        )
        self._trace_manager.register_trace(root_span.context.trace_id, info)
        return info


def pop_trace(otel_trace_id: int) -> Trace | None:
    """Take a trace, finished or not, out of MLflow's memory; None when it is not there."""
    manager: InMemoryTraceManager = InMemoryTraceManager.get_instance()  # type: ignore[no-untyped-call]
    managed = manager.pop_trace(otel_trace_id)
    return managed.trace if managed else None


def traces_in_memory() -> int:
    """How many traces MLflow holds: those that are under way, and what never ended."""
    manager: InMemoryTraceManager = InMemoryTraceManager.get_instance()  # type: ignore[no-untyped-call]
    return len(manager._traces)


class StandIn:
    """A tracer provider in the place of MLflow's own, until that is given its place back, unchanged."""

    def __init__(
        self,
        processor: CapturingProcessor,
        *,
        sampler: Sampler = ALWAYS_ON,
        id_generator: IdGenerator | None = None,
    ) -> None:
        """Take the place.

        Raises:
            ConfigurationError: if tracing is disabled.
        """
        if not is_tracing_enabled():
            raise ConfigurationError(
                "MLflow tracing is disabled, and there is no evidence without traces. "
                "Enable it: mlflow.tracing.enable()"
            )
        # An empty resource, as MLflow's own provider has: otherwise each trace is tagged with a made-up
        # service name.
        self.provider = TracerProvider(
            sampler=sampler, resource=Resource.get_empty(), id_generator=id_generator
        )
        self.provider.add_span_processor(processor)
        self._displaced: Any = None
        self._was_set_up = True
        # `once` stops a first span from setting up another. Where one is being set up in another thread, it
        # waits for that, which would take our place when it is done.
        provider.once.do_once(self._take_before_it_is_set_up)
        if self._was_set_up:
            self._take_place()

    def _take_before_it_is_set_up(self) -> None:
        self._was_set_up = False
        self._take_place()

    def _take_place(self) -> None:
        # MLflow has no public way to put an exporter aside: `set_destination` and `disable` shut it down.
        # This is how its own `trace_disabled` does it.
        self._displaced = provider._swap_raw(self.provider)

    @property
    def in_place(self) -> bool:
        """False once tracing was set up anew (`mlflow.set_experiment` and others do): traces go elsewhere."""
        return provider.get() is self.provider

    def give_back(self) -> None:
        """Put back what was displaced, or shut it down where tracing was set up anew meanwhile."""
        if self.in_place:
            provider._swap_raw(self._displaced)
            provider.once._done = self._was_set_up
        elif self._displaced is not None:
            self._displaced.shutdown()

"""Write many finished traces to the MLflow tracking store, in few transactions, and lose none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from mlflow.entities import Span, Trace, TraceInfo, TraceLocation
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpansLocation, TraceMetadataKey, TraceTagKey

from retrieval.errors import StorageError

BATCH_SIZE = 100
"""Traces in one transaction or request: enough to share its cost, and few enough for one HTTP body."""

GIVE_UP_AFTER = 3
"""Refused single writes in a row after which the rest is not tried: each may have waited for a time-out."""

_REFUSALS = (MlflowException, NotImplementedError, OSError)


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of the traces given to `write_traces`: each is counted once.

    Attributes:
        written: how many are in the store now that were not before.
        present: how many were there already, under the same id, and were left alone.
        failed: why each of the others could not be written, by its id.
        singly: why some were written one by one, which is slow; empty if none was.
    """

    written: int = 0
    present: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    singly: str = ""


def write_traces(traces: Sequence[Trace], *, experiment_id: str, run_id: str | None = None) -> WriteReport:
    """Write traces to the current tracking store, under an experiment and a run; they stay unchanged here.

    A database takes `BATCH_SIZE` traces a transaction, a tracking server takes the spans of as many a
    request, and any other store (Databricks among them) one trace after the other, with the reason in
    the report. A batch that is refused is tried again trace by trace, so that one bad trace costs no other.
    Assessments in a trace's info are written with it. A trace that is there already is not written again, so
    that an interrupted call can be repeated. Of attachments (images in a span's inputs) only the
    reference is stored.

    Raises:
        StorageError: if the store or the experiment cannot be reached, or the store refused every trace.
    """
    client = _connect(experiment_id)
    addressed = {trace.info.trace_id: _address(trace, experiment_id, run_id) for trace in traces}
    writing = _Writing(client, experiment_id)
    for batch in _batches(list(addressed.values())):
        writing.write(batch)
    report = writing.report()
    if len(report.failed) == len(addressed) > 0:
        raise StorageError(
            f"The tracking store {client.tracking_uri} refused all {len(addressed)} traces: "
            f"{next(iter(report.failed.values()))}"
        )
    return report


def _connect(experiment_id: str) -> TracingClient:
    try:
        client = TracingClient()
        client.store.get_experiment(experiment_id)
    except _REFUSALS as error:
        raise StorageError(
            f"Traces cannot be written to experiment {experiment_id!r}: {_reason(error)}"
        ) from error
    return client


def _address(trace: Trace, experiment_id: str, run_id: str | None) -> Trace:
    source = {TraceMetadataKey.SOURCE_RUN: run_id} if run_id else {}
    info = replace(
        trace.info,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        trace_metadata={**trace.info.trace_metadata, **source},
        tags=dict(trace.info.tags),
    )
    return Trace(info, trace.data)


def _batches(traces: Sequence[Trace]) -> Iterator[Sequence[Trace]]:
    for start in range(0, len(traces), BATCH_SIZE):
        yield traces[start : start + BATCH_SIZE]


_BatchWriter: TypeAlias = Callable[[TracingClient, str, Sequence[Trace]], set[str]]
"""Writes a batch to an experiment and returns the ids that are certainly stored."""


class _Writing:
    """One `write_traces` under way: what it has done so far, and how it goes on."""

    def __init__(self, client: TracingClient, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._write_batch, self._singly = _batch_writer(client)
        self._written = self._present = self._refused_in_a_row = 0
        self._failed: dict[str, str] = {}

    def report(self) -> WriteReport:
        return WriteReport(self._written, self._present, self._failed, self._singly)

    def write(self, batch: Sequence[Trace]) -> None:
        if self._write_batch is None:
            self._write_singly(batch)
            return
        try:
            batch = self._without_present(batch)
            stored = self._write_batch(self._client, self._experiment_id, batch) if batch else set()
        except _REFUSALS as error:
            self._singly = f"a batch was refused: {_reason(error)}"
            stored = set()
        self._written += len(stored)
        self._write_singly([trace for trace in batch if trace.info.trace_id not in stored])

    def _without_present(self, batch: Sequence[Trace]) -> Sequence[Trace]:
        present = _stored_ids(self._client, batch)
        self._present += len(present)
        return [trace for trace in batch if trace.info.trace_id not in present]

    def _write_singly(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            refusal = self._refusal_of(trace)
            if refusal:
                self._failed[trace.info.trace_id] = refusal
            else:
                self._written += 1

    def _refusal_of(self, trace: Trace) -> str:
        if self._refused_in_a_row >= GIVE_UP_AFTER:
            return f"not tried: the store refused the {GIVE_UP_AFTER} before it"
        try:
            _write_one(self._client, self._experiment_id, trace)
        except Exception as error:  # noqa: BLE001  some stores raise nothing narrower; it is reported
            self._refused_in_a_row += 1
            return _reason(error)
        self._refused_in_a_row = 0
        return ""


def _batch_writer(client: TracingClient) -> tuple[_BatchWriter | None, str]:
    # Imported here because it configures SQLAlchemy, which a remote store does not need.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if _is_databricks(client):
        return None, "Databricks takes the spans of a trace as an artifact of each trace"
    match client.store:
        case SqlAlchemyStore():
            return _write_transaction, ""
        case RestStore():
            return _write_requests, ""
        case other:
            return None, f"{type(other).__name__} takes traces one by one"


def _write_transaction(client: TracingClient, experiment_id: str, traces: Sequence[Trace]) -> set[str]:
    """Write traces to a database with the store's own methods, all inside one transaction.

    Each of these methods opens a session and commits it. On a copy of the store that hands them the session
    that is open here, they write the same rows; `get_experiment`, which `start_trace` asks each time, is
    answered once. The rows of all traces are flushed together, so that a trace that exists by now, which
    `start_trace` would answer with a rollback of the others, fails the transaction as a whole.
    """
    store = client.store
    experiment = store.get_experiment(experiment_id)
    with store.ManagedSessionMaker(read_only=False) as session:
        inside = copy.copy(store)
        inside.get_experiment = lambda experiment_id: experiment
        inside.ManagedSessionMaker = lambda read_only=True: nullcontext(_UnflushedSession(session))
        for trace in traces:
            inside.start_trace(_with_spans_in_store(trace.info))
        session.flush()
        inside.ManagedSessionMaker = lambda read_only=True: nullcontext(session)
        inside.log_spans(experiment_id, _spans(traces))
    return {trace.info.trace_id for trace in traces}


class _UnflushedSession:
    """A database session whose users cannot flush it, so that its owner does so once for all of them."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def flush(self) -> None:
        """Leave it to the owner."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _with_spans_in_store(info: TraceInfo) -> TraceInfo:
    # `log_spans` sets this tag; where it is there already, it need not look for each trace's.
    return replace(info, tags={**info.tags, TraceTagKey.SPANS_LOCATION: SpansLocation.TRACKING_STORE.value})


def _write_requests(client: TracingClient, experiment_id: str, traces: Sequence[Trace]) -> set[str]:
    for trace in traces:
        client.start_trace(trace.info)
    client.log_spans(experiment_id, _spans(traces))
    return _stored_ids(client, traces)


def _write_one(client: TracingClient, experiment_id: str, trace: Trace) -> None:
    """Write one trace as MLflow's exporter does: its spans go to the store, or else become an artifact."""
    info = client.start_trace(trace.info)
    if _is_databricks(client) or not _log_spans(client, experiment_id, trace):
        client._upload_trace_data(info, trace.data)


def _log_spans(client: TracingClient, experiment_id: str, trace: Trace) -> bool:
    try:
        client.log_spans(experiment_id, trace.data.spans)
    except (MlflowException, NotImplementedError):
        return False
    return True


def _reason(error: Exception) -> str:
    """What went wrong, in a line: SQLAlchemy adds the whole statement with its values."""
    return str(error).partition("\n")[0]


def _is_databricks(client: TracingClient) -> bool:
    return str(client.tracking_uri).startswith("databricks")


def _spans(traces: Sequence[Trace]) -> list[Span]:
    return [span for trace in traces for span in trace.data.spans]


def _stored_ids(client: TracingClient, traces: Sequence[Trace]) -> set[str]:
    """The ids of those traces that the store holds whole: their info and, as its tag says, their spans."""
    infos = client.store.batch_get_trace_infos([trace.info.trace_id for trace in traces])
    return {info.trace_id for info in infos if _is_whole(info)}


def _is_whole(info: TraceInfo) -> bool:
    # `start_trace` leaves the first mark and `log_spans` the second.
    return (
        TraceMetadataKey.TRACE_INFO_FINALIZED in info.trace_metadata
        and info.tags.get(TraceTagKey.SPANS_LOCATION) == SpansLocation.TRACKING_STORE
    )

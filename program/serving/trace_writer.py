"""The process that brings spooled traces to the tracking store, beside the server and at a lower priority.

A process rather than a thread: writing one trace costs MLflow more time than answering the request took, and
Python would take that time from the answers. It ends when its standard input does, after the last trace.
Each line of its standard output is a report.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow

from program.serving.trace_spool import SpooledTraces, SpoolReader, abandoned_spools
from program.trace_store import BATCH_SIZE, write_traces
from retrieval.errors import StorageError

POLL_S = 0.2
_LONGEST_PAUSE_S = 30.0
_MOST_TRIES = 8
"""After as many a batch is taken for refused, if the store can be reached: else it would wait for ever."""

_NICE = 10


def main() -> None:
    """Write until standard input ends: arguments are the spool, the tracking URI and the experiment's id."""
    spool, tracking_uri, experiment_id = sys.argv[1:]
    with suppress(AttributeError, OSError):  # Windows has no such thing
        os.nice(_NICE)
    mlflow.set_tracking_uri(tracking_uri)
    ending = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ending,), daemon=True).start()
    writer = TraceWriter(experiment_id, ending)
    for abandoned in abandoned_spools(Path(spool).parent):
        reader = SpoolReader(abandoned)
        if writer.write_all(reader):
            reader.remove()
    own = SpoolReader(Path(spool))
    while not ending.is_set():
        writer.write_all(own)
        ending.wait(POLL_S)
    writer.write_all(own)


class TraceWriter:
    """Writes spools to an experiment of MLflow's current store, and reports what became of each batch."""

    def __init__(self, experiment_id: str, ending: threading.Event) -> None:
        self._experiment_id = experiment_id
        self._ending = ending

    def write_all(self, reader: SpoolReader) -> bool:
        """Write what is in the spool now; False when the store cannot be reached and there is no more time."""
        tries = 0
        while (batch := reader.read(BATCH_SIZE)) is not None:
            tries += 1
            try:
                failed = self._write(batch)
            except StorageError as error:
                _report(error=str(error))
                if tries >= _MOST_TRIES and self._is_reachable():
                    failed = {trace.info.trace_id: str(error) for trace in batch.traces}
                elif self._ending.is_set():
                    return False
                else:
                    self._ending.wait(min(POLL_S * 2**tries, _LONGEST_PAUSE_S))
                    continue
            self._settle(reader, batch, failed)
            tries = 0
        return True

    def _write(self, batch: SpooledTraces) -> Mapping[str, str]:
        if not batch.traces:
            return {}
        return write_traces(batch.traces, experiment_id=self._experiment_id).failed

    def _is_reachable(self) -> bool:
        try:
            mlflow.get_experiment(self._experiment_id)
        except Exception:  # noqa: BLE001 - whatever a store raises: it is not usable
            return False
        return True

    def _settle(self, reader: SpoolReader, batch: SpooledTraces, failed: Mapping[str, str]) -> None:
        for trace in batch.traces:
            if reason := failed.get(trace.info.trace_id):
                reader.refuse(trace.to_json().encode("utf-8", "replace"), reason)
        for line in batch.damaged:
            reader.refuse(line, "damaged")
        reader.forget(batch)
        stored = [trace.info.trace_id for trace in batch.traces if trace.info.trace_id not in failed]
        _report(
            spool=reader.path.name,
            stored=stored,
            refused=list(failed),
            damaged=len(batch.damaged),
            reason=next(iter(failed.values()), "damaged"),
        )


def _report(**what: Any) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(what), flush=True)


def _wait_for_end(ending: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    ending.set()

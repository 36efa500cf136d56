"""`citeqa serve`: from settings to a server that listens."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable, Mapping

import mlflow

from program.agent import CiteqaAgent
from program.assembly import DEFAULT_PROGRAM
from program.extractive import ExtractiveReader
from program.language_models import build_lm
from program.retrievers import follow_index
from program.serving.app import Served, create_app
from program.serving.listening import is_loopback, listen, serve_on, url_of
from program.serving.mlflow_pages import MlflowPages
from program.serving.readiness import ModelHealth
from program.serving.traces import TraceRecorder, record_traces
from program.settings import Settings
from program.tracking import connect

TOKEN_VARIABLE = "CITEQA_TOKEN"

_SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the others waiting: with Python's 5 ms, health checks wait behind 32 answers."""


def serve(
    settings: Settings, on_ready: Callable[[str], None], environment: Mapping[str, str] | None = None
) -> None:
    """Serve the configured agent until told to stop (Ctrl-C, SIGTERM); what streams then is finished.

    `on_ready` is given the address once it is answered there.

    Raises:
        ConfigurationError: if the address cannot be listened at, or the agent cannot be built.
        RetrievalError, ProgramStateError, StorageError: if a part of it cannot be opened.
    """
    environment = os.environ if environment is None else environment
    retriever = follow_index(settings)
    agent = CiteqaAgent(settings, retriever=retriever)
    listener = listen(settings.serving.host, settings.serving.port)
    with listener:
        experiment_id = connect(settings.tracking)
        token = environment.get(TOKEN_VARIABLE) or None
        served = Served(
            agent=agent,
            reader=reader_name(settings),
            programs=(DEFAULT_PROGRAM, *settings.program.states),
            k=settings.retrieval.k,
            index=retriever,
            recorder=_record(settings, experiment_id),
            pages=MlflowPages(
                mlflow.get_tracking_uri(),
                experiment_id,
                address=settings.serving.mlflow_ui,
                may_start=is_loopback(settings.serving.host),
            ),
            health=_health(settings),
            token=token,
            user_header=settings.memory.user_header,
        )
        _run(served, settings, listener, lambda: on_ready(url_of(listener)))


def reader_name(settings: Settings) -> str:
    """Who answers, as answers name it."""
    return str(settings.language_model.model) if settings.answers_with_lm else ExtractiveReader.name


def _record(settings: Settings, experiment_id: str) -> TraceRecorder | None:
    sample_rate = settings.serving.trace_sample_rate
    if sample_rate == 0:
        mlflow.tracing.disable()
        return None
    return record_traces(settings.serving, experiment_id, sample_rate)


def _health(settings: Settings) -> ModelHealth | None:
    if not settings.answers_with_lm or settings.reader.fallback != "none":
        return None
    lm = build_lm(settings.language_model)
    return ModelHealth(lambda: lm("Reply with the word: ready", cache=False))


def _run(served: Served, settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # What was imported stays: left among the objects to look through, it is a pause of 300 ms now and then.
    gc.collect()
    gc.freeze()
    # MLflow looks for pictures inside every text that it records; there are none here, and it takes 1 ms an answer.
    os.environ.setdefault("MLFLOW_TRACE_EXTRACT_ATTACHMENTS", "false")
    serve_on(listener, create_app(served, settings.serving), on_ready, shutdown_s=settings.serving.shutdown_s)

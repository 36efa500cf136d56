"""Ask a logged model in a process of its own, where what answers is the model's own code.

A logged model brings packages along (`code_paths`). Where packages of the same names are imported already,
as our own are here, Python would take those: a logged agent that is compared with the working copy would
be the working copy. And what a model sets up when it is loaded or asked (autologging, experiments, a
tracking address) would reach into the evaluation.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from mlflow.entities import Trace
from mlflow.exceptions import MlflowException
from mlflow.tracing.utils import dump_span_attribute_value

from eval.replies import Reply
from eval.traces import TraceCollector, TracedCall, collect_traces
from retrieval.errors import AgentError, CiteqaError, ConfigurationError

_PACKAGES_THAT_GIVE_WAY = ("eval", "program", "retrieval")
_REASON_CHARACTERS = 500
_TOLD = (CiteqaError.__name__, MlflowException.__name__)
"""Errors whose text is for a person; of others the name says more."""


class ModelProcess:
    """A loaded model that answers in another process. Safe to ask from many threads at once."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """The model's answer to a request as JSON has it, with its traces.

        Raises:
            AgentError: if the process has ended.
        """
        try:
            answered = self._model.ask(dict(body))
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise AgentError(
                "The process in which the model is loaded has ended: its last words, if any, stand above."
            ) from error
        return Reply(
            said=answered["said"],
            traces=tuple(map(Trace.from_json, answered["traces"])),
            latency_ms=answered["latency_ms"],
            error=AgentError(answered["error"]) if answered["error"] else None,
        )


@contextmanager
def load_in_process(directory: Path, tracking_uri: str) -> Iterator[ModelProcess]:
    """The model in a directory, loaded in a process that ends with this context, or with this process.

    Raises:
        AgentError: if it cannot be loaded, with the reason.
    """
    manager = _Manager(ctx=get_context("spawn"))
    try:
        manager.start(_load, (str(directory), tracking_uri))
    except BaseException as error:
        # Interrupted while the model is being loaded: the process would go on, and then find nobody there.
        manager._process.kill()  # type: ignore[attr-defined]
        if not isinstance(error, EOFError):
            raise
        raise AgentError(
            f"The process that was to load the model in '{directory}' has ended at once: its last words stand above."
        ) from error
    try:
        model = manager.LoadedModel()  # type: ignore[attr-defined]  # made by `register`
        if failure := model.failure():
            raise AgentError(f"The model in '{directory}' cannot be loaded: {failure}")
        yield ModelProcess(model)
    finally:
        manager.shutdown()


class LoadedModel:
    """What stands in the other process for the model that is loaded there."""

    def failure(self) -> str:
        """Why the model could not be loaded; empty if it was."""
        return _failure

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """The model's answer, its traces and its time, or the reason why there is none."""
        call, latency_ms = _traced(body)
        return {
            "said": _as_json(call.result),
            "error": _describe(call.error) if call.error else "",
            "traces": [trace.to_json() for trace in call.traces],
            "latency_ms": latency_ms,
        }


class _Manager(BaseManager):
    """Serves each thread that asks with a thread of the process."""


_Manager.register("LoadedModel", LoadedModel)

_model: Any = None
_failure = ""
_collection: _Collection


class _Collection:
    """Collects traces, and begins anew when a model sets tracing up anew, as many do at their first question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def call(self, body: dict[str, Any]) -> TracedCall[Any]:
        """One call of the model.

        Raises:
            ConfigurationError: if the model sets up tracing anew at each call.
        """
        collector = self._collector
        try:
            return collector.call(_model.predict, body)
        except ConfigurationError:
            self._begin_again(collector)
        return self._collector.call(_model.predict, body)

    def _begin(self) -> None:
        self._stack = ExitStack()
        self._collector: TraceCollector = self._stack.enter_context(collect_traces())

    def _begin_again(self, left: TraceCollector) -> None:
        with self._lock:
            # Of several threads that find tracing changed, the first does it for all.
            if self._collector is left:
                self._stack.close()
                self._begin()


def _load(directory: str, tracking_uri: str) -> None:
    """Load the model, in the first thread of its process: where libraries are set up, as DSPy, it matters."""
    global _model, _failure, _collection
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What is printed here is no result of the command that evaluates.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # A model in a local store is loaded from where it is kept: nothing is to be written there.
    sys.dont_write_bytecode = True
    _give_way()
    import mlflow

    try:
        mlflow.set_tracking_uri(tracking_uri)
        _model = mlflow.pyfunc.load_model(directory)
        _collection = _Collection()
    except Exception as error:  # noqa: BLE001 - whatever a model raises when it is loaded
        _failure = _describe(error)


def _give_way() -> None:
    """Forget our packages, which this module has what it needs of: the model may bring others of their names."""
    for name in list(sys.modules):
        if name.partition(".")[0] in _PACKAGES_THAT_GIVE_WAY:
            del sys.modules[name]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _traced(body: dict[str, Any]) -> tuple[TracedCall[Any], float]:
    started = time.perf_counter()
    try:
        call = _collection.call(body)
    except CiteqaError as error:
        call = TracedCall(None, error, ())
    return call, round(1000 * (time.perf_counter() - started), 3)


def _as_json(said: Any) -> Any:
    """What JSON has of it; a plain model may answer with a list of one."""
    said = json.loads(dump_span_attribute_value(said))
    return said[0] if isinstance(said, list) and len(said) == 1 else said


def _describe(error: Exception) -> str:
    # By its name: the model's own copy of our package has an error class of its own.
    is_told = any(kind.__name__ in _TOLD for kind in type(error).__mro__)
    text = " ".join((str(error) if is_told else repr(error)).split())
    return text if len(text) <= _REASON_CHARACTERS else f"{text[: _REASON_CHARACTERS - 1]}…"

"""Language-model calls that are made once, and answered from a record ever after, with what they cost at first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

# lm15's JSON forms have no public name in DSPy; these are where DSPy's own cache takes them from.
from dspy.clients.call_result import response_from_dict, response_to_dict
from dspy.clients.execution import request_to_dict
from dspy.lm15 import Request, Response, ResponseStream, response_to_events
from dspy.utils.callback import BaseCallback

from program.call_notes import note_calls, waited_ms_so_far
from program.content_store import ContentStore, content_key
from program.streaming import Engine
from retrieval.errors import StorageError

KIND = "language_model_call"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """The call of a `dspy.LM` under way: what of it a request does not say."""

    rollout_id: Any = None
    answered: int = 0


_call: ContextVar[_Call | None] = ContextVar("citeqa_lm_call", default=None)


_anew: ContextVar[bool] = ContextVar("citeqa_ask_anew", default=False)


@contextmanager
def asking_anew() -> Iterator[None]:
    """Within, in this context and its copies, no call is answered from a record; what is said now takes its place.

    For questions that failed: a completion that could not be read would be replayed for ever.
    """
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


class CallContext(BaseCallback):  # type: ignore[misc]
    """Tells the engine below a `dspy.LM` which call its requests belong to.

    DSPy takes the rollout out of a request before an engine sees it, and asks `n` times for `n` candidates.
    """

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the call."""
        asked = {**instance.kwargs, **(inputs.get("kwargs") or {})}
        _call.set(_Call(asked.get("rollout_id")))

    def on_lm_end(
        self, call_id: str, outputs: dict[str, Any] | None, exception: Exception | None = None
    ) -> None:
        """Forget it."""
        _call.set(None)


class RecordedEngine:
    """A DSPy engine that answers as the one it wraps did when it was first asked the same.

    The same is: the same model at the same address, the same messages, tools and generation settings, the same
    rollout, and the same place among the candidates of one call. So a temperature above 0 gives the same sample
    each time, and another one for another `rollout_id`, as with DSPy's own cache, in whose place this stands:
    that one reports no usage when it hits, and here a replayed response carries its first usage. What the call
    took at first is noted (`program.call_notes`). Time-outs, retries and keys decide nothing and are not kept.

    Threads that ask the same at once make one call. What fails is not recorded, nor a stream that nobody heard
    to its end. A `dspy.LM` needs `CallContext` among its callbacks for rollouts and candidates to be told apart.
    """

    def __init__(self, inner: Engine, store: ContentStore, *, address: str = "") -> None:
        """`address` is where `inner` asks, if not where its provider is."""
        self._inner = inner
        self._store = store
        self._address = address
        self._locks = _LockByKey()

    def complete(self, request: Request) -> Response:
        """The recorded response, or the engine's, recorded now.

        Raises:
            StorageError: if the record cannot be read; nothing was asked then.
        """
        key = self._key(request)
        with self._locks.holding(key):
            response = self._recorded(key)
            if response is None:
                watch = _Stopwatch()
                response = self._inner.complete(request)
                self._record(key, response, watch.elapsed_ms())
        _count_candidate()
        return response

    def stream(self, request: Request) -> Iterator[Any]:
        """The events of the recorded response, its text in one piece, or the engine's, recorded at their end.

        Raises:
            StorageError: as `complete`.
        """
        key = self._key(request)
        with self._locks.holding(key):
            response = self._recorded(key)
            if response is not None:
                yield from response_to_events(response)
            else:
                watch = _Stopwatch()
                with ResponseStream(self._inner.stream(request), request) as stream:
                    yield from stream.events()
                    self._record(key, stream.response, watch.elapsed_ms())
        _count_candidate()

    def _key(self, request: Request) -> str:
        call = _call.get() or _Call()
        return content_key(self._address, request_to_dict(request), call.rollout_id, call.answered)

    def _recorded(self, key: str) -> Response | None:
        entry = None if _anew.get() else self._store.get(KIND, key)
        if entry is None:
            return None
        try:
            response, took_ms = response_from_dict(entry["response"]), float(entry["took_ms"])
        except (KeyError, TypeError, ValueError):
            # Another version of DSPy wrote it.
            return None
        note_calls(replayed=1, replayed_ms=took_ms)
        return response

    def _record(self, key: str, response: Response, took_ms: float) -> None:
        entry = {"response": response_to_dict(response, include_provider_data=True), "took_ms": took_ms}
        try:
            self._store.put(KIND, key, entry)
        except StorageError as error:
            # It is paid for: the answer counts, even if it has to be paid for again.
            logger.warning("A language-model call could not be recorded: %s", error)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> RecordedEngine:
        """Itself: DSPy's optimizers copy programs, and copies share what is recorded."""
        return self


def _count_candidate() -> None:
    """The next request of the same call is for another candidate."""
    if (call := _call.get()) is not None:
        call.answered += 1


class _Stopwatch:
    """Milliseconds since it was made, without what was waited for the provider to be ready."""

    def __init__(self) -> None:
        self._began, self._waited_ms = time.perf_counter(), waited_ms_so_far()

    def elapsed_ms(self) -> float:
        waited_ms = waited_ms_so_far() - self._waited_ms
        return round(max(0.0, 1000 * (time.perf_counter() - self._began) - waited_ms), 3)


class _LockByKey:
    """One lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        with self._lock:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = lock, users + 1
        try:
            began = time.perf_counter()
            with lock:
                note_calls(waited_ms=1000 * (time.perf_counter() - began))
                yield
        finally:
            with self._lock:
                lock, users = self._held.pop(key)
                if users > 1:
                    self._held[key] = lock, users - 1

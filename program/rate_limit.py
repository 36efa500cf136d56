"""Ask a language model as fast as its provider bears, and no faster: all threads of a process together.

The rate is found as TCP finds a link's: halved when the provider says that it is too high, and raised a little with
each answer (additive increase, multiplicative decrease). For commands that ask many questions; where a person
waits, a refusal is told at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from dspy.lm15 import RateLimitError, Request, Response, ServerError
from dspy.utils.exceptions import LMProviderError

from program.call_notes import note_calls
from program.settings import LanguageModelSettings
from program.streaming import Engine

T = TypeVar("T")
Refusal: TypeAlias = RateLimitError | ServerError

logger = logging.getLogger(__name__)

_MEASURED_S = 60.0
_RECOVERY_S = 30.0
"""After it was halved, the rate is where it was in this time, or sooner."""
_LOWEST_RATE = 1 / 60
_LONGEST_PAUSE_S = 60.0
_OVERLOADED = {503, 529}


class StillBusyError(Exception):
    """The provider was not ready in the time that a call had. `refusal` is what it said last."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class RateLimiter:
    """Decides when a call may begin, for all threads that share it.

    A call that is refused for its rate (429, or 503 or 529 with `Retry-After`) pauses every thread for the time that
    the provider asks for, or 1, 2, 4, … 60 s where it names none, and is tried again. Afterwards calls begin
    one after another at half the rate at which they had succeeded; where none had, no rate is known yet. A refusal
    of a call that had begun before the rate was halved says nothing new, and halves it no further.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`requests_per_minute` is never exceeded; None: whatever the provider bears."""
        self._ceiling = requests_per_minute / 60 if requests_per_minute else float("inf")
        self._rate = self._ceiling if requests_per_minute else None
        self._raise_by = 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_slot = self._resume_at = self._slowed_at = float("-inf")
        self._refused_in_a_row = 0
        self._refusal: Refusal | None = None
        self._succeeded: deque[float] = deque()

    @property
    def rate(self) -> float | None:
        """Calls a second, at most, now; None where nothing limits them yet."""
        return self._rate

    def call(self, attempt: Callable[[], T], *, patience_s: float) -> T:
        """What `attempt` returns, begun when it may, and again when it is refused for its rate.

        Raises:
            StillBusyError: when the provider is not ready `patience_s` after it was first found busy, or says
                that it will not be.
            Exception: whatever else `attempt` raises, at once.
        """
        patience = _Patience(patience_s)
        while True:
            began = self._wait_for_turn(patience)
            try:
                result = attempt()
            except (RateLimitError, ServerError) as error:
                if not _is_refusal(error):
                    raise
                self._pause(began, error)
                patience.begin(self._clock())
            else:
                self._succeed()
                return result

    def _wait_for_turn(self, patience: _Patience) -> float:
        """Wait for a slot that no pause has overtaken; when it is."""
        while True:
            with self._lock:
                now = self._clock()
                if self._resume_at > now:
                    patience.begin(now)
                if self._refusal is not None and patience.ends_before(max(now, self._resume_at)):
                    raise StillBusyError(self._refusal)
                slot = max(now, self._next_slot, self._resume_at)
                self._next_slot = slot + (1 / self._rate if self._rate else 0)
            if slot > now:
                self._sleep(slot - now)
                note_calls(waited_ms=1000 * (self._clock() - now))
            with self._lock:
                if slot >= self._resume_at:
                    return slot

    def _pause(self, began: float, refusal: Refusal) -> None:
        """Have all threads wait, and go slower then."""
        with self._lock:
            now = self._clock()
            self._refusal = refusal
            if began > self._slowed_at:
                self._slow_down(now)
            pause_s = refusal.retry_after
            if pause_s is None:
                pause_s = min(2.0 ** (self._refused_in_a_row - 1), _LONGEST_PAUSE_S)
            self._resume_at = max(self._resume_at, now + pause_s)

    def _slow_down(self, now: float) -> None:
        self._slowed_at = now
        self._refused_in_a_row += 1
        if self._succeeded:
            measured = len(self._succeeded) / max(1.0, now - self._succeeded[0])
            self._rate = max(min(measured, self._rate or measured) / 2, _LOWEST_RATE)
            self._raise_by = max(self._rate, 1.0) / _RECOVERY_S
            logger.info("The language model's provider is busy: %.2f calls a second from now on", self._rate)

    def _succeed(self) -> None:
        with self._lock:
            now = self._clock()
            self._refused_in_a_row = 0
            self._succeeded.append(now)
            while self._succeeded[0] < now - _MEASURED_S:
                self._succeeded.popleft()
            if self._rate:
                # With so many answers a second, the rate rises by `raise_by` in a second.
                self._rate = min(self._rate + self._raise_by / self._rate, self._ceiling)


class _Patience:
    """Until when a call waits, counted from when it first found the provider busy."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._until: float | None = None

    def begin(self, now: float) -> None:
        self._until = self._until if self._until is not None else now + self._patience_s

    def ends_before(self, moment: float) -> bool:
        return self._until is not None and self._until < moment


class LimitedEngine:
    """A DSPy engine whose calls begin when a `RateLimiter` lets them."""

    def __init__(self, inner: Engine, limiter: RateLimiter, *, patience_s: float) -> None:
        """`patience_s` is how long a call waits for a provider that is busy, whatever its retries are."""
        self._inner = inner
        self._limiter = limiter
        self._patience_s = patience_s

    def complete(self, request: Request) -> Response:
        """One response.

        Raises:
            LMProviderError: with the code of the refusal, when patience has ended. DSPy does not try it again.
        """
        return self._call(lambda: self._inner.complete(request), request)

    def stream(self, request: Request) -> Iterator[Any]:
        """The events of one response. Raises as `complete`, before the first of them."""
        first, rest = self._call(lambda: _begin(self._inner, request), request)
        try:
            yield from first
            yield from rest
        finally:
            rest.close()

    def _call(self, attempt: Callable[[], T], request: Request) -> T:
        try:
            return self._limiter.call(attempt, patience_s=self._patience_s)
        except StillBusyError as busy:
            raise _failure(busy.refusal, request, self._patience_s) from busy.refusal

    def __deepcopy__(self, memo: Mapping[int, Any]) -> LimitedEngine:
        """Itself: DSPy's optimizers copy programs, and copies share a limit."""
        return self


_limiters: dict[tuple[str | None, str | None, float | None], RateLimiter] = {}
_limiters_lock = threading.Lock()


def limiter_for(settings: LanguageModelSettings) -> RateLimiter:
    """The limiter of a model at its address: one and the same in all of this process."""
    key = settings.model, settings.api_base, settings.requests_per_minute
    with _limiters_lock:
        return _limiters.setdefault(key, RateLimiter(settings.requests_per_minute))


def _begin(engine: Engine, request: Request) -> tuple[list[Any], Any]:
    """A stream's first event, in whose place a refusal comes, and the others."""
    events = engine.stream(request)
    return list(islice(events, 1)), events


def _is_refusal(error: Refusal) -> bool:
    return isinstance(error, RateLimitError) or (
        error.status in _OVERLOADED and error.retry_after is not None
    )


def _failure(refusal: Refusal, request: Request, patience_s: float) -> LMProviderError:
    reason = next((line for line in refusal.message.splitlines() if line.strip()), "the provider is busy")
    hint = f", asks to wait {refusal.retry_after:.0f} s" if refusal.retry_after else ""
    return LMProviderError(
        f"{reason.rstrip('.')} (HTTP {refusal.status}{hint}; language_model.rate_limit_wait_s is {patience_s:g})",
        code=refusal.code,
        model=request.model,
        provider=refusal.provider,
        provider_code=refusal.provider_code,
        status=refusal.status,
        request_id=refusal.request_id,
        retry_after=refusal.retry_after,
    )

"""A circuit breaker: a service that keeps failing is left alone for a while, and then tried by one call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum


class Outcome(Enum):
    """What a call says of the service: it is WELL, FAILING, or nothing (UNKNOWN), as when the call was cancelled."""

    WELL = "well"
    FAILING = "failing"
    UNKNOWN = "unknown"


class CircuitBreaker:
    """Decides whether a call may be made at all; for all threads that share it.

    After `open_after` failures in a row no call is let through for `open_s`. Then one is, and its outcome decides for
    all: well, and calls are made again; failing, and the service is left alone for as long once more.
    """

    def __init__(
        self, open_after: int, open_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_after = open_after
        self._open_s = open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        """When the next call may try an open circuit; None while it is closed."""
        self._trying: int | None = None
        """The thread whose call tries an open circuit."""

    def admit(self) -> float:
        """0 if a call may be made, and then `record` must be called; else the seconds until one may be."""
        with self._lock:
            if self._open_until is None:
                return 0.0
            left_s = self._open_until - self._clock()
            if left_s <= 0 and self._trying is None:
                self._trying = threading.get_ident()
                return 0.0
            # Somebody is trying: nobody knows for how long, but not for nothing.
            return max(left_s, 0.001)

    def record(self, outcome: Outcome) -> None:
        """Take the outcome of a call that was admitted, in the thread that asked."""
        with self._lock:
            tried = self._trying == threading.get_ident()
            if tried:
                self._trying = None
            if outcome is Outcome.WELL:
                self._failures, self._open_until = 0, None
            elif outcome is Outcome.FAILING:
                self._failures += 1
                # Calls that had begun before it opened say nothing new.
                if tried or (self._open_until is None and self._failures >= self._open_after):
                    self._open_until = self._clock() + self._open_s

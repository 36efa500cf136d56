"""Call a service that may be slow, busy or away: one deadline over all attempts, retries with jitter, a circuit.

A client hands over what one attempt is, and raises `PassingError` where another is worth making; whatever else it
raises goes through at once.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

from retrieval.circuit import CircuitBreaker, Outcome
from retrieval.errors import ServiceUnavailableError
from retrieval.secrets import hide_secrets

T = TypeVar("T")

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a service is tried.

    Attributes:
        timeout_s: for one call, with all its attempts and the waits between them.
        attempt_timeout_s: for one attempt.
        num_retries: how many attempts follow a first one that failed.
        open_after: after so many failed calls in a row, the service is left alone;
        open_s: for so long, before one call tries it again.
    """

    timeout_s: float = 10.0
    attempt_timeout_s: float = 5.0
    num_retries: int = 3
    open_after: int = 5
    open_s: float = 10.0


class PassingError(Exception):
    """A failure that may be over soon; its text is the reason, for a person.

    `retry_after_s` is how long the service asks to wait. With `busy` it answered, and wants fewer calls: that is
    no sign of a fault, and opens no circuit.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.busy = busy


class Resilience:
    """Calls one service within limits; for all threads that share it, and they should.

    An attempt that fails passingly is made again after a wait: what the service asks for, or a random part of
    0.2, 0.4, 0.8, … 5 s ("full jitter"), so that callers which failed together do not come back together. No wait
    begins that would outlast the deadline.
    """

    def __init__(
        self,
        service: str,
        limits: Limits | None = None,
        *,
        settings: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`service` and `settings` are for messages: what is called, and the section that holds its limits."""
        self.limits = limits or Limits()
        self._service = service
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._circuit = CircuitBreaker(self.limits.open_after, self.limits.open_s, clock=clock)

    def call(self, attempt: Callable[[float], T]) -> T:
        """What `attempt(timeout_s)` returns; it is called until it succeeds, each time with the seconds it has.

        Raises:
            ServiceUnavailableError: when the last attempt failed passingly, or the service is being left alone.
            Exception: whatever else `attempt` raises, at once.
        """
        if left_s := self._circuit.admit():
            raise ServiceUnavailableError(
                f"{self._service} failed {self.limits.open_after} times in a row and is left alone for another "
                f"{left_s:.1f} s. Ask again then{self._advice('open_s')}."
            )
        outcome = Outcome.UNKNOWN
        try:
            result = self._attempts(attempt)
            outcome = Outcome.WELL
        except _GaveUpError as gave_up:
            outcome = Outcome.WELL if gave_up.failure.busy else Outcome.FAILING
            raise ServiceUnavailableError(self._message(gave_up)) from gave_up.failure
        except Exception:
            outcome = Outcome.WELL  # it answered: what it refused is this call's fault
            raise
        finally:
            self._circuit.record(outcome)
        return result

    def _attempts(self, attempt: Callable[[float], T]) -> T:
        began = self._clock()
        deadline = began + self.limits.timeout_s
        number = 0
        while True:
            left_s = deadline - self._clock()
            number += 1
            try:
                return attempt(min(left_s, self.limits.attempt_timeout_s))
            except PassingError as failure:
                wait_s = self._wait_s(number, failure)
                now = self._clock()
                if number > self.limits.num_retries or now + wait_s >= deadline:
                    raise _GaveUpError(failure, number, now - began) from failure
            self._sleep(wait_s)

    def _wait_s(self, number: int, failure: PassingError) -> float:
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (number - 1))
        if failure.retry_after_s is None:
            return self._draw(0.0, longest)
        # All who were refused are told the same moment: come a little apart.
        return failure.retry_after_s + self._draw(0.0, _FIRST_WAIT_S)

    def _message(self, gave_up: _GaveUpError) -> str:
        failure = gave_up.failure
        reason = " ".join(hide_secrets(str(failure)).split()).rstrip(".")
        if len(reason) > _REASON_CHARACTERS:
            reason = f"{reason[: _REASON_CHARACTERS - 1]}…"
        asked = f", and asks to wait {failure.retry_after_s:g} s" if failure.retry_after_s else ""
        attempts = "one attempt" if gave_up.attempts == 1 else f"{gave_up.attempts} attempts"
        state = "is busy" if failure.busy else "cannot be used now"
        return (
            f"{self._service} {state}: {reason}{asked} ({attempts} in {gave_up.passed_s:.1f} s). Ask again later"
            f"{self._advice('timeout_s and num_retries')}."
        )

    def _advice(self, names: str) -> str:
        return f"; {names} of {self._settings} say how long to try" if self._settings else ""


class _GaveUpError(Exception):
    def __init__(self, failure: PassingError, attempts: int, passed_s: float) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.attempts = attempts
        self.passed_s = passed_s


def retry_after_s(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, which holds them or a date; None where it holds neither."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = (moment - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None

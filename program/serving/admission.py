"""How many answers are written at once, who waits, and who is sent away."""

from __future__ import annotations

import asyncio

from program.serving.failures import Failure, RequestFailedError

_FIRST_GUESS_S = 1.0
_NEWEST_SHARE = 0.1


class Admission:
    """A number of slots with a bounded queue before them. For one event loop.

    A slot is one answer that is being written, and is given back when its worker has ended, not when its
    client has left: work that nobody waits for any longer still counts, so that the bound is a bound.
    """

    def __init__(self, slots: int, queue_length: int, queue_timeout_s: float) -> None:
        self._slots = slots
        self._queue_length = queue_length
        self._queue_timeout_s = queue_timeout_s
        self._free = asyncio.Semaphore(slots)
        self._typical_s = _FIRST_GUESS_S
        self.in_flight = 0
        self.queued = 0

    async def enter(self) -> None:
        """Take a slot, waiting for one where the queue is not full.

        Raises:
            RequestFailedError: 429, with when to try again: the queue is full, or the wait was too long.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        self.in_flight += 1

    async def _wait(self) -> None:
        if self.queued >= self._queue_length:
            raise self._overloaded()
        self.queued += 1
        try:
            await asyncio.wait_for(self._free.acquire(), self._queue_timeout_s)
        except asyncio.TimeoutError:
            raise self._overloaded() from None
        finally:
            self.queued -= 1

    def leave(self, took_s: float) -> None:
        """Give the slot back; `took_s` seconds was it held."""
        self.in_flight -= 1
        self._typical_s += _NEWEST_SHARE * (took_s - self._typical_s)
        self._free.release()

    def _overloaded(self) -> RequestFailedError:
        wait_s = self._typical_s * (self.queued + 1) / self._slots
        return RequestFailedError(
            Failure(
                429,
                "overloaded",
                f"{self.in_flight} answers are being written and {self.queued} requests wait. Try again soon.",
                retry_after_s=max(1.0, wait_s),
            )
        )

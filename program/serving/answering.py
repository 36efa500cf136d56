"""One answer in a worker thread, read from the event loop as it is written."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import mlflow
from mlflow.entities import SpanType
from mlflow.types.responses import create_text_output_item

from program.agent import CitingAgent, describe_trace
from program.responses import render_response
from program.serving.requests import AnswerRequest
from program.streaming import StreamAbandonedError, stopping
from program.types import CitedAnswer, Piece

FRAME_S = 0.05
"""Pieces are read at most that often: nobody sees the difference, and each wake-up costs as much as a token."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished answer, and the id of its trace; None where it was not traced."""

    answer: CitedAnswer
    trace_id: str | None


class Answering:
    """Has the agent answer in one worker thread, inside one copy of this context.

    The answerer is synchronous and pushes its pieces; a thread per answer keeps it off the event loop, and
    the copied context keeps its spans and DSPy settings its own. Pieces wait in an unbounded list, since an
    answer is short: a slow reader holds up nobody, and everything that came meanwhile is read at once.
    """

    def __init__(
        self,
        agent: CitingAgent,
        asked: AnswerRequest,
        *,
        item_id: str,
        request_id: str,
        executor: Executor,
        on_end: Callable[[float], None],
    ) -> None:
        """Begin. `on_end` is called on the event loop, with the seconds it took, when the worker has ended."""
        self._agent = agent
        self._asked = asked
        self._item_id = item_id
        self._request_id = request_id
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._wants_pieces = False
        self._read_at = -FRAME_S
        self._pieces: deque[Piece] = deque()
        self._said = ""
        self._stopped = ""
        self.trace_id: str | None = None
        context = contextvars.copy_context()
        self._outcome: asyncio.Future[Answered] = self._loop.create_future()
        # Retrieved, since nobody may be waiting for it any longer.
        self._outcome.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())
        executor.submit(context.run, self._work)

    def stop(self, reason: str) -> None:
        """Stop the language model at its next token and end the trace as cancelled, for `reason`."""
        self._stopped = self._stopped or reason

    async def pieces(self, timeout_s: float) -> list[Piece] | None:
        """What has come since the last call, waiting for something; empty when nothing came in the time.

        None when the answer is finished, or failed, and every piece has been read.
        """
        since_last_s = self._loop.time() - self._read_at
        if since_last_s < FRAME_S and not self._outcome.done():
            await self._woken_within(FRAME_S - since_last_s)
        if not self._pieces and not self._outcome.done():
            await self._news(timeout_s)
        self._read_at = self._loop.time()
        is_done = self._outcome.done()  # before the pieces are taken: after it, none is added
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        return None if is_done and not pieces else pieces

    async def _news(self, timeout_s: float) -> None:
        """Wait for a piece or the end."""
        self._wants_pieces = True
        if not self._pieces:  # else one came before it could be told that it is waited for
            await self._woken_within(timeout_s)
        self._wants_pieces = False

    async def _woken_within(self, timeout_s: float) -> None:
        # A bare future and timer: `asyncio.wait_for` would be a task a token.
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def result(self) -> Answered:
        """The finished answer; raises what the answerer raised."""
        return await asyncio.shield(self._outcome)

    def _settle(self, outcome: Answered | BaseException) -> None:
        if not self._outcome.done():
            if isinstance(outcome, Answered):
                self._outcome.set_result(outcome)
            else:
                self._outcome.set_exception(outcome)
        self._wake()

    def _work(self) -> None:
        started = time.perf_counter()
        try:
            self._answer_traced()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
            self._call_soon(self._settle, error)
        finally:
            self._call_soon(self._on_end, time.perf_counter() - started)

    def _answer_traced(self) -> None:
        request = self._asked.body
        name = "predict_stream" if self._asked.stream else "predict"
        with mlflow.start_span(name, span_type=SpanType.AGENT) as span:
            self.trace_id = describe_trace(span, request, self._request_id)
            try:
                self._raise_if_stopped()
                with stopping(self._raise_if_stopped):
                    answer = self._agent.respond(request, self._emit if self._asked.stream else None)
                self._raise_if_stopped()
            except StreamAbandonedError:
                span.set_outputs({"output": [create_text_output_item(self._said, self._item_id)]})
                raise _StoppedError(f"cancelled: {self._stopped}") from None
            # Before the trace is finished, which takes as long as a dozen tokens and concerns no client.
            self._call_soon(self._settle, Answered(answer, self.trace_id))
            if self.trace_id:
                span.set_outputs(render_response(answer, self._item_id).model_dump(exclude_none=True))

    def _emit(self, piece: Piece) -> None:
        self._raise_if_stopped()
        if isinstance(piece, str):
            self._said += piece
        self._pieces.append(piece)
        if self._wants_pieces:
            self._wants_pieces = False  # one wake-up for all that comes until the loop gets to it
            self._call_soon(self._wake)

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise StreamAbandonedError

    def _call_soon(self, callback: Callable[..., None], *args: object) -> None:
        # After the loop is closed there is nobody left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)


class _StoppedError(Exception):
    """The answer was stopped; its client has left or was told why."""

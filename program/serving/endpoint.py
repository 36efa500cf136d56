"""`POST /responses`: from a request's bytes to an answer's, whole or streamed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from mlflow.genai.agent_server.server import RETURN_TRACE_HEADER
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from program.agent import CitingAgent, new_item_id
from program.serving.admission import Admission
from program.serving.answering import Answered, Answering
from program.serving.asking_user import ask_as, user_by_header
from program.serving.events import DONE, KEEP_ALIVE, ResponseEvents, encode_events, encode_json
from program.serving.failures import Failure, internal_error, to_failure
from program.serving.guard import ROUTE_KEY, request_id_of
from program.serving.metrics import Metrics
from program.serving.readiness import ModelHealth
from program.serving.requests import AnswerRequest, parse_answer_request
from retrieval.asking_user import USER_TOKEN_HEADER, asking_for
from retrieval.errors import LanguageModelError

logger = logging.getLogger(__name__)

HEADERS_AFTER_S = 2.0
"""An answer of which nothing has come by then is begun without, and a failure is told inside the stream."""

KEEP_ALIVE_S = 15.0

_CANCEL_AGAIN_S = 0.05

TRACE_ID_HEADER = "x-mlflow-trace-id"


class AnswerEndpoint:
    """An ASGI application that answers requests for one agent.

    Not a FastAPI handler: it has to hear that a client has left while it waits, and to send many small
    pieces quickly.
    """

    def __init__(
        self,
        agent: CitingAgent,
        *,
        model: str,
        admission: Admission,
        executor: Executor,
        deadline_s: float,
        metrics: Metrics,
        health: ModelHealth | None = None,
        user_header: str | None = None,
    ) -> None:
        """`model` is the name that a streamed response bears until its answer says who wrote it.

        An answer must be finished `deadline_s` after its request, waiting in the queue included. `user_header` is
        where a proxy says who asks, whatever the request says; None where the request is believed.
        """
        self._agent = agent
        self._model = model
        self._admission = admission
        self._executor = executor
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._health = health
        self._user_header = user_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[ROUTE_KEY] = scope["path"]
        exchange = _Exchange(send)
        started = time.perf_counter()
        try:
            asked = parse_answer_request(await _read_body(receive))
            headers = Headers(scope=scope)
            exchange.wants_trace_id = headers.get(RETURN_TRACE_HEADER, "").lower() == "true"
            if self._user_header is not None:
                asked = replace(asked, body=ask_as(asked.body, user_by_header(headers, self._user_header)))
        except _ClientLeftError:
            return
        except Exception as error:  # noqa: BLE001 - to_failure tells a client's mistake from ours
            await self._fail(exchange, scope, error)
            return
        # The task takes a copy of the context with it, and its worker another.
        with asking_for(headers.get(USER_TOKEN_HEADER)):
            work = asyncio.create_task(self._answer(exchange, asked, request_id_of(scope), started))
        leaving = asyncio.create_task(_client_leaves(receive))
        try:
            await asyncio.wait((work, leaving), timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await self._finish(exchange, scope, work)
            elif leaving.done():
                if await _cancel(work, exchange, "the client left"):
                    self._metrics.failures.labels("cancelled").inc()
            elif await _cancel(work, exchange, "the deadline passed"):
                await self._tell(exchange, _deadline_exceeded(self._deadline_s))
        finally:
            leaving.cancel()
            if not work.done():  # the server itself is being ended
                await _cancel(work, exchange, "the server stopped")
        if work.done() and not work.cancelled() and not work.exception():
            mode = "stream" if asked.stream else "whole"
            self._metrics.answers.labels(mode).observe(time.perf_counter() - started)

    async def _answer(
        self, exchange: _Exchange, asked: AnswerRequest, request_id: str, started: float
    ) -> None:
        await self._admission.enter()
        item_id = new_item_id()
        exchange.answering = answering = Answering(
            self._agent,
            asked,
            item_id=item_id,
            request_id=request_id,
            executor=self._executor,
            on_end=self._admission.leave,
        )
        exchange.events = ResponseEvents(item_id, self._model)
        if asked.stream:
            answered = await self._stream(exchange, answering, started)
        else:
            answered = await answering.result()
            await exchange.send_json(200, exchange.events.whole(answered.answer, exchange.trace_id()))
        self._count(answered)

    async def _stream(self, exchange: _Exchange, answering: Answering, started: float) -> Answered:
        pieces = await answering.pieces(HEADERS_AFTER_S)
        if pieces is None:
            # Nothing was said: either it failed, which a status can still tell, or it is empty.
            await answering.result()
        await exchange.open_stream()
        is_first = True
        while pieces is not None:
            if pieces and is_first:
                self._metrics.first_token.observe(time.perf_counter() - started)
                is_first = False
            await exchange.send_chunk(encode_events(exchange.events.pieces(pieces)) if pieces else KEEP_ALIVE)
            pieces = await answering.pieces(KEEP_ALIVE_S)
        answered = await answering.result()
        await exchange.close_stream(answered)
        return answered

    async def _finish(self, exchange: _Exchange, scope: Scope, work: asyncio.Task[None]) -> None:
        if (error := work.exception()) is not None:
            await self._fail(exchange, scope, error)

    async def _fail(self, exchange: _Exchange, scope: Scope, error: BaseException) -> None:
        failure = to_failure(error)
        if isinstance(error, LanguageModelError) and self._health:
            self._health.note(str(error))
        if failure is None:
            request_id = request_id_of(scope)
            logger.error("Request %s failed", request_id, exc_info=error)
            failure = internal_error(request_id)
        await self._tell(exchange, failure)

    async def _tell(self, exchange: _Exchange, failure: Failure) -> None:
        self._metrics.failures.labels(failure.code).inc()
        await exchange.tell(failure)

    def _count(self, answered: Answered) -> None:
        answer = answered.answer
        self._metrics.tokens.labels("input").inc(answer.usage.get("prompt_tokens", 0))
        self._metrics.tokens.labels("output").inc(answer.usage.get("completion_tokens", 0))
        if answer.fallback_reason:
            self._metrics.fallbacks.inc()
        if self._health:
            self._health.note(None)


class _Exchange:
    """What has been sent to one client so far, and how to go on."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_streaming = False
        self.wants_trace_id = False
        self.answering: Answering | None = None
        self.events: ResponseEvents

    async def send_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = encode_json(body)
        await self._start(
            status, "application/json", {"content-length": str(len(content)), **(headers or {})}
        )
        await self._send({"type": "http.response.body", "body": content})

    async def open_stream(self) -> None:
        await self._start(200, "text/event-stream", {"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._is_streaming = True
        await self.send_chunk(encode_events(self.events.opening(self.trace_id())))

    async def send_chunk(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def close_stream(self, answered: Answered) -> None:
        trace_id = self.trace_id()
        closing = encode_events(self.events.closing(answered.answer, trace_id))
        # As MLflow's own agent server tells it, after everything that the OpenAI client reads.
        told = b"data: %s\n\n" % encode_json({"trace_id": trace_id}) if trace_id else b""
        await self._send({"type": "http.response.body", "body": closing + told + DONE})

    async def tell(self, failure: Failure) -> None:
        """Say why there is no answer, or no more of it."""
        if not self._is_streaming:
            await self.send_json(failure.status, failure.body(), failure.headers())
            return
        event = self.events.failed(failure)
        if trace_id := self.trace_id():
            event["trace_id"] = trace_id
        await self._send({"type": "http.response.body", "body": encode_events(iter((event,))) + DONE})

    def trace_id(self) -> str | None:
        """The trace's id, where it is asked for and known."""
        return self.answering.trace_id if self.wants_trace_id and self.answering else None

    async def _start(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        all_headers = {"content-type": content_type, **headers}
        if trace_id := self.trace_id():
            all_headers[TRACE_ID_HEADER] = trace_id
        encoded = [(name.lower().encode(), value.encode()) for name, value in all_headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


class _ClientLeftError(Exception):
    """The client was gone before its request was complete."""


async def _read_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientLeftError
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(work: asyncio.Task[None], exchange: _Exchange, reason: str) -> bool:
    """End the work; False when it has come to its own end meanwhile."""
    if exchange.answering is not None:
        exchange.answering.stop(reason)
    while not work.done():
        work.cancel()
        # Again, since `wait_for` before Python 3.12 forgets a cancellation when what it waits for has come.
        await asyncio.wait((work,), timeout=_CANCEL_AGAIN_S)
    return work.cancelled() or work.exception() is not None


def _deadline_exceeded(deadline_s: float) -> Failure:
    return Failure(504, "deadline_exceeded", f"The answer was not finished within {deadline_s:g} seconds.")

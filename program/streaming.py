"""Tokens as they come, without asyncio: a tee on the language model's engine.

DSPy has one way to stream, `streamify`, which runs an event loop and cannot serve many threads (its
synchronous form hangs the process when more run than it has workers). An engine is DSPy's public seam
below the cache and the retries. `TeeEngine` streams from the engine that it wraps, hands each piece of
text to whoever listens in this context, and returns the assembled response as if nothing had happened:
the same program, prompts and cache keys serve both ways of calling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from dspy.lm15 import ProviderError, Request, Response, ResponseStream

from program.types import Emit, Piece

Listener = Callable[[str], None]
_listener: ContextVar[Listener | None] = ContextVar("citeqa_listener", default=None)
_emit: ContextVar[Emit | None] = ContextVar("citeqa_emit", default=None)


@contextmanager
def emitting(emit: Emit | None) -> Iterator[None]:
    """Within, in this thread and context, readers hand the pieces of their answer to `emit` as they come.

    A context rather than a parameter: DSPy modules are called with the inputs of their signature alone,
    which is what its optimizers, its callbacks and the trace record.
    """
    token = _emit.set(emit)
    try:
        yield
    finally:
        _emit.reset(token)


def emit_pieces(pieces: Sequence[Piece]) -> None:
    """Hand pieces of the answer to whoever wants them in this context; nobody is fine."""
    emit = _emit.get()
    if emit is not None:
        for piece in pieces:
            emit(piece)


def somebody_waits() -> bool:
    """Whether pieces are wanted as they come."""
    return _emit.get() is not None


class Engine(Protocol):
    """What DSPy asks of an engine: one attempt, whole or streamed."""

    def complete(self, request: Request) -> Response:
        """One response."""
        ...

    def stream(self, request: Request) -> Any:
        """The events of one response."""
        ...


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within, in this thread and context, `listener` is given each piece of language-model text as it comes.

    What the listener raises ends the call: a client that left stops the language model within a token.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class TeeEngine:
    """A DSPy engine that behaves like the one it wraps, and lets a listener hear the text meanwhile."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def complete(self, request: Request) -> Response:
        """One response; streamed underneath when somebody listens.

        Raises:
            dspy.lm15.ProviderError: when the stream breaks after text was heard. The error is of a kind
                that DSPy does not retry: a second attempt would say the beginning twice.
        """
        listener = _listener.get()
        if listener is None:
            return self._inner.complete(request)
        heard = False
        try:
            with ResponseStream(self._inner.stream(request), request) as stream:
                for text in stream:
                    heard = heard or bool(text)
                    listener(text)
                return stream.response
        except Exception as error:
            if not heard:
                raise
            raise ProviderError(f"the answer was cut off: {error}") from error

    def stream(self, request: Request) -> Any:
        """The wrapped engine's events, unchanged."""
        return self._inner.stream(request)


class StreamAbandonedError(BaseException):
    """The listener has gone. Not an `Exception`, so that no retry or fallback swallows it."""


class FieldText:
    """Picks one output field's text out of a streamed completion in DSPy's chat format.

    The format puts `[[ ## name ## ]]` at the start of a line before each field. Leading and trailing white
    space is dropped as the adapter's own parser does, so that the pieces add up to the parsed field. A
    completion in another format yields nothing.
    """

    _HEADER = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\]", re.MULTILINE)

    def __init__(self, name: str) -> None:
        self._name = name
        self._completion = ""
        self._field_start: int | None = None
        self._given = 0
        self._done = False

    def feed(self, delta: str) -> str:
        """The part of the field that is certain once `delta` is known; empty outside the field."""
        if self._done:
            return ""
        self._completion += delta
        if self._field_start is None and not self._enter():
            return ""
        next_header = self._HEADER.search(self._completion, self._given)
        self._done = next_header is not None
        return self._give(next_header.start() if next_header else self._line_end())

    def _enter(self) -> bool:
        headers = self._HEADER.finditer(self._completion)
        end = next((header.end() for header in headers if header.group(1) == self._name), None)
        self._field_start = end
        self._given = end or 0
        return end is not None

    def _line_end(self) -> int:
        """How far the completion is certain: not into a last line that may become a header."""
        assert self._field_start is not None
        line_start = max(self._completion.rfind("\n") + 1, self._field_start)
        last_line = self._completion[line_start:].lstrip(" \t")
        at_line_start = line_start > self._field_start
        held_back = at_line_start and (last_line.startswith("[[") or last_line == "[")
        return line_start if held_back else len(self._completion)

    def _give(self, end: int) -> str:
        text = self._completion[self._given : end].rstrip()
        skipped = 0
        if self._field_start == self._given:
            stripped = text.lstrip()
            skipped = len(text) - len(stripped)
            text = stripped
        if text:
            self._given += skipped + len(text)
        return text

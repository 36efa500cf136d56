"""Tokens as they come, without asyncio: a tee on the language model's engine.

DSPy has one way to stream, `streamify`, which runs an event loop and cannot serve many threads (its
synchronous form hangs the process when more run than it has workers). An engine is DSPy's public seam
below the cache and the retries. `TeeEngine` streams from the engine that it wraps, hands each piece of
text to whoever listens in this context, and returns the assembled response as if nothing had happened:
the same program, prompts and cache keys serve both ways of calling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from dspy.lm15 import ProviderError, Request, Response, ResponseStream

from program.call_notes import note_calls
from program.lm_errors import hide_secrets_in
from program.types import Emit, Piece

Listener = Callable[[str], None]
"""Takes the text of completions, piece by piece."""

_listening: ContextVar[tuple[Listener, Callable[[], None]] | None] = ContextVar(
    "citeqa_listening", default=None
)
_emit: ContextVar[Emit | None] = ContextVar("citeqa_emit", default=None)
_check: ContextVar[Callable[[], None]] = ContextVar("citeqa_stop_check", default=lambda: None)


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


@contextmanager
def stopping(check: Callable[[], None]) -> Iterator[None]:
    """Within, in this thread and context, `check` is called between the steps of an answer that has several.

    It raises `StreamAbandonedError` to stop one whose pieces nobody is given, so that no piece can stop it.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def stop_if_abandoned() -> None:
    """Between two steps: end here, if nobody waits for the answer any more."""
    _check.get()()


def somebody_waits() -> bool:
    """Whether pieces are wanted as they come."""
    return _emit.get() is not None


@contextmanager
def watching_emits() -> Iterator[Callable[[], bool]]:
    """Within, pieces go where they went before; the function given says whether any has."""
    emit = _emit.get()
    emitted = False

    def note(piece: Piece) -> None:
        nonlocal emitted
        emitted = True
        if emit is not None:
            emit(piece)

    with emitting(note if emit is not None else None):
        yield lambda: emitted


class Engine(Protocol):
    """What DSPy asks of an engine: one attempt, whole or streamed."""

    def complete(self, request: Request) -> Response:
        """One response."""
        ...

    def stream(self, request: Request) -> Any:
        """The events of one response."""
        ...


@contextmanager
def listening(listener: Listener, on_begin: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within, in this thread and context, `listener` is given each piece of language-model text as it comes.

    `on_begin` is called before each completion: a retry, or a fallback to another format, is one of its
    own. What either raises ends the call: a client that left stops the language model within a token.
    """
    token = _listening.set((listener, on_begin))
    try:
        yield
    finally:
        _listening.reset(token)


class TeeEngine:
    """A DSPy engine that behaves like the one it wraps, and lets a listener hear the text meanwhile."""

    supports_function_calling = True
    """DSPy asks this of an engine before an adapter offers tools natively, which none does unless it is told to."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def complete(self, request: Request) -> Response:
        """One response; streamed underneath when somebody listens.

        Raises:
            dspy.lm15.ProviderError: when the stream breaks after text was heard. The error is of a kind
                that DSPy does not retry: a second attempt would say the beginning twice.
        """
        listening = _listening.get()
        try:
            response = self._tee(request, *listening) if listening else self._inner.complete(request)
            note_calls(calls=1)
            return response
        except Exception as error:
            hide_secrets_in(error)
            raise

    def _tee(self, request: Request, listener: Listener, on_begin: Callable[[], None]) -> Response:
        on_begin()
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

    def __deepcopy__(self, memo: Mapping[int, Any]) -> TeeEngine:
        """Itself: DSPy's optimizers copy programs, and an engine holds connections, not state."""
        return self


class StreamAbandonedError(BaseException):
    """The listener has gone. Not an `Exception`, so that no retry or fallback swallows it."""


class FieldText:
    """Picks one output field's text out of a streamed completion in DSPy's chat format.

    The format puts `[[ ## name ## ]]` at the start of a line before each field. Lines, headers and white
    space are read as `dspy.ChatAdapter.parse` reads them, so that the pieces add up to the start of the
    parsed field; only a last line that may become a header is missing. A completion in another format
    yields nothing.
    """

    _HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
    _MAY_BECOME_HEADER = re.compile(
        r"(?:\[{0,2}|\[\[ #{0,2}|\[\[ ## \w*|\[\[ ## \w+ #{0,2}|\[\[ ## \w+ ## \]?)\Z"
    )

    def __init__(self, name: str) -> None:
        self._name = name
        self._found = False
        self._inside = False
        self._line = ""
        self._line_has_header = False
        self._line_read = 0
        self._white_space = ""
        self._is_empty = True

    def feed(self, delta: str) -> str:
        """The part of the field that is certain once `delta` is known; empty outside the field."""
        *ended, self._line = _split_lines(self._line + delta)
        text = "".join([self._read(line) + self._end_line() for line in ended])
        # A line that ends in \r may go on with \n.
        unfinished = self._line.removesuffix("\r")
        if self._MAY_BECOME_HEADER.match(unfinished.lstrip()):
            return text
        return text + self._read(unfinished)

    def _read(self, line: str) -> str:
        """What is new of a line that may have been read in part before."""
        header = self._HEADER.match(line.strip())
        if header and not self._line_has_header:
            self._line_has_header = True
            self._inside = header.group(1) == self._name and not self._found
            self._found = self._found or self._inside
        # As DSPy does it: the offset in the stripped line is applied to the line as it is.
        content = line[header.end() :].lstrip() if header else line
        new = content[self._line_read :]
        self._line_read = len(content)
        return self._give(new) if self._inside else ""

    def _end_line(self) -> str:
        # After a header, the rest of its line is stripped.
        self._white_space = "\n" if self._line_has_header else self._white_space + "\n"
        self._line_has_header = False
        self._line_read = 0
        return ""

    def _give(self, new: str) -> str:
        """`new` up to its last visible character; white space waits for something to stand before."""
        text = self._white_space + new
        certain = text.rstrip()
        self._white_space = text[len(certain) :]
        if self._is_empty:
            certain = certain.lstrip()
        self._is_empty = self._is_empty and not certain
        return certain


def _split_lines(text: str) -> list[str]:
    """The lines of `text` without their ends; the last one, perhaps empty, is not ended yet."""
    lines = text.splitlines(keepends=True)
    is_open = bool(lines) and (lines[-1].endswith("\r") or lines[-1].splitlines() == [lines[-1]])
    unfinished = lines.pop() if is_open else ""
    return [*(line.splitlines()[0] for line in lines), unfinished]

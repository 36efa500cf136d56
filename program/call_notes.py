"""What language-model calls did while something else was measured: how many, how long they waited or would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class CallNotes:
    """The calls of a context.

    Attributes:
        calls: how many were answered, replayed ones included.
        replayed: how many of them were answered from a record.
        replayed_ms: what those took when they were first made.
        waited_ms: what calls waited because the provider was busy, a ceiling was reached, or another thread was
            making the same call.
    """

    calls: int = 0
    replayed: int = 0
    replayed_ms: float = 0.0
    waited_ms: float = 0.0

    def would_take_ms(self, measured_ms: float) -> float:
        """What was measured, had each call been made and none had waited."""
        return max(0.0, measured_ms - self.waited_ms) + self.replayed_ms


_notes: ContextVar[CallNotes | None] = ContextVar("citeqa_call_notes", default=None)
_waited_ms: ContextVar[float] = ContextVar("citeqa_calls_waited_ms", default=0.0)
# Copies of a context, one for each thread, share their notes.
_lock = threading.Lock()


@contextmanager
def noting_calls() -> Iterator[CallNotes]:
    """Within, in this context and its copies, calls are noted. Nested, the outer notes hold the inner ones, too."""
    outer, notes = _notes.get(), CallNotes()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)
        if outer is not None:
            _add(outer, notes)


def note_calls(
    *, calls: int = 0, replayed: int = 0, replayed_ms: float = 0.0, waited_ms: float = 0.0
) -> None:
    """Add to the notes of this context; where nobody takes any, nothing happens."""
    _waited_ms.set(_waited_ms.get() + waited_ms)
    notes = _notes.get()
    if notes is not None:
        _add(notes, CallNotes(calls, replayed, replayed_ms, waited_ms))


def waited_ms_so_far() -> float:
    """What calls of this context have waited since it began, for differences."""
    return _waited_ms.get()


def _add(notes: CallNotes, more: CallNotes) -> None:
    with _lock:
        notes.calls += more.calls
        notes.replayed += more.replayed
        notes.replayed_ms += more.replayed_ms
        notes.waited_ms += more.waited_ms

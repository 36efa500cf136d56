"""Whether answers can be given: is the index there, and does the language model answer?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from program.lm_errors import hide_secrets

FAILURES_UNTIL_NOT_READY = 3
"""Calls of the language model in a row, without an answer between them, after which it counts as unusable."""

CHECK_AGAIN_AFTER_S = 15.0


class ModelHealth:
    """What is known of the language model from the answers that it gave or did not give.

    Asking it costs money, so it is asked for this purpose only when it has failed and a while has passed.
    """

    def __init__(self, probe: Callable[[], None] | None) -> None:
        """`probe` asks the model something short and raises what it raises; None where there is no model."""
        self._probe = probe
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""
        self._checked_s = 0.0

    def note(self, failure: str | None) -> None:
        """An answer came (None), or failed for this reason."""
        with self._lock:
            self._failures = self._failures + 1 if failure else 0
            self._reason = failure or ""
            self._checked_s = time.monotonic()

    def trouble(self) -> str:
        """Why the model is not usable; empty when it is, or nothing is known against it. May ask the model."""
        if self._probe is not None and self._is_due():
            try:
                self._probe()
                self.note(None)
            except Exception as error:  # noqa: BLE001 - whatever it is, the model did not answer
                self.note(hide_secrets(str(error)).partition("\n")[0])
        with self._lock:
            return self._reason if self._failures >= FAILURES_UNTIL_NOT_READY else ""

    def _is_due(self) -> bool:
        with self._lock:
            is_failing = self._failures >= FAILURES_UNTIL_NOT_READY
            due = is_failing and time.monotonic() - self._checked_s >= CHECK_AGAIN_AFTER_S
            if due:  # one asks, and the others go by what is known
                self._checked_s = time.monotonic()
            return due

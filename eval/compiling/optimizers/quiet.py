"""DSPy's optimizers talk: they print, log and draw bars. Here it all goes to one logger, and stdout stays clean."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

logger = logging.getLogger("eval.compiling.optimizers")


@contextmanager
def speaking_to_the_log() -> Iterator[None]:
    """Within, what is printed, warned of and logged by DSPy is logged at INFO by `eval.compiling.optimizers`.

    It holds for the process: standard output is one for all threads. Whoever draws progress on the screen takes hold
    of the stream before.
    """
    dspy_logger = logging.getLogger("dspy")
    handlers, dspy_logger.handlers = dspy_logger.handlers, [_ToLog()]
    printed = _Printed()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("default")
            warnings.showwarning = lambda message, *_: logger.info("%s", message)
            yield
    finally:
        dspy_logger.handlers = handlers


class _ToLog(logging.Handler):
    """Hands what DSPy logs to our logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if text := record.getMessage().strip():
            logger.info("%s: %s", record.name, text)


class _Printed(io.TextIOBase):
    """A stream whose lines are logged. Bars, which begin a line anew, are dropped."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        state: dict[str, Any] = self._of_thread.__dict__
        # A handler of the log that writes to where sys.stderr now is comes back here.
        if not state.get("logging"):
            *lines, state["rest"] = (state.get("rest", "") + text).split("\n")
            state["logging"] = True
            try:
                for line in lines:
                    if line.strip() and "\r" not in line:
                        logger.info("%s", line.strip())
            finally:
                state["logging"] = False
        return len(text)

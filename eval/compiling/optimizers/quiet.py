"""DSPy's optimizers talk: they print, log and draw bars. Here it all goes to one logger, and stdout stays clean."""

from __future__ import annotations

import importlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from tqdm import tqdm

logger = logging.getLogger("eval.compiling.optimizers")


@contextmanager
def speaking_to_the_log() -> Iterator[None]:
    """Within, what DSPy prints, warns of and logs is logged at INFO by `eval.compiling.optimizers`.

    It holds for the process: standard output is one for all threads. Standard error is left to whoever shows progress.
    """
    dspy_logger = logging.getLogger("dspy")
    handlers, dspy_logger.handlers = dspy_logger.handlers, [_ToLog()]
    try:
        with _without_bars(), warnings.catch_warnings(), redirect_stdout(_Printed()):
            warnings.simplefilter("default")
            warnings.showwarning = lambda message, *_: logger.info("%s", message)
            yield
    finally:
        dspy_logger.handlers = handlers


@contextmanager
def _without_bars() -> Iterator[None]:
    """Within, the two optimizers that draw bars on standard error, whatever they are told, draw none."""
    modules = [importlib.import_module("dspy.teleprompt.bootstrap")]
    if find_spec("gepa") is not None:
        modules.append(importlib.import_module("gepa.core.engine"))
    bars = [module.__dict__["tqdm"] for module in modules]
    try:
        for module, bar in zip(modules, bars, strict=True):
            silent = partial(tqdm, disable=True)
            module.__dict__["tqdm"] = SimpleNamespace(tqdm=silent) if isinstance(bar, ModuleType) else silent
        yield
    finally:
        for module, bar in zip(modules, bars, strict=True):
            module.__dict__["tqdm"] = bar


class _ToLog(logging.Handler):
    """Hands what DSPy logs to our logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if text := record.getMessage().strip():
            logger.info("%s: %s", record.name, text)


class _Printed(io.TextIOBase):
    """A stream whose lines are logged. Bars (those of `dspy.Evaluate`), which begin a line anew, are dropped."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        state: dict[str, Any] = self._of_thread.__dict__
        # A handler of the log that writes to where sys.stdout now is comes back here.
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

"""What an optimizer asks of language models: counted, priced, and stopped where its limits are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspy.lm15 import Request, Response

from eval.compiling.specification import Limits
from eval.sweep.results import NOTHING, Spending, add
from program.prices import usd
from program.settings import LanguageModelSettings
from program.streaming import Engine
from retrieval.errors import CiteqaError


class LimitReachedError(CiteqaError):
    """A limit of the specification is reached; says which. No further call is made."""


@dataclass(frozen=True, slots=True)
class Metered:
    """What was asked so far, of the models together. `failed` calls cost what nobody knows."""

    spent: Spending = NOTHING
    failed: int = 0


class Meter:
    """Counts the calls of several engines together. Safe to use from many threads at once."""

    def __init__(self, limits: Limits, on_call: Callable[[Metered], None] = lambda _: None) -> None:
        self._limits = limits
        self._on_call = on_call
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._metered = Metered()
        self.reached = ""

    @property
    def so_far(self) -> Metered:
        """What was asked so far."""
        return self._metered

    def check(self) -> None:
        """Raise LimitReachedError where a limit is reached."""
        if reason := self.reached or self._reason():
            self.reached = reason
            raise LimitReachedError(reason)

    def count(self, settings: LanguageModelSettings, usage: Mapping[str, int]) -> None:
        """A call was answered."""
        price = usd(usage, settings)
        spending = Spending(price, usage.get("input_tokens", 0), usage.get("output_tokens", 0), 1)
        with self._lock:
            self._metered = Metered(add(self._metered.spent, spending), self._metered.failed)
        self._on_call(self._metered)

    def count_failure(self) -> None:
        """A call failed."""
        with self._lock:
            self._metered = Metered(self._metered.spent, self._metered.failed + 1)

    def _reason(self) -> str:
        spent, limits = self._metered.spent, self._limits
        tokens = spent.input_tokens + spent.output_tokens
        minutes = (time.monotonic() - self._began) / 60
        if limits.calls is not None and spent.calls >= limits.calls:
            return f"the limit of {limits.calls:,} language-model calls is reached"
        if limits.usd is not None and (spent.usd or 0) >= limits.usd:
            return f"the limit of {limits.usd} USD is reached"
        if limits.tokens is not None and tokens >= limits.tokens:
            return f"the limit of {limits.tokens:,} tokens is reached"
        if limits.minutes is not None and minutes >= limits.minutes:
            return f"the limit of {limits.minutes:g} minutes is reached"
        return ""


class MeteredEngine:
    """A DSPy engine below what is recorded: only calls that are really made come here."""

    def __init__(self, inner: Engine, meter: Meter, settings: LanguageModelSettings) -> None:
        self._inner = inner
        self._meter = meter
        self._settings = settings

    def complete(self, request: Request) -> Response:
        """One response.

        Raises:
            LimitReachedError: in place of a call beyond the limits.
        """
        self._meter.check()
        try:
            response = self._inner.complete(request)
        except Exception:
            self._meter.count_failure()
            raise
        self._meter.count(self._settings, _usage(response))
        return response

    def stream(self, request: Request) -> Iterator[Any]:
        """The events of one response, counted at their end where they say their usage. Raises as `complete`."""
        self._meter.check()
        yield from self._inner.stream(request)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> MeteredEngine:
        """Itself: DSPy's optimizers copy programs, and copies are counted together."""
        return self


def _usage(response: Response) -> dict[str, int]:
    usage = getattr(response, "usage", None)
    names = {"input_tokens": "input_tokens", "output_tokens": "output_tokens"}
    return {
        ours: int(value)
        for ours, theirs in names.items()
        if (value := getattr(usage, theirs, None)) is not None
    }

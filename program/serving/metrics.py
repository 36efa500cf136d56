"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "citeqa_requests", "Requests by route and status", ("route", "status"), registry=self._registry
        )
        self.failures = Counter(
            "citeqa_failures", "Answers that failed or broke off, by code", ("code",), registry=self._registry
        )
        self.first_token = Histogram(
            "citeqa_time_to_first_token_seconds",
            "From the request to the first text of a streamed answer",
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=self._registry,
        )
        self.answers = Histogram(
            "citeqa_answer_seconds",
            "From the request to the end of its answer",
            ("mode",),
            buckets=_ANSWER_BUCKETS_S,
            registry=self._registry,
        )
        self.tokens = Counter(
            "citeqa_tokens",
            "Tokens that the language model reported",
            ("direction",),
            registry=self._registry,
        )
        self.fallbacks = Counter(
            "citeqa_fallbacks", "Answers of the fallback reader", registry=self._registry
        )
        self.feedback = Counter("citeqa_feedback", "Feedback by value", ("value",), registry=self._registry)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def watch_count(self, name: str, description: str, outcomes: dict[str, Callable[[], float]]) -> None:
        """Counts kept elsewhere, by outcome."""
        gauge = Gauge(name, description, ("outcome",), registry=self._registry)
        for outcome, value in outcomes.items():
            gauge.labels(outcome).set_function(value)

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

"""Numbers and tables as a terminal shows them."""

from __future__ import annotations

from program.text_layout import table

__all__ = ["number", "p_value", "signed", "table"]

_DIGITS = {"latency_ms": 1, "usd": 6, "tokens": 0}


def number(metric: str, value: float) -> str:
    """A value of a metric with the digits that mean something."""
    return f"{value:.{_DIGITS.get(metric, 3)}f}"


def signed(metric: str, value: float) -> str:
    """A difference of a metric, with its sign."""
    return f"{'+' if value >= 0 else '−'}{number(metric, abs(value))}"


def p_value(p: float) -> str:
    """A p-value with the digits that mean something."""
    return "<.001" if p < 0.001 else f"{p:.3f}"

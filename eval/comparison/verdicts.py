"""What a difference says, in one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from eval.comparison.comparison import improvement
from eval.metric_names import is_lower_better
from eval.paired import PairedDifference
from eval.text_table import number, signed

Kind = Literal["better", "worse", "cannot be told", "the same"]
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether B is better than A in a metric, whatever direction of it is better; and the sentence that says so."""

    kind: Kind
    sentence: str


def judge(difference: PairedDifference) -> Verdict:
    """Better or worse where the corrected p-value is at most 5 %; else it cannot be told, and why."""
    kind = _kind(difference)
    said = {"better": _clear, "worse": _clear, "cannot be told": _unclear, "the same": _same}[kind]
    return Verdict(kind, f"{difference.metric}: {said(difference)}")


def _kind(difference: PairedDifference) -> Kind:
    if difference.wins == difference.losses == 0:
        return "the same"
    # A mean of exactly 0 has a p-value of 1, so that the sign is one.
    if difference.p_adjusted <= ALPHA:
        return "better" if improvement(difference).difference.mean > 0 else "worse"
    return "cannot be told"


def _clear(difference: PairedDifference) -> str:
    turned = improvement(difference)
    return (
        f"B is {_kind(difference)} by {number(difference.metric, abs(difference.difference.mean))} "
        f"({_range(difference)}; {_p(difference)}), better on {turned.wins} questions and "
        f"worse on {turned.losses}."
    )


def _unclear(difference: PairedDifference) -> str:
    return f"cannot be told. {_seen(difference)} may be chance ({_p(difference)}). {_power(difference)}"


def _seen(difference: PairedDifference) -> str:
    return f"{signed(difference.metric, difference.difference.mean)} ({_range(difference)})"


def _power(difference: PairedDifference) -> str:
    n, metric = difference.n, difference.metric
    if not isfinite(difference.detectable):
        return f"{n} questions are too few to show anything: it takes 6 that differ."
    shown = f"These {n} questions show a difference of {number(metric, difference.detectable)} or more"
    if difference.questions_needed is None:
        return f"{shown}."
    if difference.questions_needed <= n:
        return f"{shown} where it is tested alone, without the correction for several metrics."
    return f"{shown}; one like this needs about {difference.questions_needed:,}."


def _same(difference: PairedDifference) -> str:
    return f"no question differs ({difference.n} compared)."


def _range(difference: PairedDifference) -> str:
    interval, metric = difference.difference, difference.metric
    return f"{100 * interval.confidence:g} % interval {signed(metric, interval.low)} to {signed(metric, interval.high)}"


def _p(difference: PairedDifference) -> str:
    p = p_value(difference.p_adjusted)
    return f"p {p[0]} {p[1:]}" if p.startswith("<") else f"p = {p}"


def p_value(p: float) -> str:
    """A p-value with the digits that mean something."""
    return "<.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def arrow(metric: str) -> str:
    """The metric's name, marked where lower values are better."""
    return f"{metric} ↓" if is_lower_better(metric) else metric

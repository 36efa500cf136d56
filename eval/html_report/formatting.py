"""Numbers and names as the report writes them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from eval.sweep.results import Objective

_COUNTED = {"usd", "tokens", "latency_ms"}
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9d]")


def number(name: str, value: float | None) -> str:
    """The mean of a metric or of a cost, with its unit; a dash where there is none."""
    if value is None or value != value:
        return "–"
    match name:
        case "usd":
            return money(value)
        case "latency_ms":
            return f"{_plain(value)} ms"
        case "tokens":
            return _plain(value)
    return f"{value:.3f}".replace("-", "−")


def difference(name: str, value: float) -> str:
    """As `number`, with its sign."""
    text = number(name, abs(value))
    return text if not re.search(r"[1-9]", text) else ("+" if value > 0 else "−") + text


def interval(name: str, low: float, high: float, *, signed: bool = False) -> str:
    """`0.612 to 0.801`, `12.1 to 13.9 ms`."""
    write = difference if signed else number
    return f"{write(name, low).removesuffix(' ms')} to {write(name, high)}"


def share(value: float) -> str:
    """A share in percent."""
    return f"{value * 100:.0f}\u00a0%"


def scored(name: str, value: float | None) -> str:
    """A mean in a sentence: `0.436 fact_recall`, `12.1 ms a question`."""
    what = {"usd": "a question", "latency_ms": "a question", "tokens": "tokens a question"}.get(name, name)
    return f"{number(name, value)} {what}"


def p_value(value: float) -> str:
    """`p = 0.012`; `p < 0.001` below that."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def money(value: float | None) -> str:
    """US dollars, with three digits of what is small; `unknown` where no price is known."""
    if value is None:
        return "unknown"
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.3g}" if value >= 0.0001 else f"${value:.1e}"


def unit(name: str) -> str:
    """What an axis that shows the metric or the cost is called, with its unit."""
    return {
        "usd": "US dollars per question",
        "tokens": "tokens per question",
        "latency_ms": "latency per question, ms",
    }.get(name, f"{name}, mean over questions")


def is_counted(name: str) -> bool:
    """Whether it is money, tokens or time, rather than a share."""
    return name in _COUNTED


def direction(objective: Objective) -> str:
    """`lower is better` or `higher is better`."""
    return "lower is better" if objective.minimize else "higher is better"


def count(n: int, noun: str) -> str:
    """`1 question`, `2,000 questions`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def enumerate_names(names: Iterable[str], at_most: int = 6) -> str:
    """`#1, #2 and #3`; of many the first few and how many more."""
    listed = list(names)
    if len(listed) > at_most:
        shown = listed[: at_most - 1]
        return f"{', '.join(shown)} and {len(listed) - len(shown)} others"
    return " and ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]]))


def parameters(values: Mapping[str, Any]) -> str:
    """`retrieval.k=5, reader.max_sentences=2`."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def width(text: str) -> float:
    """About how wide text is set, in its font size: rather too much, since the reader's font is not known."""
    return sum(1.0 if c in "mwMW@%" or unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)


def shorten(text: str, em: float) -> str:
    """`text`, cut to about `em` times its font size, on one line."""
    text = " ".join(text.split())
    if width(text) <= em:
        return text
    while text and width(text) > em - 1:
        text = text[: -max(1, int((width(text) - em + 1) / 2))]
    return text.rstrip() + "…"


def language(text: str, tagged: str | None = None) -> str | None:
    """The language to declare for a text: Japanese by its kana, else what its tag says, if that is one."""
    if _KANA.search(text):
        return "ja"
    return tagged if tagged and _LANGUAGE.fullmatch(tagged) else None


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"

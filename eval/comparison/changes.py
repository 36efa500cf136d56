"""What became of each question: gained or lost, and why, with the evidence of both runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.comparison.comparison import Comparison
from eval.comparison.pairing import pair_values
from eval.metric_names import is_lower_better
from eval.uris import UriNormalization, uri_normalizer

_OWN_SCALE = frozenset({"latency_ms", "usd", "tokens"})
"""Metrics of no common scale with the others, and of differences that are noise for one question."""


@dataclass(frozen=True, slots=True)
class GoldChange:
    """One part of the gold (a document, or alternatives): its rank in A and in B, from 1; None if not retrieved."""

    doc_uris: Sequence[str]
    rank_a: int | None
    rank_b: int | None
    cited_a: bool
    cited_b: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one run did with a question. `error` says why it is unscored."""

    answer: str
    abstained: bool
    cited: Sequence[str]
    retrieved: Sequence[str]
    error: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class QuestionChange:
    """A question on which the runs differ.

    Attributes:
        gain: by how much B is better, in the metric that changed most; negative where it is worse.
        metrics: each headline metric that changed, with its values in A and B.
        reasons: why, in plain words, as far as the evidence shows it.
    """

    id: str
    question: str
    tags: Mapping[str, str]
    gain: float
    metrics: Mapping[str, tuple[float, float]]
    gold: Sequence[GoldChange]
    reasons: Sequence[str]
    a: Evidence
    b: Evidence

    @property
    def kind(self) -> str:
        """`gained` or `lost`."""
        return "gained" if self.gain > 0 else "lost"


def question_changes(
    comparison: Comparison,
    count: int | None = None,
    *,
    metrics: Sequence[str] | None = None,
    only: str | None = None,
) -> list[QuestionChange]:
    """The questions that changed in one of `metrics` (default: the headline), the most changed first.

    Each is weighed by the metric that changed most, then by all together; times and costs weigh nothing unless
    they are all there is. `only`: `gained` or `lost` ones. Evidence is read for these `count` questions alone.
    """
    metrics = _weighing(metrics or list(comparison.headline))
    if not metrics:
        return []
    a, b = (np.column_stack(columns) for columns in zip(*_values(comparison, metrics), strict=True))
    signs = np.array([-1.0 if is_lower_better(metric) else 1.0 for metric in metrics])
    gains = np.nan_to_num((b - a) * signs)
    gains[np.abs(gains) < 1e-9] = 0.0
    largest = gains[np.arange(len(gains)), np.abs(gains).argmax(axis=1)]
    order = np.lexsort((np.arange(len(gains)), -np.abs(gains).sum(axis=1), -np.abs(largest)))
    wanted = {"gained": largest > 0, "lost": largest < 0}.get(only or "", largest != 0)
    chosen = [int(row) for row in order if wanted[row]][:count]
    return [
        _describe(comparison, row, float(largest[row]), _changed(metrics, a[row], b[row], gains[row]))
        for row in chosen
    ]


def _weighing(metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if metric not in _OWN_SCALE] or list(metrics)


def _values(comparison: Comparison, metrics: Sequence[str]) -> list[tuple[Any, Any]]:
    pairs = [pair_values(comparison.a, comparison.b, comparison.pairing, metric) for metric in metrics]
    return [(pair.a, pair.b) for pair in pairs]


def _changed(metrics: Sequence[str], a: Any, b: Any, gains: Any) -> dict[str, tuple[float, float]]:
    rows = zip(metrics, a, b, gains, strict=True)
    return {metric: (float(x), float(y)) for metric, x, y, gain in rows if gain}


def _describe(
    comparison: Comparison, row: int, gain: float, metrics: Mapping[str, tuple[float, float]]
) -> QuestionChange:
    id_a, id_b = comparison.pairing.pairs[row]
    row_a, row_b = comparison.a.row(id_a), comparison.b.row(id_b)
    gold = _gold_changes(row_a, row_b, _normalizer(comparison))
    a, b = _evidence(row_a), _evidence(row_b)
    return QuestionChange(
        id=id_a,
        question=comparison.a.questions[id_a],
        tags=comparison.a.tags.get(id_a) or comparison.b.tags.get(id_b) or {},
        gain=gain,
        metrics=metrics,
        gold=gold,
        reasons=_reasons(gold, a, b),
        a=a,
        b=b,
    )


def _normalizer(comparison: Comparison) -> Callable[[str], str]:
    """The rule of the run, where it is known: what it was scored with."""
    return uri_normalizer(comparison.a.uris or comparison.b.uris or UriNormalization())


def _evidence(row: Mapping[str, Any]) -> Evidence:
    return Evidence(
        answer=str(row.get("answer") or ""),
        abstained=bool(row.get("abstained")),
        cited=tuple(row.get("cited_uris") or ()),
        retrieved=tuple(dict.fromkeys(found["doc_uri"] for found in row.get("retrieved") or ())),
        error=str(row.get("error") or ""),
        trace_id=str(row.get("trace_id") or ""),
    )


def _gold_changes(
    row_a: Mapping[str, Any], row_b: Mapping[str, Any], normalize: Callable[[str], str]
) -> list[GoldChange]:
    gold = row_a.get("gold") or row_b.get("gold") or []
    ranks_a, ranks_b = _ranks(row_a, normalize), _ranks(row_b, normalize)
    cited_a, cited_b = ({normalize(uri) for uri in row.get("cited_uris") or ()} for row in (row_a, row_b))
    changes = []
    for alternatives in gold:
        members = [normalize(uri) for uri in alternatives]
        changes.append(
            GoldChange(
                doc_uris=tuple(alternatives),
                rank_a=min((ranks_a[m] for m in members if m in ranks_a), default=None),
                rank_b=min((ranks_b[m] for m in members if m in ranks_b), default=None),
                cited_a=any(m in cited_a for m in members),
                cited_b=any(m in cited_b for m in members),
            )
        )
    return changes


def _ranks(row: Mapping[str, Any], normalize: Callable[[str], str]) -> dict[str, int]:
    """Each document's rank, by its first passage."""
    documents = dict.fromkeys(normalize(found["doc_uri"]) for found in row.get("retrieved") or ())
    return {uri: rank for rank, uri in enumerate(documents, start=1)}


def _reasons(gold: Sequence[GoldChange], a: Evidence, b: Evidence) -> list[str]:
    reasons = []
    for part in gold:
        name = " or ".join(part.doc_uris)
        if part.rank_a != part.rank_b:
            reasons.append(f"gold {name}: {_rank(part.rank_a)} → {_rank(part.rank_b)}")
        if part.cited_a != part.cited_b:
            reasons.append(f"gold {name}: {_cited(part.cited_a)} → {_cited(part.cited_b)}")
    if a.abstained != b.abstained:
        reasons.append(f"{_abstained(a)} → {_abstained(b)}")
    elif not reasons and set(a.cited) != set(b.cited):
        reasons.append(f"other citations: {len(a.cited)} → {len(b.cited)} documents")
    if not reasons and a.answer != b.answer:
        reasons.append("another answer from the same gold documents" if gold else "another answer")
    return reasons


def _rank(rank: int | None) -> str:
    return "not retrieved" if rank is None else f"rank {rank}"


def _cited(cited: bool) -> str:
    return "cited" if cited else "not cited"


def _abstained(evidence: Evidence) -> str:
    return "abstained" if evidence.abstained else "answered"

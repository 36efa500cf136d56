"""Pseudo-relevance feedback: what the first passages say often is searched for, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.analysis import analyze, content_terms
from retrieval.types import Passage

Weigh = Callable[[Sequence[str]], Sequence[float]]
"""The inverse document frequencies of terms, in order."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """How the first passages change a query: those of `passages` are read, their `terms` best terms are added.

    `weight` (0 to 1) is the part of the query that is theirs.

    Raises:
        ValueError: if a number is out of its range.
    """

    passages: int = 5
    terms: int = 10
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.passages < 1 or self.terms < 1:
            raise ValueError(f"feedback needs at least 1 passage and term, got {self.passages}, {self.terms}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, got {self.weight}")


def query_weights(query: str) -> dict[str, float]:
    """The terms of a query as a search asks for them: each as often as it is there."""
    return {term: float(count) for term, count in Counter(content_terms(analyze(query))).items()}


def expand_query(
    query: str, passages: Sequence[Passage], feedback: Feedback, weigh: Weigh
) -> dict[str, float]:
    """The weights of the query's own terms and of those that tell of its first passages (RM3, Abdul-Jaleel 2004).

    A term's part in a passage is its share of the passage's terms times its inverse document frequency, and a
    passage counts by its score. The sum of weights stays that of the query.
    """
    own = query_weights(query)
    best = [passage for passage in passages[: feedback.passages] if passage.score > 0]
    told = _told(best, weigh)
    chosen = sorted(told, key=lambda term: (-told[term], term))[: feedback.terms]
    total = sum(told[term] for term in chosen)
    if not own or not total:
        return own
    size = sum(own.values())
    weights = {term: (1 - feedback.weight) * count for term, count in own.items()}
    for term in chosen:
        weights[term] = weights.get(term, 0.0) + feedback.weight * size * told[term] / total
    return weights


def _told(passages: Sequence[Passage], weigh: Weigh) -> Mapping[str, float]:
    told: dict[str, float] = {}
    total = sum(passage.score for passage in passages)
    for passage in passages:
        counts = Counter(content_terms(analyze(passage.text)))
        length = sum(counts.values())
        for (term, count), idf in zip(counts.items(), weigh(list(counts)), strict=True):
            told[term] = told.get(term, 0.0) + passage.score / total * count / length * idf
    return told

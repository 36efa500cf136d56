"""Merge several rankings of the same things into one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import isfinite
from typing import Literal, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)

Ranking: TypeAlias = Sequence[tuple[K, float]]
"""Things with their scores, best first; each at most once."""

Method: TypeAlias = Literal["convex", "rrf"]

RANK_CONSTANT = 60
_DIGITS = 9
"""Scores are rounded to these, so that ties are ties in whatever order sums were taken."""


def fuse(method: Method, rankings: Sequence[Ranking[K]], weights: Sequence[float]) -> list[tuple[K, float]]:
    """The rankings as one, by `fuse_convex` or `fuse_reciprocal_rank`."""
    if method == "rrf":
        return fuse_reciprocal_rank(rankings, weights)
    return fuse_convex(rankings, weights)


def fuse_convex(rankings: Sequence[Ranking[K]], weights: Sequence[float]) -> list[tuple[K, float]]:
    """Merge by the weighted mean of scores, those of each ranking brought to 0 (its last) to 1 (its first).

    What a ranking does not hold scores 0 there: it is no better than its last. An empty ranking says nothing,
    and its weight goes to the others. Scores lie between 0 and 1; ties keep the order of the first ranking
    that tells, as in `fuse_reciprocal_rank`. (Bruch, Gai and Ingber, ACM TOIS 2023.)

    Raises:
        ValueError: if the weights are not one for each ranking, or one of them is negative or not finite.
    """
    shares = _shares(rankings, weights)
    return _merge(
        ((key, share * value) for key, value in normalize(ranking))
        for ranking, share in zip(rankings, shares, strict=True)
    )


def fuse_reciprocal_rank(
    rankings: Sequence[Ranking[K]], weights: Sequence[float], constant: int = RANK_CONSTANT
) -> list[tuple[K, float]]:
    """Merge by the weighted sum of 1 / (constant + rank), ranks from 1 (Cormack et al., SIGIR 2009).

    Scores are brought to between 0 and 1, which the first place in every ranking gets. Ties keep the order
    of the first ranking that tells.

    Raises:
        ValueError: as `fuse_convex`, or if `constant` is negative.
    """
    if constant < 0:
        raise ValueError(f"constant must be at least 0, got {constant}")
    shares = _shares(rankings, weights)
    return _merge(
        ((key, share * (constant + 1) / (constant + rank)) for rank, (key, _) in enumerate(ranking, start=1))
        for ranking, share in zip(rankings, shares, strict=True)
    )


def normalize(ranking: Ranking[K]) -> list[tuple[K, float]]:
    """The ranking with its scores brought to 0 (lowest) to 1 (highest); all 1 where they do not differ."""
    if not ranking:
        return []
    scores = [score for _, score in ranking]
    lowest, highest = min(scores), max(scores)
    if highest == lowest:
        return [(key, 1.0) for key, _ in ranking]
    # Halved, since the distance between two of the largest numbers is none.
    span = highest / 2 - lowest / 2
    return [(key, (score / 2 - lowest / 2) / span) for key, score in ranking]


def _shares(rankings: Sequence[Ranking[K]], weights: Sequence[float]) -> list[float]:
    """The weights of the rankings that hold something, adding up to 1."""
    if len(weights) != len(rankings):
        raise ValueError(f"{len(rankings)} rankings need as many weights, got {len(weights)}")
    if not all(isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be finite and at least 0, got {list(weights)}")
    telling = [weight if ranking else 0.0 for ranking, weight in zip(rankings, weights, strict=True)]
    total = sum(telling)
    return [weight / total if total else 0.0 for weight in telling]


def _merge(parts: Iterable[Iterable[tuple[K, float]]]) -> list[tuple[K, float]]:
    sums: dict[K, float] = {}
    for part in parts:
        for key, value in part:
            sums[key] = sums.get(key, 0.0) + value
    # Stable: what comes first in the first ranking stays first among equals.
    return sorted(((key, round(value, _DIGITS)) for key, value in sums.items()), key=lambda pair: -pair[1])

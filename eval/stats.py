"""Intervals for means over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_WEIGHTS_AT_ONCE = 4_000_000
_WEIGHTS_TO_KEEP = 500_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` questions and the interval that holds the true one with the stated confidence."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


def bootstrap_mean(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The mean of `values` with its percentile bootstrap interval (Efron, 1979); None without values.

    One value, or values that are all the same, give an interval of no width: the sample then holds no
    evidence of spread, so read `n` beside it. The same values, seed and resamples give the same interval.

    Percentile, not BCa: over skewed, bounded and binary values at n = 20, 60 and 160, BCa covered at most a
    few points more where values are continuous (.93 against .92, exponential, n = 60), and was erratic on
    the zeros and ones that most of our metrics are. With 2,000 resamples the ends leave 2.5 ± 0.35 %
    outside (one standard error): less than what either method misses by at our sizes.

    Raises:
        ValueError: if a value is not finite, or `confidence` is not between 0 and 1.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    if not len(column):
        return None
    return bootstrap_means(column, confidence=confidence, resamples=resamples, seed=seed)[0]


def bootstrap_means(
    columns: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """`bootstrap_mean` of each column of an (n, m) array, n ≥ 1, resampling whole rows.

    All columns share the resamples, which is what makes many metrics cheap. Raises as `bootstrap_mean`.
    """
    if not np.isfinite(columns).all():
        raise ValueError("values to average must be finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(columns, resamples, seed), [tail, 1 - tail], axis=0)
    return [
        _interval(column, float(column_low), float(column_high), confidence)
        for column, column_low, column_high in zip(columns.T, low, high, strict=True)
    ]


def _interval(column: NDArray[np.float64], low: float, high: float, confidence: float) -> Interval:
    # Rounding would give a constant column a width of some 1e-17.
    if column.min() == column.max():
        value = float(column[0])
        return Interval(value, value, value, len(column), confidence)
    return Interval(float(column.mean()), low, high, len(column), confidence)


def _resampled_means(columns: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    n = len(columns)
    if resamples * n <= _WEIGHTS_TO_KEEP:
        return _kept_counts(resamples, n, seed) @ columns / n
    rng = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _WEIGHTS_AT_ONCE // n))
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([_draw_counts(rng, size, n) @ columns / n for size in sizes])


# The slices of a run, and the runs of a sweep, are of the same few sizes.
@lru_cache(maxsize=32)
def _kept_counts(resamples: int, n: int, seed: int) -> NDArray[np.float64]:
    return _draw_counts(np.random.default_rng(seed), resamples, n)


def _draw_counts(rng: np.random.Generator, resamples: int, n: int) -> NDArray[np.float64]:
    """How often each of `n` rows was drawn in each resample: a (resamples, n) array."""
    drawn = rng.integers(0, n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)

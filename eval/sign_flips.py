"""The paired randomization test: how often would signs given by chance make a mean as large as the one seen?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXACT_OUTCOMES = 1 << 16
_SIGNS_AT_ONCE = 2_000_000
_ROUNDING = 1e-9


def sign_flip_p_values(columns: NDArray[np.float64], *, resamples: int, seed: int) -> list[float]:
    """Two-sided p-value of each column of an (n, m) array of paired differences, n ≥ 1, for a mean of 0.

    If neither of two systems is better, each difference is as likely to have the other sign (Fisher, 1935).
    The p-value is the share of all assignments of signs whose mean is at least as far from 0: exact where
    the distinct sums are few (16 differences that are not 0, or any number of differences of one size, as
    those of zeros and ones are: then it is McNemar's exact test), and else from `resamples` assignments
    drawn by chance, as (1 + as far) / (1 + resamples) (Phipson & Smyth, 2010), which is never 0.

    All columns share the draws, and each has the p-value that it has alone.
    """
    sums = [_distinct_sums(column) for column in columns.T]
    drawn = [place for place, exact in enumerate(sums) if exact is None]
    estimated = dict(zip(drawn, _estimate(columns[:, drawn], resamples, seed), strict=True))
    return [
        estimated[place] if exact is None else _share_as_far(column, *exact)
        for place, (column, exact) in enumerate(zip(columns.T, sums, strict=True))
    ]


def _distinct_sums(column: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Each sum that signs can make, with its probability; None where they are too many.

    Of `count` differences of one size, the number with a plus is binomial: one outcome for each number.
    """
    sizes, counts = _sizes(column)
    if np.log2(counts + 1).sum() > np.log2(EXACT_OUTCOMES):
        return None
    sums, shares = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        steps = size * (2.0 * np.arange(count + 1) - count)
        sums = np.add.outer(sums, steps).ravel()
        shares = np.multiply.outer(shares, _binomial(int(count))).ravel()
    return sums, shares


def _sizes(column: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct sizes of what is not 0, and how many of each; those that only rounding tells apart are one."""
    sizes = np.abs(column[column != 0])
    if not len(sizes):
        return sizes, np.zeros(0, dtype=np.int64)
    largest = sizes.max()
    found, counts = np.unique(np.round(sizes / largest, 12), return_counts=True)
    return found * largest, counts


def _binomial(count: int) -> NDArray[np.float64]:
    """The probability of each number of heads in `count` tosses."""
    tosses = np.arange(1, count + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(tosses[::-1]) - np.log(tosses))])
    weights = np.exp(logs - count * np.log(2))
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _share_as_far(
    column: NDArray[np.float64], sums: NDArray[np.float64], shares: NDArray[np.float64]
) -> float:
    far = np.abs(sums) >= abs(column.sum()) - _slack(column)
    return min(1.0, float(shares[far].sum()))


def _estimate(columns: NDArray[np.float64], resamples: int, seed: int) -> Sequence[float]:
    n, m = columns.shape
    if not m:
        return []
    rng = np.random.default_rng(seed)
    total = columns.sum(axis=0)
    least = np.abs(total) - np.array([_slack(column) for column in columns.T])
    as_far = np.zeros(m)
    at_once = max(1, _SIGNS_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        pluses = _coins(rng, min(at_once, resamples - start), n) @ columns
        as_far += (np.abs(2 * pluses - total) >= least).sum(axis=0)
    p_values: list[float] = ((1 + as_far) / (1 + resamples)).tolist()
    return p_values


def _coins(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """An array of zeros and ones by chance."""
    drawn = rng.integers(0, 256, size=(rows, -(-columns // 8)), dtype=np.uint8)
    return np.unpackbits(drawn, axis=1, count=columns).astype(np.float64)


def _slack(column: NDArray[np.float64]) -> float:
    # Sums of the same numbers in another order differ in their last digits, and are ties all the same.
    return _ROUNDING * float(np.abs(column).sum())

"""Is one configuration really better than another? Paired statistics over the same questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, copysign, inf, nan, sqrt
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.sign_flips import sign_flip_p_values
from eval.stats import RESAMPLES, Interval, bootstrap_means

K = TypeVar("K", bound=Hashable)

PERMUTATIONS = 10_000
FEWEST = 6
"""With fewer differences even the most extreme signs are no surprise at 5 %: 2 of 2**5 are as extreme."""

_MANY = 2_000
_ROUNDING = 1e-12
_Z_5_PERCENT = NormalDist().inv_cdf(0.975)
_Z_POWER = _Z_5_PERCENT + NormalDist().inv_cdf(0.8)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Metric values of B minus those of A on the `n` questions where both have one.

    Attributes:
        metric: its name.
        n: questions compared.
        mean_a, mean_b: means over these questions.
        difference: mean of the differences with its paired bootstrap interval.
        p_value: two-sided, of the paired randomization (sign-flip) test; 1 where no question differs.
        p_adjusted: `p_value` after Holm's correction across the family it was tested in; as `p_value` alone.
        wins, losses, ties: questions on which B is above, below, equal to A (raw values, whatever is better).
        effect_size: mean difference over the standard deviation of the differences (Cohen's d_z); 0 when none
            differs, infinite when all differ by the same.
        detectable: the smallest true difference that `n` questions would show with 80 % power at 5 %; NaN where
            the differences have no spread to tell from, infinite where `n` is below 6.
        questions_needed: how many questions would show the observed difference with 80 % power; None where it
            is 0.
    """

    metric: str
    n: int
    mean_a: float
    mean_b: float
    difference: Interval
    p_value: float
    p_adjusted: float
    wins: int
    losses: int
    ties: int
    effect_size: float
    detectable: float
    questions_needed: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Values of one metric in A and in B, question by question; NaN where one has none."""

    metric: str
    a: NDArray[np.float64]
    b: NDArray[np.float64]


def compare_paired(
    metric: str,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    resamples: int = PERMUTATIONS,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference | None:
    """B minus A on the entries where both are finite; None where there is no such entry.

    The test is `eval.sign_flips`, the interval `eval.stats`. Differences of less than 1e-12 of the values are
    rounding, and ties. The interval takes `resamples`, too, but no more than 2,000 beyond 2,000 questions.

    Raises:
        ValueError: if the arrays have different lengths, or a value is infinite.
    """
    pair = {metric: Pair(metric, a, b)}
    return compare_pairs(pair, resamples=resamples, confidence=confidence, seed=seed).get(metric)


def compare_pairs(
    pairs: Mapping[K, Pair], *, resamples: int = PERMUTATIONS, confidence: float = 0.95, seed: int = 0
) -> dict[K, PairedDifference]:
    """`compare_paired` of each pair, with Holm's correction over all; those without a common entry are left out.

    Faster than one at a time: pairs that have the same entries share what is drawn. Each gets what it gets
    alone, but for `p_adjusted`. Raises as `compare_paired`.
    """
    shared: dict[bytes, list[K]] = defaultdict(list)
    for key, pair in pairs.items():
        both = _in_both(pair)
        if both.any():
            shared[both.tobytes()].append(key)
    found: dict[K, PairedDifference] = {}
    for keys in shared.values():
        compared = _compare([pairs[key] for key in keys], resamples, confidence, seed)
        found |= dict(zip(keys, compared, strict=True))
    return correct_family({key: found[key] for key in pairs if key in found})


def paired_values(pair: Pair) -> NDArray[np.float64]:
    """B minus A on the entries where both have a value. Raises as `compare_paired`."""
    both = _in_both(pair)
    return _differences(pair.a[both], pair.b[both])


def correct_family(differences: Mapping[K, PairedDifference]) -> dict[K, PairedDifference]:
    """The same with `p_adjusted` set: Holm's correction across all of them."""
    adjusted = holm([difference.p_value for difference in differences.values()])
    return {
        key: replace(difference, p_adjusted=p)
        for (key, difference), p in zip(differences.items(), adjusted, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false alarm among them is kept (Holm, 1979), in their order.

    Step-down: the smallest is multiplied by their number m, the next by m - 1, …; never below one before it,
    never above 1.

    Raises:
        ValueError: if one is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must lie between 0 and 1: {list(p_values)}")
    m = len(p_values)
    adjusted, highest = [0.0] * m, 0.0
    for rank, place in enumerate(sorted(range(m), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _in_both(pair: Pair) -> NDArray[np.bool_]:
    if pair.a.shape != pair.b.shape or pair.a.ndim != 1:
        raise ValueError(f"{pair.metric}: {pair.a.shape} values of A and {pair.b.shape} of B are no pairs")
    if np.isinf(pair.a).any() or np.isinf(pair.b).any():
        raise ValueError(f"{pair.metric}: values to compare must not be infinite")
    both: NDArray[np.bool_] = ~(np.isnan(pair.a) | np.isnan(pair.b))
    return both


def _compare(pairs: Sequence[Pair], resamples: int, confidence: float, seed: int) -> list[PairedDifference]:
    """Pairs that have values at the same entries."""
    both = _in_both(pairs[0])
    a = np.column_stack([pair.a[both] for pair in pairs])
    b = np.column_stack([pair.b[both] for pair in pairs])
    columns = _differences(a, b)
    p_values = sign_flip_p_values(columns, resamples=resamples, seed=seed)
    drawn = resamples if len(columns) <= _MANY else min(resamples, RESAMPLES)
    intervals = bootstrap_means(columns, confidence=confidence, resamples=drawn, seed=seed)
    return [
        _describe(
            pair.metric,
            float(a[:, i].mean()),
            float(b[:, i].mean()),
            columns[:, i],
            intervals[i],
            p_values[i],
        )
        for i, pair in enumerate(pairs)
    ]


def _differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """B minus A, exactly 0 where only rounding tells them apart."""
    differences = b - a
    differences[np.abs(differences) <= _ROUNDING * np.maximum(np.abs(a), np.abs(b))] = 0.0
    return differences


def _describe(
    metric: str,
    mean_a: float,
    mean_b: float,
    differences: NDArray[np.float64],
    interval: Interval,
    p_value: float,
) -> PairedDifference:
    n = len(differences)
    constant = bool((differences == differences[0]).all())
    spread = 0.0 if constant else float(differences.std(ddof=1))
    effect_size = _effect_size(interval.mean, spread)
    return PairedDifference(
        metric=metric,
        n=n,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=interval,
        p_value=p_value,
        p_adjusted=p_value,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
        effect_size=effect_size,
        detectable=detectable_difference(spread, n),
        questions_needed=questions_needed(effect_size),
    )


def _effect_size(mean: float, spread: float) -> float:
    if mean == 0:
        return 0.0
    return mean / spread if spread else copysign(inf, mean)


def detectable_difference(spread: float, n: int) -> float:
    """The true difference that `n` questions show at two-sided 5 % with 80 % power, their spread given.

    That of the normal approximation with Guenther's (1981) correction for an estimated spread. NaN without
    spread; infinite below 6 questions, which cannot show anything.
    """
    if n < FEWEST:
        return inf
    return _Z_POWER * spread / sqrt(n - _Z_5_PERCENT**2 / 2) if spread else nan


def questions_needed(effect_size: float) -> int | None:
    """How many questions show a difference of so many standard deviations: `detectable_difference` turned round."""
    if effect_size == 0:
        return None
    return max(FEWEST, ceil((_Z_POWER / effect_size) ** 2 + _Z_5_PERCENT**2 / 2))

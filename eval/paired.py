"""Is one configuration really better than another? Paired statistics over the same questions."""

from __future__ import annotations

from dataclasses import dataclass

from eval.stats import Interval


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
            differs.
        detectable: the smallest true difference that `n` questions would show with 80 % power at 5 %; NaN where
            the differences have no spread to tell from.
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

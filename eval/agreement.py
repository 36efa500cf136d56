"""How far a judge agrees with people who labelled the same answers: Cohen's kappa, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.stats import RESAMPLES, Interval

ENOUGH = 30
"""With so many labels, a kappa of .6 still has an interval that is some .6 wide."""

ENOUGH_OF_EACH = 5
"""So many answers at least that people call good, and as many that they call bad."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge against people on the `n` answers that both judged, each with yes or no.

    Attributes:
        metric: the judge's metric.
        both_yes, both_no: answers on which they agree.
        judge_yes, judge_no: answers where the judge alone says so, and people the opposite.
        raw: the share of answers on which they agree, with its bootstrap interval.
        kappa: agreement beyond chance (Cohen, 1960) with its bootstrap interval: 1 is perfect, 0 what two raters
            reach who say yes as often without looking. None where it is not defined: both say one thing only.
    """

    metric: str
    both_yes: int
    judge_yes: int
    judge_no: int
    both_no: int
    raw: Interval
    kappa: Interval | None

    @property
    def n(self) -> int:
        """Answers that both judged."""
        return self.both_yes + self.judge_yes + self.judge_no + self.both_no

    @property
    def caution(self) -> str:
        """Why the figures are not to be relied on; empty where they are."""
        rarer = min(self.both_yes + self.judge_no, self.judge_yes + self.both_no)
        if self.n < ENOUGH:
            return f"{self.n} labels are too few to mean anything: label {ENOUGH} or more"
        if rarer < ENOUGH_OF_EACH:
            return (
                f"only {rarer} of {self.n} labels are of the rarer kind: kappa says little until there are "
                f"{ENOUGH_OF_EACH} or more"
            )
        return ""


def measure_agreement(
    metric: str,
    judge: Sequence[bool],
    people: Sequence[bool],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """The agreement of a judge's verdicts with people's labels of the same answers, n ≥ 1.

    The intervals are percentile bootstrap over answers (Efron, 1979). Resamples in which kappa is not defined are
    left out of its interval.

    Raises:
        ValueError: if there is no answer, or not as many of one as of the other.
    """
    if not judge or len(judge) != len(people):
        raise ValueError(f"{len(judge)} verdicts and {len(people)} labels: give one of each for each answer")
    table = _counts(np.asarray(judge, dtype=bool), np.asarray(people, dtype=bool))
    n = len(judge)
    drawn = np.random.default_rng(seed).multinomial(n, table / n, size=resamples)
    kappas = _kappas(drawn)
    tail = (1 - confidence) / 2

    def interval(value: float, values: NDArray[np.float64]) -> Interval:
        low, high = np.quantile(values, [tail, 1 - tail])
        return Interval(value, float(low), float(high), n, confidence)

    kappa = _kappa(judge, people)
    both_yes, judge_yes, judge_no, both_no = map(int, table)
    return Agreement(
        metric,
        both_yes,
        judge_yes,
        judge_no,
        both_no,
        raw=interval(float(table[0] + table[3]) / n, (drawn[:, 0] + drawn[:, 3]) / n),
        kappa=None if kappa is None else interval(kappa, kappas[~np.isnan(kappas)]),
    )


def _counts(judge: NDArray[np.bool_], people: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Both yes, the judge alone, people alone, both no."""
    cells = (judge & people, judge & ~people, ~judge & people, ~judge & ~people)
    return np.array([cell.sum() for cell in cells], dtype=np.int64)


def _kappa(judge: Sequence[bool], people: Sequence[bool]) -> float | None:
    from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

    if len({*judge, *people}) < 2:
        return None
    return float(cohen_kappa_score(judge, people))


def _kappas(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Kappa of each row of counts; NaN where it is not defined."""
    both_yes, judge_yes, judge_no, both_no = tables.T.astype(np.float64)
    n = tables.sum(axis=1)
    observed = (both_yes + both_no) / n
    says_yes, said_yes = (both_yes + judge_yes) / n, (both_yes + judge_no) / n
    expected = says_yes * said_yes + (1 - says_yes) * (1 - said_yes)
    kappas = np.full(len(tables), np.nan)
    defined = expected < 1
    kappas[defined] = (observed[defined] - expected[defined]) / (1 - expected[defined])
    return kappas

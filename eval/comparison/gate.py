"""May a candidate replace the baseline? A check for each metric, with its margin and its confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eval.comparison.comparison import Comparison, improvement
from eval.comparison.pairing import pair_values
from eval.metric_names import is_lower_better
from eval.paired import FEWEST, PERMUTATIONS, PairedDifference, paired_values
from eval.sign_flips import sign_flip_p_values
from eval.stats import RESAMPLES, bootstrap_means
from eval.text_table import number
from retrieval.errors import ConfigurationError, DataError

Outcome = Literal["held", "not ruled out", "fell"]
COVERAGE = "questions compared"
_LEAST_SEEN = 7.85
"""(1.96 + 0.84) ** 2: in n questions a fall of x that is a fall from 1 to 0 on a share x of them is seen four
times out of five if n x is at least this; for when too few differ to tell their spread."""


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of the candidate against the baseline's.

    Attributes:
        margin: a fall of this much is tolerated. A fall is a rise where lower is better.
        difference: candidate minus baseline, as it is (not turned round).
        low, high: what the true improvement is above, and below, each with the stated confidence.
        p_value: one-sided, for a fall of no more than the margin, by the randomization test; 1 where `high` shows
            no more.
        detectable: the fall that this set would show.
        outcome: `fell`: by more than the margin, with the stated confidence. `held`: such a fall is ruled out.
            `not ruled out`: neither; no proof that nothing fell.
        powered: whether a fall as large as the margin would have been seen, or is ruled out anyway.
    """

    metric: str
    margin: float
    difference: PairedDifference
    low: float
    high: float
    p_value: float
    detectable: float
    outcome: Outcome
    powered: bool

    @property
    def change(self) -> float:
        """The improvement: positive is better, whatever direction of the metric is."""
        return improvement(self.difference).difference.mean

    @property
    def sentence(self) -> str:
        """The outcome with its figures, for people."""
        return _sentence(self)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the questions that the baseline has a score for the candidate has one for, too."""

    expected: int
    compared: int
    max_missing: float

    @property
    def missing(self) -> float:
        """The share of the baseline's scored questions that the candidate has no score for."""
        return 1 - self.compared / self.expected if self.expected else 1.0

    @property
    def passed(self) -> bool:
        """Whether enough is compared for the checks to speak for the candidate."""
        return self.missing <= self.max_missing

    @property
    def sentence(self) -> str:
        """The figures, for people."""
        return (
            f"the candidate has scores for {self.compared} of the baseline's {self.expected} scored questions; "
            f"{100 * self.missing:.1f} % are missing, {100 * self.max_missing:g} % are tolerated."
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """The checks and what follows from them. With `require_power` a check that could not have seen a fall fails."""

    comparison: Comparison
    checks: Sequence[Check]
    coverage: Coverage
    confidence: float
    require_power: bool = False

    @property
    def passed(self) -> bool:
        """Whether the candidate may pass."""
        return self.coverage.passed and not any(map(self.fails, self.checks))

    def fails(self, check: Check) -> bool:
        """Whether this check stops the candidate."""
        return check.outcome == "fell" or (self.require_power and not check.powered)

    def why(self, check: Check) -> str:
        """Why it stops the candidate; empty where it does not."""
        if check.outcome == "fell":
            return "fell"
        return "too few questions to see such a fall" if self.fails(check) else ""


def check_gate(
    comparison: Comparison,
    margins: Mapping[str, float],
    *,
    confidence: float = 0.95,
    require_power: bool = False,
    max_missing: float = 0.05,
    seed: int = 0,
) -> Gate:
    """Check each metric of `margins`, or without any each headline metric with a margin of 0.

    A metric fell when the one-sided upper confidence bound of its improvement (paired bootstrap) lies below
    minus the margin, and the one-sided randomization test of that is as sure: with few questions that differ
    the bootstrap alone is too easily sure. The confidence is that of each check; more checks make more false
    alarms. The comparison must hold the metrics of `margins`.

    Raises:
        ConfigurationError: if a margin is negative or no number, `confidence` is not between .5 and 1, or
            power is required for a margin of 0.
        DataError: if a metric of `margins` has no common question with a value.
    """
    _check_arguments(margins, confidence, require_power)
    chosen = margins or dict.fromkeys(comparison.headline, 0.0)
    if not chosen:
        raise DataError(
            "The runs have no metric with a value on a common question, so there is nothing to check."
        )
    for metric in chosen:
        if metric not in comparison.differences:
            raise DataError(f"{metric}: no question has a value in both runs, so nothing can be said of it.")
    return Gate(
        comparison=comparison,
        checks=[_check(comparison, m, margin, confidence, seed) for m, margin in chosen.items()],
        coverage=_coverage(comparison, max_missing),
        confidence=confidence,
        require_power=require_power,
    )


def _check_arguments(margins: Mapping[str, float], confidence: float, require_power: bool) -> None:
    if not 0.5 < confidence < 1:
        raise ConfigurationError(f"--confidence {confidence:g}: must lie between 0.5 and 1, as 0.95 does.")
    for metric, margin in margins.items():
        if not 0 <= margin < float("inf"):
            raise ConfigurationError(
                f"--max-drop {metric}={margin:g}: the margin is how much may be lost, 0 or more."
            )
    if require_power and not all(margins.get(metric) for metric in margins or [""]):
        raise ConfigurationError(
            "--require-power needs --max-drop with a margin above 0 for each metric: no set of questions is large "
            "enough to see a fall of any size."
        )


def bound_gain(
    gains: NDArray[np.float64], margin: float, confidence: float, seed: int = 0
) -> tuple[float, float, float]:
    """One-sided lower and upper confidence bounds of the mean gain, and the p-value for a fall within the margin.

    The p-value is 1 where the upper bound does not lie below minus the margin. `gains` has at least one value.
    """
    interval = bootstrap_means(gains[:, None], confidence=2 * confidence - 1, resamples=RESAMPLES, seed=seed)[
        0
    ]
    if interval.high >= -margin:
        return interval.low, interval.high, 1.0
    (two_sided,) = sign_flip_p_values(gains[:, None] + margin, resamples=PERMUTATIONS, seed=seed)
    return interval.low, interval.high, two_sided / 2


def _check(comparison: Comparison, metric: str, margin: float, confidence: float, seed: int) -> Check:
    difference = comparison.differences[metric]
    pair = pair_values(comparison.a, comparison.b, comparison.pairing, metric)
    gains = paired_values(pair) * (-1.0 if is_lower_better(metric) else 1.0)
    low, high, p_value = bound_gain(gains, margin, confidence, seed)
    fell = high < -margin and p_value <= 1 - confidence
    few = difference.wins + difference.losses < FEWEST
    detectable = _LEAST_SEEN / difference.n if few else difference.detectable
    ruled_out = low >= -margin and (not few or detectable <= margin)
    return Check(
        metric=metric,
        margin=margin,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        detectable=detectable,
        outcome="fell" if fell else "held" if ruled_out else "not ruled out",
        powered=fell or ruled_out or detectable <= margin,
    )


def _coverage(comparison: Comparison, max_missing: float) -> Coverage:
    scored_a = len(comparison.a.questions) - len(comparison.a.unscored)
    unscored = {*comparison.unscored_a, *comparison.unscored_b}
    compared = sum(id_a not in unscored for id_a, _ in comparison.pairing.pairs)
    return Coverage(expected=scored_a, compared=compared, max_missing=max_missing)


def _sentence(check: Check) -> str:
    metric = check.metric
    verb = "rose" if is_lower_better(metric) else "fell"
    margin = number(metric, check.margin)
    if check.outcome == "fell":
        return (
            f"{metric} {verb} by {number(metric, abs(check.change))}, and with the stated confidence by more than "
            f"{number(metric, abs(check.high))}; {margin} is tolerated."
        )
    if check.outcome == "held":
        return f"{metric} held: that it {verb} by more than {margin} is ruled out."
    by_more = f" by more than {margin}" if check.margin else ""
    said = f"no proof that it {verb}{by_more}, and none that it did not"
    if check.difference.wins == check.difference.losses == 0:
        said = "no question differs"
    if check.powered:
        return f"{metric}: {said}."
    few = ", too few for such a margin" if check.margin else ""
    seen = number(metric, check.detectable)
    return f"{metric}: {said}. {check.difference.n} questions show a change of {seen} or more{few}."

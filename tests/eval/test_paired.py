"""Paired statistics against SciPy, a published example, and what they promise under simulation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from eval.paired import Pair, PairedDifference, compare_paired, compare_pairs, correct_family, holm
from eval.sign_flips import sign_flip_p_values

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Values, Values]]


def compared(a: Values, b: Values, **options: int) -> PairedDifference:
    difference = compare_paired("recall@5", a, b, **options)
    assert difference is not None
    return difference


def scipy_p_value(differences: Values, resamples: float) -> float:
    result = scipy_stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        rng=np.random.default_rng(5),
    )
    return float(result.pvalue)


# The test


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 3, 5, None])
def test_p_values_of_few_differences_are_scipys_exact_ones(levels: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 12))
    if levels:
        a, b = np.round(a * (levels - 1)) / (levels - 1), np.round(b * (levels - 1)) / (levels - 1)
    assert compared(a, b).p_value == pytest.approx(scipy_p_value(b - a, np.inf), abs=1e-12)


def test_p_values_of_zeros_and_ones_are_those_of_mcnemars_exact_test_whatever_their_number() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random((2, 5000)) < [[0.70], [0.72]]).astype(float)
    difference = compared(a, b)
    exact = scipy_stats.binomtest(difference.wins, difference.wins + difference.losses).pvalue
    assert 0 < exact < 1
    assert difference.p_value == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("n", "shift"), [(60, 0.02), (60, 0.1), (160, 0.03), (160, 0.0)])
def test_estimated_p_values_agree_with_scipy_to_sampling_error(n: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    a = rng.random(n)
    b = a + rng.normal(shift, 0.3, n)
    ours, theirs = compared(a, b).p_value, scipy_p_value(b - a, 10_000)
    assert ours == pytest.approx(theirs, abs=5 * math.sqrt(2 * theirs * (1 - theirs) / 10_000) + 1e-3)


def test_an_estimated_p_value_is_never_zero() -> None:
    a = np.random.default_rng(2).random(200)
    assert compared(a, a + np.linspace(0.5, 0.6, 200), resamples=999).p_value == 1 / 1000


def test_estimates_agree_with_the_exact_values_that_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(3).normal(0.15, 0.3, (14, 6))
    exact = sign_flip_p_values(columns, resamples=1, seed=0)
    monkeypatch.setattr("eval.sign_flips.EXACT_OUTCOMES", 1)
    estimated = sign_flip_p_values(columns, resamples=40_000, seed=0)
    assert estimated == pytest.approx(exact, abs=5 * 0.5 / math.sqrt(40_000))
    assert estimated != exact


def test_where_no_question_differs_nothing_is_told() -> None:
    a = np.array([0.1, 0.5, 1.0, 0.3, 0.3, 0.0])
    difference = compared(a, a.copy())
    assert (difference.p_value, difference.effect_size, difference.questions_needed) == (1.0, 0.0, None)
    assert (difference.difference.low, difference.difference.high) == (0.0, 0.0)
    assert math.isnan(difference.detectable)
    assert difference.ties == 6


def test_rounding_makes_no_winner() -> None:
    a = np.array([0.1 + 0.2, 1.0, 0.7])
    difference = compared(a, np.array([0.3, 1.0, 0.7]))
    assert (difference.wins, difference.losses, difference.ties) == (0, 0, 3)
    assert difference.difference.mean == 0.0


def binary(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
    a, b = (rng.random((2, n)) < 0.8).astype(float)
    return a, b


def skewed(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
    a, b = rng.lognormal(0.0, 1.5, (2, n))
    return a, b


def heavily_tied(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
    base = rng.choice([0.0, 0.5, 1.0], n)
    changed = rng.random(n) < 0.25
    return base, np.where(changed, rng.choice([0.0, 0.5, 1.0], n), base)


@pytest.mark.parametrize("n", [20, 60, 160])
@pytest.mark.parametrize("draw", [binary, skewed, heavily_tied], ids=lambda draw: draw.__name__)
def test_false_alarms_under_the_null_are_no_more_than_five_percent(draw: Draw, n: int) -> None:
    rng = np.random.default_rng(n)
    trials = 2000
    drawn = [draw(rng, n) for _ in range(trials)]
    columns = np.column_stack([b - a for a, b in drawn])
    share = np.mean(np.array(sign_flip_p_values(columns, resamples=999, seed=4)) <= 0.05)
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert share > 0, "a test that never raises an alarm is none"


# The interval


@pytest.mark.parametrize("n", [20, 160])
def test_intervals_are_scipys_percentile_intervals_to_sampling_error(n: int) -> None:
    rng = np.random.default_rng(n)
    a = rng.random(n)
    b = np.clip(a + rng.normal(0.05, 0.2, n), 0, 1)
    ours = compared(a, b, resamples=20_000).difference
    theirs = scipy_stats.bootstrap(
        (b - a,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(6)
    )
    # The standard error of a 2.5 % quantile of normal draws is 2.67 standard deviations over their root.
    tolerance = 4 * math.sqrt(2) * 2.67 * theirs.standard_error / math.sqrt(20_000)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    assert ours.mean == pytest.approx(np.mean(b - a))


# Effect size and power


def test_the_effect_size_is_cohens_for_pairs() -> None:
    difference = compared(np.array([0.0, 0.0, 0.5, 1.0]), np.array([1.0, 0.5, 0.5, 1.0]))
    assert difference.effect_size == pytest.approx(0.375 / np.std([1.0, 0.5, 0.0, 0.0], ddof=1))


def test_a_constant_difference_is_infinitely_clear_but_six_questions_must_show_it() -> None:
    difference = compared(np.full(3, 0.25), np.full(3, 0.75))
    assert difference.effect_size == math.inf
    assert difference.detectable == math.inf
    assert difference.questions_needed == 6
    assert compared(np.full(5, 0.25), np.full(5, 0.75)).p_value > 0.05
    assert compared(np.full(6, 0.25), np.full(6, 0.75)).p_value < 0.05


@pytest.mark.parametrize("n", [20, 60, 160])
def test_the_detectable_difference_is_found_four_times_out_of_five(n: int) -> None:
    rng = np.random.default_rng(n)
    a = rng.random(n)
    noise = rng.normal(0, 0.3, n)
    noise = (noise - noise.mean()) * 0.3 / noise.std(ddof=1)
    detectable = compared(a, a + noise).detectable
    columns = rng.normal(detectable, 0.3, (n, 1000))
    found = np.mean(np.array(sign_flip_p_values(columns, resamples=999, seed=7)) <= 0.05)
    assert found == pytest.approx(0.8, abs=0.04)


def test_as_many_questions_as_are_needed_find_the_difference_four_times_out_of_five() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 1, 50)
    a = rng.random(50)
    needed = compared(a, a + 0.25 + (noise - noise.mean()) / noise.std(ddof=1)).questions_needed
    assert needed is not None
    columns = rng.normal(0.25, 1.0, (needed, 1000))
    found = np.mean(np.array(sign_flip_p_values(columns, resamples=999, seed=9)) <= 0.05)
    assert found == pytest.approx(0.8, abs=0.04)


# Pairs


def test_entries_that_one_of_the_two_has_no_value_for_are_left_out() -> None:
    nan = math.nan
    difference = compared(np.array([1.0, nan, 0.0, 0.5]), np.array([0.0, 1.0, nan, 1.0]))
    assert (difference.n, difference.wins, difference.losses, difference.ties) == (2, 1, 1, 0)
    assert (difference.mean_a, difference.mean_b) == (0.75, 0.5)


@pytest.mark.parametrize("a", [np.array([]), np.array([math.nan, math.nan])])
def test_nothing_in_common_has_no_difference(a: Values) -> None:
    assert compare_paired("mrr", a, a) is None
    assert compare_pairs({"x": Pair("mrr", a, a)}) == {}


def test_values_that_make_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        compare_paired("mrr", np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="infinite"):
        compare_paired("mrr", np.zeros(2), np.array([0.0, math.inf]))


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=25)


@given(PAIRS)
def test_exchanging_the_two_turns_the_sign_and_nothing_else(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    there, back = compared(a, b, resamples=200), compared(b, a, resamples=200)
    assert back.p_value == there.p_value
    assert back.difference.mean == -there.difference.mean
    assert (back.wins, back.losses, back.ties) == (there.losses, there.wins, there.ties)
    assert back.effect_size == -there.effect_size
    assert back.questions_needed == there.questions_needed
    assert back.detectable == there.detectable or math.isnan(back.detectable)
    assert 0 < there.p_value <= 1
    assert there.wins + there.losses + there.ties == there.n == len(pairs)


def test_pairs_together_have_what_each_has_alone() -> None:
    rng = np.random.default_rng(10)
    pairs = {i: Pair("m", *rng.random((2, 70))) for i in range(4)}
    pairs[2].a[5] = math.nan
    together = compare_pairs(pairs)
    assert list(together) == [0, 1, 2, 3]
    for key, pair in pairs.items():
        alone = compare_paired("m", pair.a, pair.b)
        assert alone is not None
        assert together[key].p_value == alone.p_value
        assert together[key].difference.low == pytest.approx(alone.difference.low, abs=1e-12)
        assert together[key].p_adjusted >= alone.p_adjusted == alone.p_value


def test_many_comparisons_take_little_time() -> None:
    rng = np.random.default_rng(11)
    pairs = {i: Pair("m", *rng.random((2, 160))) for i in range(24)}
    began = time.process_time()
    compare_pairs(pairs)
    assert time.process_time() - began < 1.0, "seconds of CPU; it is 0.06 where nothing else runs"


# Holm


def test_holm_adjusts_a_published_example() -> None:
    # R's documentation of p.adjust cites Holm (1979); these are the values it gives for c(.01, .04, .03, .005).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


P_VALUES = st.lists(st.floats(0, 1), max_size=20)


@given(P_VALUES)
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
    for i, p in enumerate(p_values):
        for j, other in enumerate(p_values):
            assert p > other or adjusted[i] <= adjusted[j]


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    adjusted = holm(p_values)
    rejected = 0
    for step, p in enumerate(sorted(p_values)):
        if (len(p_values) - step) * p > alpha:
            break
        rejected += 1
    assert sum(q <= alpha for q in adjusted) == rejected


def test_no_p_value_can_lie_outside_zero_and_one() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


def test_a_family_is_corrected_together_and_keeps_its_order() -> None:
    rng = np.random.default_rng(12)
    found = {name: compared(a, a + rng.normal(0.1, 0.3, 40)) for name in "cab" for a in [rng.random(40)]}
    corrected = correct_family(found)
    assert list(corrected) == ["c", "a", "b"]
    assert [d.p_adjusted for d in corrected.values()] == holm([d.p_value for d in found.values()])
    assert [d.p_value for d in corrected.values()] == [d.p_value for d in found.values()]

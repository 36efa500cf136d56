import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats import Interval, bootstrap_mean, bootstrap_means

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def test_intervals_of_a_skewed_distribution_contain_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    samples = rng.exponential(1.0, size=(60, 1000))
    covered = [i.low <= 1.0 <= i.high for i in bootstrap_means(samples)]
    assert 0.90 <= np.mean(covered) <= 0.98


def test_intervals_of_shares_contain_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(12)
    samples = (rng.random(size=(60, 1000)) < 0.8).astype(float)
    covered = [i.low <= 0.8 <= i.high for i in bootstrap_means(samples, confidence=0.9)]
    assert 0.85 <= np.mean(covered) <= 0.94


def test_the_width_is_that_of_the_normal_interval_where_that_one_is_right() -> None:
    values = np.random.default_rng(13).normal(5.0, 2.0, size=400)
    interval = bootstrap_mean(values.tolist(), resamples=20_000)
    assert interval is not None
    half_width = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.mean == pytest.approx(half_width, rel=0.06)
    assert interval.mean - interval.low == pytest.approx(half_width, rel=0.06)


@given(VALUES)
def test_the_interval_lies_within_the_values_and_has_their_mean(values: list[float]) -> None:
    interval = bootstrap_mean(values, resamples=100)
    assert interval is not None
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.mean == pytest.approx(sum(values) / len(values), abs=slack)
    assert interval.n == len(values)


def test_no_values_have_no_interval() -> None:
    assert bootstrap_mean([]) is None


@pytest.mark.parametrize("values", [[0.1], [0.1] * 3, [0.0] * 50, [1.0] * 7])
def test_one_value_or_the_same_throughout_has_an_interval_without_width(values: list[float]) -> None:
    assert bootstrap_mean(values) == Interval(values[0], values[0], values[0], len(values), 0.95)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(14).random(30).tolist()
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_more_confidence_is_a_wider_interval() -> None:
    values = np.random.default_rng(15).random(30).tolist()
    narrow, wide = bootstrap_mean(values, confidence=0.8), bootstrap_mean(values, confidence=0.99)
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    assert (narrow.confidence, wide.confidence) == (0.8, 0.99)


def test_columns_together_give_what_each_gives_alone() -> None:
    columns = np.random.default_rng(16).random((50, 3))
    together = bootstrap_means(columns)
    for column, interval in zip(columns.T, together, strict=True):
        alone = bootstrap_mean(column.tolist())
        assert alone is not None
        assert (interval.mean, interval.low, interval.high) == pytest.approx(
            (alone.mean, alone.low, alone.high), abs=1e-12
        )


def test_a_sample_too_large_to_resample_at_once_is_resampled_in_parts() -> None:
    values = np.random.default_rng(17).random(50_000)
    interval = bootstrap_mean(values.tolist(), resamples=170)
    assert interval is not None
    standard_error = values.std() / 50_000**0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([1.0, bad])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_outside_zero_and_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_mean([1.0, 2.0], confidence=confidence)

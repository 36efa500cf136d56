"""Racing keeps its stated error rate and stops what is hopeless, in simulation and through Optuna."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.sweep.racing import evidence_against, looks, make_pruner, question_order

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]
ALPHA = 0.05


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


# Looks


def test_looks_begin_at_twenty_questions_and_leave_something_to_save() -> None:
    assert looks(160, 4) == (20, 36, 66, 120)
    assert looks(5000, 3) == (20, 274, 3750)
    assert looks(24, 4) == (20,)
    assert looks(20, 4) == looks(0, 4) == ()
    assert looks(160, 1) == (20,)


@given(st.integers(0, 100_000), st.integers(1, 20))
def test_looks_are_in_order_and_between_the_first_and_the_last_question(questions: int, count: int) -> None:
    found = looks(questions, count)
    assert list(found) == sorted(set(found))
    assert len(found) <= count
    assert all(20 <= look < questions for look in found)


def test_a_sweep_without_looks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        looks(100, 0)


def test_the_order_of_questions_is_that_of_the_seed() -> None:
    order = question_order(50, seed=3)
    assert order == question_order(50, seed=3) != question_order(50, seed=4)
    assert sorted(order) == list(range(50)) != list(order)


# The error rate. `evidence_against` is what the pruner calls, and much faster than ten thousand studies.


def binary(rng: np.random.Generator, n: int) -> Values:
    """Five configurations that answer about 80 % of the questions, mostly the same ones."""
    difficulty = rng.random(n)
    return ((0.7 * difficulty + 0.3 * rng.random((5, n))) < 0.7).astype(float)


def sparse(rng: np.random.Generator, n: int) -> Values:
    """Configurations that differ on some 3 % of the questions."""
    base = (rng.random(n) < 0.8).astype(float)
    return np.where(rng.random((5, n)) < 0.03, (rng.random((5, n)) < 0.8).astype(float), base)


def skewed(rng: np.random.Generator, n: int) -> Values:
    """Four steady configurations, and a fifth that loses a little on most questions and gains much on few.

    Optuna's WilcoxonPruner, its threshold divided by the looks, stops more than half of such a fifth.
    """
    base = 0.1 + 0.5 * rng.random(n)
    steady = base + rng.normal(0, 0.01, (4, n))
    bold = np.where(rng.random(n) < 0.04, base + 0.4, base - 0.03 * rng.random(n))
    return np.vstack([steady, bold])


def stopped_at(challenger: Values, best: Values, order: Sequence[int]) -> int | None:
    differences, room = (challenger - best)[list(order)], (1 - best)[list(order)]
    found = (n for n in looks(len(order)) if evidence_against(differences[:n], room) >= 1 / ALPHA)
    return next(found, None)


@pytest.mark.parametrize("n", [60, 160])
@pytest.mark.parametrize("draw", [binary, sparse, skewed], ids=lambda draw: draw.__name__)
def test_of_configurations_that_end_at_least_as_good_as_the_best_few_are_stopped(draw: Draw, n: int) -> None:
    rng = np.random.default_rng(n)
    stopped = raced = 0
    while raced < 400:
        configurations = draw(rng, n)
        # The best of four, on these very questions; the fifth races it where it ends at least as good.
        best = max(configurations[:4], key=np.mean)
        challenger = configurations[4]
        if challenger.mean() >= best.mean():
            raced += 1
            stopped += stopped_at(challenger, best, question_order(n, int(rng.integers(1 << 30)))) is not None
    assert stopped / raced <= ALPHA


@pytest.mark.parametrize("n", [60, 160, 500])
def test_the_rate_holds_where_challenger_and_best_end_exactly_equal(n: int) -> None:
    rng = np.random.default_rng(n)
    best = (np.arange(n) < 0.7 * n).astype(float)
    challenger = best.copy()
    challenger[: n // 10] = 0
    challenger[-(n // 10) :] = 1
    assert challenger.mean() == best.mean()
    runs = 1500
    stopped = sum(stopped_at(challenger, best, rng.permutation(n).tolist()) is not None for _ in range(runs))
    assert stopped / runs <= ALPHA
    assert stopped, "a race that never ends early saves nothing"


def test_one_great_gain_among_many_small_losses_is_waited_for() -> None:
    best = np.full(100, 0.5)
    challenger = np.full(100, 0.49)
    challenger[99] = 1.0
    challenger[:50] = 0.5
    assert challenger.mean() >= best.mean()
    assert stopped_at(challenger, best, range(100)) is None


@pytest.mark.parametrize(("gap", "n", "share"), [(0.4, 160, 0.15), (0.2, 160, 0.3), (0.4, 60, 0.4)])
def test_what_is_clearly_worse_is_stopped_after_a_small_share_of_the_questions(
    gap: float, n: int, share: float
) -> None:
    rng = np.random.default_rng(n)
    answered, stopped, runs = 0, 0, 200
    for _ in range(runs):
        difficulty = rng.random(n)
        best = ((0.7 * difficulty + 0.3 * rng.random(n)) < 0.7).astype(float)
        worse = ((0.7 * difficulty + 0.3 * rng.random(n)) < 0.7 - gap).astype(float)
        at = stopped_at(worse, best, rng.permutation(n).tolist())
        stopped += at is not None
        answered += at or n
    assert stopped / runs >= 0.99
    assert answered / (runs * n) <= share


def test_what_can_no_longer_be_reached_is_certain() -> None:
    best = np.ones(30)
    assert evidence_against(np.full(21, 0.0) - (np.arange(21) == 20), 1 - best) == math.inf


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30), st.randoms())
def test_what_ends_at_least_as_good_is_never_certainly_worse(
    pairs: list[tuple[float, float]], chance: object
) -> None:
    challenger, best = np.array(pairs).T
    if challenger.mean() < best.mean():
        challenger, best = best, challenger
    for seen in range(1, len(best)):
        assert evidence_against((challenger - best)[:seen], 1 - best) < math.inf


def test_a_value_that_is_better_than_possible_is_refused() -> None:
    with pytest.raises(ValueError, match="better than the best possible"):
        evidence_against(np.array([4.0]), np.ones(30))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_an_error_rate_outside_zero_and_one_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        make_pruner(alpha)


# Through Optuna


def race(
    direction: str, configurations: Sequence[Values], **options: float
) -> list[optuna.trial.FrozenTrial]:
    """Each configuration as a trial of a study that races, in a fixed order of the questions."""
    n = len(configurations[0])
    order, when = question_order(n, seed=1), looks(n)
    study = optuna.create_study(direction=direction, pruner=make_pruner(ALPHA, when, **options))

    def objective(trial: optuna.Trial) -> float:
        values = configurations[trial.number][list(order)]
        for step, value in enumerate(values):
            if not math.isnan(value):
                trial.report(value, step)
            if step + 1 in when and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.nanmean(values))

    study.optimize(objective, n_trials=len(configurations))
    return study.trials


def states(trials: Sequence[optuna.trial.FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def test_a_study_stops_the_hopeless_and_lets_the_others_finish() -> None:
    rng = np.random.default_rng(2)
    good, bad = (rng.random((2, 160)) < [[0.8], [0.3]]).astype(float)
    better = np.where(np.arange(160) % 10 == 0, 1.0, good)
    trials = race("maximize", [good, bad, better, better])
    assert states(trials) == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    assert len(trials[1].intermediate_values) in looks(160)[:2]


def test_a_study_that_minimizes_stops_what_is_too_large() -> None:
    rng = np.random.default_rng(3)
    fast, slow, faster = rng.gamma(2.0, [[10.0], [40.0], [9.0]], (3, 160))
    assert states(race("minimize", [fast, slow, faster])) == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_questions_without_a_value_are_in_no_comparison() -> None:
    rng = np.random.default_rng(4)
    good, bad, same = (rng.random((3, 160)) < [[0.8], [0.3], [0.8]]).astype(float)
    good[::3] = math.nan
    bad[::7] = math.nan
    same[::5] = math.nan
    trials = race("maximize", [good, bad, same])
    assert states(trials) == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_a_scale_other_than_zero_to_one_is_told() -> None:
    rng = np.random.default_rng(5)
    good, bad = rng.integers([[4], [1]], [[6], [3]], (2, 160)).astype(float)
    assert states(race("maximize", [good, bad], best_possible=5.0)) == ["COMPLETE", "PRUNED"]
    with pytest.raises(ValueError, match="better than the best possible"):
        race("maximize", [good / 10, good])

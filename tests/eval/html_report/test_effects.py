"""What each factor does: many values in ranges, and none that was hardly tried as a headline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.html_report.drawing import drawing_style
from eval.html_report.effects import effects_exhibit
from eval.html_report.exhibits import Exhibit
from eval.sweep.results import FactorEffect, SweepResult


def show(sweep: SweepResult, *effects: FactorEffect) -> Exhibit:
    with drawing_style():
        exhibit = effects_exhibit(replace(sweep, effects=effects))
    assert exhibit is not None
    return exhibit


def test_the_factor_that_explains_most_comes_first(sweep: SweepResult) -> None:
    small = FactorEffect("retrieval.k", {"3": (0.5, 4), "5": (0.51, 4)}, 0.04)
    large = FactorEffect("reader.max_sentences", {"1": (0.4, 4), "2": (0.6, 4)}, 0.9)
    exhibit = show(sweep, small, large)
    assert exhibit.finding == (
        "Most depends on reader.max_sentences, which explains 90\u00a0% of the spread: "
        "2 averages 0.600, 1 averages 0.400."
    )
    assert [row[0] for row in exhibit.rows] == ["reader.max_sentences"] * 2 + ["retrieval.k"] * 2


def test_a_value_that_was_hardly_tried_is_shown_but_makes_no_headline(sweep: SweepResult) -> None:
    effect = FactorEffect(
        "reader.abstain_below", {"0.3": (0.35, 12), "0.4": (0.5, 1), "0.5": (0.29, 12)}, 0.3
    )
    exhibit = show(sweep, effect)
    assert exhibit.finding.endswith("0.3 averages 0.350, 0.5 averages 0.290.")
    assert ("reader.abstain_below", "30\u00a0%", "0.4", "0.500", "1") in exhibit.rows


def test_many_numbers_are_grouped_and_their_means_stay_exact(sweep: SweepResult) -> None:
    effect = FactorEffect("reader.abstain_below", {f"{n / 20}": (n / 20, 1 + n % 2) for n in range(20)}, None)
    rows = show(sweep, effect).rows
    assert [row[2] for row in rows] == [
        "0 to 0.15", "0.2 to 0.35", "0.4 to 0.55", "0.6 to 0.75", "0.8 to 0.95"
    ]  # fmt: skip
    assert [row[4] for row in rows] == ["6"] * 5
    first = (0 * 1 + 0.05 * 2 + 0.1 * 1 + 0.15 * 2) / 6
    assert float(rows[0][3]) == pytest.approx(first, abs=0.0005)


def test_a_factor_with_one_value_is_no_factor(sweep: SweepResult) -> None:
    alone = replace(sweep, effects=[FactorEffect("retrieval.k", {"3": (0.5, 4)}, None)])
    assert effects_exhibit(alone) is None

"""Which configurations nothing beats in both quality and cost."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from eval.html_report.costs import costs_to_show
from eval.html_report.drawing import drawing_style
from eval.html_report.pareto import _front, pareto_exhibit
from eval.sweep.results import Objective, Spending, SweepResult

COORDINATES = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(COORDINATES, COORDINATES), max_size=20))
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    undominated = {
        (x, y)
        for x, y in points
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
    }  # fmt: skip
    assert _front(points) == undominated


def test_the_finding_names_what_is_nearly_as_good_and_clearly_cheaper(sweep: SweepResult) -> None:
    def costing(usd: float, recall: float, number: int) -> object:
        spending = Spending(usd * 40, 100, 10, 40)
        return replace(sweep.trials[number - 1], spending=spending, objectives={"recall@3": recall})

    def finding(*trials: object) -> str:
        with drawing_style():
            exhibit = pareto_exhibit(replace(sweep, trials=trials))
        assert exhibit is not None
        return exhibit.finding

    dear = [costing(0.01, 0.5, 1), costing(0.05, 0.795, 2), costing(0.02, 0.7, 3), costing(0.2, 0.8, 4)]
    assert finding(*dear).startswith(
        "#2 comes within 1 % of the best recall@3 at $0.05 a question instead of $0.2 (#4)."
    )
    alike = [costing(0.01, 0.5, 1), costing(0.199, 0.795, 2), costing(0.02, 0.7, 3), costing(0.2, 0.8, 4)]
    best = "#4 has the best recall@3, at $0.2 a question; nothing within 1 % of it costs clearly less."
    assert best in finding(*alike)


def test_costs_are_money_or_else_tokens_then_time_and_never_twice(sweep: SweepResult) -> None:
    def names(result: SweepResult) -> list[str]:
        return [cost.name for cost in costs_to_show(result)]

    assert names(sweep) == ["usd", "latency_ms"]
    unpriced = [replace(trial, spending=replace(trial.spending, usd=None)) for trial in sweep.trials]
    assert names(replace(sweep, trials=unpriced)) == ["tokens", "latency_ms"]
    free = [replace(trial, spending=Spending()) for trial in sweep.trials]
    assert names(replace(sweep, trials=free)) == ["latency_ms"]
    timed = [*sweep.objectives, Objective("latency_ms", minimize=True)]
    assert names(replace(sweep, objectives=timed)) == ["latency_ms", "usd"]
    assert names(replace(sweep, objectives=[Objective("latency_ms", minimize=True)])) == ["usd"]

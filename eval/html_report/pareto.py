"""Quality against cost: which configurations nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from eval.html_report import drawing as colours
from eval.html_report.costs import costs_to_show, value_of
from eval.html_report.drawing import TEXT_SIZE, Drawing
from eval.html_report.exhibits import Exhibit, ranked
from eval.html_report.formatting import direction, enumerate_names, number, scored, unit
from eval.sweep.results import Objective, SweepResult, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 420, 320
_NAMED_AT_MOST = 9
_DOT = 9
_WITHIN = 0.01
_ALIKE = 0.05


@dataclass(frozen=True, slots=True)
class Point:
    """A trial's cost and quality; `front`: no other is at least as good in both and better in one."""

    trial: Trial
    cost: float
    quality: float
    front: bool


def pareto_exhibit(result: SweepResult) -> Exhibit | None:
    """The first objective against every cost there is; None without a cost, or with fewer than two trials."""
    trials = ranked(result)
    costs = costs_to_show(result)
    panels = [
        (cost, points) for cost in costs if len(points := _points(trials, result.objectives[0], cost)) > 1
    ]
    if not panels:
        return None
    quality = result.objectives[0]
    shown = [quality, *(cost for cost, _ in panels)]
    front = {cost.name: {point.trial.number for point in points if point.front} for cost, points in panels}
    return Exhibit(
        finding=" ".join(_finding(points, quality, cost) for cost, points in panels),
        reading=(
            "Each dot is a configuration. The line joins those that no other beats in both directions: moving along it "
            "trades one for the other, and what lies off it is never the best choice for these two. "
            "Filled green: the winner. Square: the baseline."
        ),
        drawings=[_draw(result, points, quality, cost) for cost, points in panels],
        header=("Trial", *(_column(objective) for objective in shown), "On the line for"),
        rows=[
            (
                f"#{trial.number}",
                *(number(objective.name, value_of(trial, objective)) for objective in shown),
                ", ".join(name for name, numbers in front.items() if trial.number in numbers) or "–",
            )
            for trial in trials
        ],
    )


def _points(trials: Sequence[Trial], quality: Objective, cost: Objective) -> list[Point]:
    placed = [
        (trial, x, y)
        for trial in trials
        if (x := value_of(trial, cost)) is not None and (y := value_of(trial, quality)) is not None
    ]

    def signed(x: float, y: float) -> tuple[float, float]:
        return (x if cost.minimize else -x), (y if quality.minimize else -y)

    best = _front([signed(x, y) for _, x, y in placed])
    return [Point(trial, x, y, signed(x, y) in best) for trial, x, y in placed]


def _front(points: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """Those of the points, both coordinates to be small, that no other dominates."""
    front: set[tuple[float, float]] = set()
    lowest = float("inf")
    for x, y in sorted(set(points)):
        if y < lowest:
            front.add((x, y))
            lowest = y
    return front


def _column(objective: Objective) -> str:
    return f"{objective.name} {'↓' if objective.minimize else '↑'}"


def _finding(points: Sequence[Point], quality: Objective, cost: Objective) -> str:
    """The best, and what comes within a hundredth of it and is clearly cheaper."""
    sign = 1 if quality.minimize else -1
    best = min((point for point in points if point.front), key=lambda point: sign * point.quality)
    near = [point for point in points if abs(point.quality - best.quality) <= _WITHIN * abs(best.quality)]
    cheapest = min(near, key=lambda point: point.cost if cost.minimize else -point.cost)
    name = f"#{best.trial.number}"
    if abs(best.cost - cheapest.cost) <= _ALIKE * abs(best.cost):
        rest = "costs clearly less" if cost.minimize else f"has clearly more {cost.name}"
        found = f"{name} has the best {quality.name}, at {scored(cost.name, best.cost)}"
        return f"{found}; nothing within 1 % of it {rest}."
    return (
        f"#{cheapest.trial.number} comes within 1 % of the best {quality.name} at {scored(cost.name, cheapest.cost)} "
        f"instead of {number(cost.name, best.cost)} ({name})."
    )


def _draw(result: SweepResult, points: Sequence[Point], quality: Objective, cost: Objective) -> Markup:
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing(f"pareto-{_name(cost)}", _WIDTH, _HEIGHT)
    ax = drawing.axes(62, 34, 22, 52)
    ax.grid(color=colours.LINE, linewidth=1)
    ax.set_axisbelow(True)
    line = sorted((point for point in points if point.front), key=lambda point: point.cost)
    ax.plot([p.cost for p in line], [p.quality for p in line], color=colours.ACCENT, linewidth=1.5, zorder=2)
    for point in sorted(points, key=lambda point: (point.front, _is_named(result, point))):
        _draw_point(drawing, ax, result, point, quality, cost)
    ax.margins(0.1, 0.14)
    ax.autoscale_view()
    _name_points(drawing, ax, result, points)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(lambda value, _: drawing.text(f"{value:,.6g}".replace("-", "−")))
    ax.set_xlabel(
        drawing.text(f"{unit(cost.name)} ({direction(cost)})"), color=colours.SOFT, fontsize=TEXT_SIZE
    )
    ax.set_title(
        drawing.text(f"{quality.name} ({direction(quality)})"),
        loc="left",
        x=-62 / (_WIDTH - 84),
        color=colours.SOFT,
        fontsize=TEXT_SIZE,
        pad=12,
    )
    best = enumerate_names([f"#{point.trial.number}" for point in line])
    return drawing.to_svg(f"{quality.name} against {unit(cost.name)}; not beaten in both: {best}")


def _draw_point(
    drawing: Drawing, ax: Axes, result: SweepResult, point: Point, quality: Objective, cost: Objective
) -> None:
    number_ = point.trial.number
    winner, baseline = number_ == result.winner, number_ == result.baseline
    edge = colours.ACCENT if winner or point.front else colours.INK if baseline else colours.EDGE
    ax.plot(
        [point.cost],
        [point.quality],
        "s" if baseline else "o",
        markersize=11 if winner else 9 if baseline else 7,
        markerfacecolor=colours.ACCENT if winner else colours.SURFACE,
        markeredgecolor=edge,
        markeredgewidth=1.6,
        zorder=3,
        gid=drawing.tip(
            f"{point.trial.label}: {scored(quality.name, point.quality)}, {scored(cost.name, point.cost)}"
        ),
    )


def _is_named(result: SweepResult, point: Point) -> bool:
    return point.trial.number in (result.winner, result.baseline)


def _name_points(drawing: Drawing, ax: Axes, result: SweepResult, points: Sequence[Point]) -> None:
    """Name the winner and the baseline, then those of the line, each where nothing else is in the way."""
    wanted = sorted(
        (p for p in points if p.front or _is_named(result, p)), key=lambda p: not _is_named(result, p)
    )
    dots = [tuple(ax.transData.transform((point.cost, point.quality))) for point in points]
    taken = [_box(x, y, _DOT, _DOT) for x, y in dots]
    for point in wanted[:_NAMED_AT_MOST]:
        name = f"#{point.trial.number}"
        x, y = ax.transData.transform((point.cost, point.quality))
        wide = 0.62 * TEXT_SIZE * len(name)
        for right, up in ((0, 15), (0, -15), (wide / 2 + 9, 0), (-wide / 2 - 9, 0)):
            box = _box(x + right, y + up, wide, TEXT_SIZE)
            if _is_named(result, point) or not any(_overlap(box, other) for other in taken):
                taken.append(box)
                ax.annotate(
                    drawing.text(name),
                    (point.cost, point.quality),
                    xytext=(right, up),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=TEXT_SIZE,
                    color=colours.INK,
                )
                break


_Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float) -> _Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(objective: Objective) -> str:
    return "".join(c if c.isalnum() else "-" for c in objective.name)

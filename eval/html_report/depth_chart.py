"""Recall by depth, drawn: the winner, the baseline, and others whose curve is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from markupsafe import Markup

from eval.html_report import drawing as colours
from eval.html_report.depth import DepthCurve
from eval.html_report.drawing import TEXT_SIZE, Drawing
from eval.html_report.exhibits import Exhibit, Labels
from eval.html_report.formatting import count, share, shorten
from eval.sweep.results import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_AT_MOST = 5
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 340, 48, 270, 34, 52
_KEY = 26
_LABEL_HEIGHT = 17
Dashes: TypeAlias = "str | tuple[int, tuple[int, ...]]"
_DASHES: tuple[Dashes, ...] = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 3)))


def depth_exhibit(result: SweepResult, curves: Sequence[DepthCurve]) -> Exhibit | None:
    """The first curve is the winner's; those that repeat an earlier one are left out. None without any."""
    shown = _distinct(curves, {result.winner, result.baseline})
    if not shown or not any(curve.recall for curve in shown):
        return None
    depths = range(1, max(len(curve.recall) for curve in shown) + 1)
    return Exhibit(
        finding=_finding(result, shown),
        reading=(
            "Mean recall over the answerable questions when only the first so many documents are read. A line that "
            "ends early retrieves no more. A line that still rises at its end would gain from a larger k; one that is "
            "flat would not. Configurations with the same curve as a better one are left out."
        ),
        drawings=[_draw(result, shown)],
        header=("Documents", *(_name(result, curve.trial) for curve in shown)),
        rows=[
            (
                str(depth),
                *(f"{curve.recall[depth - 1]:.3f}" if depth <= len(curve.recall) else "–" for curve in shown),
            )
            for depth in depths
        ],
    )


def _distinct(curves: Sequence[DepthCurve], always: set[int | None]) -> list[DepthCurve]:
    seen: set[tuple[float, ...]] = {curve.recall for curve in curves if curve.trial in always}
    spare = CURVES_AT_MOST - sum(curve.trial in always for curve in curves)
    shown = []
    for curve in curves:
        if curve.trial not in always:
            if curve.recall in seen or not spare:
                continue
            spare -= 1
            seen.add(curve.recall)
        if curve.questions:
            shown.append(curve)
    return shown


def _finding(result: SweepResult, curves: Sequence[DepthCurve]) -> str:
    by_trial = {curve.trial: curve.recall for curve in curves if curve.recall}
    first = result.winner if result.winner in by_trial else next(iter(by_trial))
    recall = by_trial[first]
    baseline = by_trial.get(result.baseline or 0)
    name = _name(result, first)
    if baseline is None or first == result.baseline:
        depth = len(recall)
        found = f"Among the first {count(depth, 'document')}, {name} finds {share(recall[-1])} of the gold"
        return f"{found}; with the first document alone, {share(recall[0])}."
    depth = min(len(recall), len(baseline))
    return (
        f"Among the first {count(depth, 'document')}, {name} finds {share(recall[depth - 1])} of the gold and the "
        f"baseline #{result.baseline} {share(baseline[depth - 1])}; with the first document alone, {share(recall[0])} "
        f"and {share(baseline[0])}."
    )


def _name(result: SweepResult, trial: int) -> str:
    return f"#{trial}" if trial not in _roles(result) else f"the {_roles(result)[trial]} #{trial}"


def _roles(result: SweepResult) -> dict[int | None, str]:
    return {result.baseline: "baseline", result.winner: "winner"}


def _draw(result: SweepResult, curves: Sequence[DepthCurve]) -> Markup:
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing("depth", _WIDTH, _HEIGHT)
    ax = drawing.axes(_LEFT, _TOP, _RIGHT, _BOTTOM)
    ax.grid(axis="y", color=colours.LINE, linewidth=1)
    ax.set_axisbelow(True)
    deepest = max(len(curve.recall) for curve in curves)
    lowest = min(curve.recall[0] for curve in curves if curve.recall)
    bottom = max(0.0, lowest - 0.1 * (1 - lowest) - 0.02)
    ax.set_xlim(0.9, max(deepest, 2) + 0.1)
    ax.set_ylim(bottom, 1.005)
    dashes = {curve.trial: _DASHES[place % len(_DASHES)] for place, curve in enumerate(curves)}
    for curve in reversed(curves):
        _draw_curve(drawing, result, ax, curve, dashes[curve.trial])
    _name_curves(drawing, result, ax, curves, dashes)
    ax.xaxis.set_major_locator(MaxNLocator(min(10, deepest), integer=True, min_n_ticks=1))
    ax.xaxis.set_major_formatter(lambda value, _: drawing.text(f"{value:g}"))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(lambda value, _: drawing.text(f"{value:.3g}"))
    ax.set_xlabel(drawing.text("depth: documents read from the top"), color=colours.SOFT, fontsize=TEXT_SIZE)
    ax.set_title(
        drawing.text("recall: share of gold documents found"),
        loc="left",
        x=-_LEFT / (_WIDTH - _LEFT - _RIGHT),
        color=colours.SOFT,
        fontsize=TEXT_SIZE,
        pad=12,
    )
    return drawing.to_svg("Recall by depth of " + ", ".join(_name(result, curve.trial) for curve in curves))


def _colour(result: SweepResult, trial: int) -> str:
    return (
        colours.ACCENT
        if trial == result.winner
        else colours.INK
        if trial == result.baseline
        else colours.EDGE
    )


def _draw_curve(drawing: Drawing, result: SweepResult, ax: Axes, curve: DepthCurve, dashes: Dashes) -> None:
    depths = range(1, len(curve.recall) + 1)
    ax.plot(
        depths,
        curve.recall,
        color=_colour(result, curve.trial),
        linewidth=2.4 if curve.trial == result.winner else 1.6,
        linestyle=dashes,
        marker="o" if len(curve.recall) <= 12 else None,
        markersize=4,
        gid=drawing.tip(result.trial(curve.trial).label),
    )


def _name_curves(
    drawing: Drawing,
    result: SweepResult,
    ax: Axes,
    curves: Sequence[DepthCurve],
    dashes: Mapping[int, Dashes],
) -> None:
    """Name each line at the right edge, at the height of its end, pushed apart where ends are close."""
    labels = Labels.of(result)
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = _LABEL_HEIGHT / plot_height
    bottom, top = ax.get_ylim()
    ends = sorted(
        ((curve.recall[-1], curve) for curve in curves if curve.recall),
        key=lambda end: (-end[0], end[1].trial),
    )
    place = 1.0 + step
    places = []
    for recall, curve in ends:
        place = min(place - step, (recall - bottom) / (top - bottom))
        places.append((place, curve))
    lift = max(0.0, -min(place for place, _ in places))
    for place, curve in places:
        colour = _colour(result, curve.trial)
        _draw_key(ax, place + lift, colour, dashes[curve.trial])
        ax.text(
            1 + (_KEY + 14) / plot_width,
            place + lift,
            drawing.text(shorten(_label(result, labels, curve.trial), (_RIGHT - _KEY - 16) / TEXT_SIZE)),
            transform=ax.transAxes,
            va="center_baseline",
            fontsize=TEXT_SIZE,
            color=colours.SOFT if colour == colours.EDGE else colour,
        )


def _label(result: SweepResult, labels: Labels, trial: int) -> str:
    """The winner by its role, others by their role and what sets them apart from it."""
    role = _roles(result).get(trial, "")
    winner = result.trial(result.winner) if result.winner and result.winner != trial else None
    apart = labels.describe(result.trial(trial), winner) if winner or not role else ""
    return " ".join(filter(None, (f"#{trial}", role, apart)))


def _draw_key(ax: Axes, place: float, colour: str, dashes: Dashes) -> None:
    """A piece of the line beside its name: names are not always beside their line's end."""
    width = _WIDTH - _LEFT - _RIGHT
    ax.plot(
        [1 + 8 / width, 1 + (8 + _KEY) / width],
        [place, place],
        color=colour,
        linestyle=dashes,
        linewidth=2,
        transform=ax.transAxes,
        clip_on=False,
    )

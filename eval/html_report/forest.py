"""Paired differences as a forest plot: who is better than the baseline, by how much, and is it real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from eval.html_report import drawing as colours
from eval.html_report.comparing import better_and_worse, gain, is_real
from eval.html_report.drawing import TEXT_SIZE, Drawing
from eval.html_report.exhibits import Exhibit, Labels, ranked
from eval.html_report.formatting import count, difference, enumerate_names, interval, p_value, shorten
from eval.paired import PairedDifference
from eval.sweep.results import Objective, SweepResult, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_AT_MOST = 30
_ROW, _LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH = 24, 262, 130, 26, 48, 720
_PLOT = _WIDTH - _LEFT - _RIGHT


def forest_exhibit(result: SweepResult) -> Exhibit | None:
    """Every complete trial against the baseline; against the winner where there is no baseline.

    None when there is nothing to compare.
    """
    reference = result.baseline if result.against_baseline else result.winner
    found = result.against_baseline or result.against_winner
    compared = [trial for trial in ranked(result) if trial.number in found and trial.number != reference]
    if reference is None or not compared:
        return None
    objective = result.objectives[0]
    is_baseline = reference == result.baseline
    name = f"the baseline #{reference}" if is_baseline else f"the winner #{reference}"
    drawn = compared[:DRAWN_AT_MOST]
    note = (
        f"Drawn: the best {len(drawn)} of {len(compared)}. All are in the table below."
        if len(drawn) < len(compared)
        else ""
    )
    return Exhibit(
        finding=_finding(compared, found, objective, name),
        reading=(
            f"Each line is the 95 % interval of the mean difference from {name} over the same questions, paired. "
            f"Filled: real (p below 0.05 after Holm’s correction for {count(len(compared), 'comparison')}). "
            "Hollow: cannot be told from chance."
        ),
        drawings=[_draw(drawn, found, objective, result.trial(reference), name, Labels.of(result))],
        header=(
            "Trial",
            "Difference",
            "95 % interval",
            "p, adjusted",
            "Better",
            "Worse",
            "Equal",
            "Questions",
        ),
        rows=[_row(trial, found[trial.number], objective) for trial in compared],
        note=note,
    )


def _finding(
    compared: list[Trial], found: Mapping[int, PairedDifference], objective: Objective, reference: str
) -> str:
    real = [trial for trial in compared if is_real(found[trial.number])]
    better = [trial for trial in real if gain(found[trial.number], objective) > 0]
    worse = len(real) - len(better)
    if not real:
        return f"None of {count(len(compared), 'configuration')} can be told from {reference}."
    parts = []
    if better:
        names = enumerate_names([f"#{trial.number}" for trial in better], 4)
        parts.append(f"{names} {'is' if len(better) == 1 else 'are'} really better than {reference}")
    if worse:
        parts.append(
            f"{worse} {'is' if worse == 1 else 'are'} really worse" + ("" if better else f" than {reference}")
        )
    rest = len(compared) - len(real)
    if rest:
        parts.append(f"{rest} cannot be told from it")
    return "; ".join(parts) + "."


def _row(trial: Trial, pair: PairedDifference, objective: Objective) -> tuple[str, ...]:
    better, worse = better_and_worse(pair, objective)
    name, found = objective.name, pair.difference
    return (
        f"#{trial.number}",
        difference(name, found.mean),
        interval(name, found.low, found.high, signed=True),
        p_value(pair.p_adjusted),
        f"{better:,}",
        f"{worse:,}",
        f"{pair.ties:,}",
        f"{pair.n:,}",
    )


def _draw(
    drawn: list[Trial],
    found: Mapping[int, PairedDifference],
    objective: Objective,
    reference: Trial,
    reference_name: str,
    labels: Labels,
) -> Markup:
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing("forest", _WIDTH, _TOP + _ROW * len(drawn) + _BOTTOM)
    ax = drawing.axes(_LEFT, _TOP, _RIGHT, _BOTTOM)
    ax.set_ylim(len(drawn) - 0.5, -0.5)
    ax.axvline(0, color=colours.EDGE, linewidth=1)
    ax.set_yticks([])
    for place, trial in enumerate(drawn):
        pair = found[trial.number]
        figures = f"{difference(objective.name, pair.difference.mean)}  {p_value(pair.p_adjusted)}"
        tip = drawing.tip(f"{trial.label}: {', '.join(_row(trial, pair, objective)[1:4])}")
        _draw_interval(ax, place, pair, objective, tip)
        name = shorten(f"#{trial.number} {labels.describe(trial, reference)}", (_LEFT - 8) / TEXT_SIZE)
        _write(ax, -8, place, drawing.text(name), colours.INK)
        _write(ax, _PLOT + 10, place, drawing.text(figures), colours.INK if is_real(pair) else colours.SOFT)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(
        lambda value, _: drawing.text(f"{value:+g}".replace("-", "−") if value else "0")
    )
    ax.set_xlabel(
        drawing.text(f"difference in {objective.name} from {reference_name}"),
        color=colours.SOFT,
        fontsize=TEXT_SIZE,
    )
    _name_the_sides(drawing, ax, objective)
    return drawing.to_svg(f"Forest plot of paired differences in {objective.name} from {reference_name}")


def _draw_interval(ax: Axes, place: int, pair: PairedDifference, objective: Objective, tip: str) -> None:
    real = is_real(pair)
    colour = colours.SOFT if not real else colours.ACCENT if gain(pair, objective) > 0 else colours.DANGER
    found = pair.difference
    ax.plot(
        [found.low, found.mean, found.high],
        [place, place, place],
        "-o",
        markevery=[1],
        color=colour,
        linewidth=2,
        markersize=8,
        markerfacecolor=colour if real else colours.SURFACE,
        markeredgewidth=1.5,
        gid=tip,
    )


def _write(ax: Axes, points: float, place: int, token: str, colour: str) -> None:
    """Beside the plot, so many points from its left edge; to the left of that where they are negative."""
    ax.text(
        points / _PLOT,
        place,
        token,
        transform=ax.get_yaxis_transform(),
        ha="right" if points < 0 else "left",
        va="center_baseline",
        fontsize=TEXT_SIZE,
        color=colour,
    )


def _name_the_sides(drawing: Drawing, ax: Axes, objective: Objective) -> None:
    left, right = ("better", "worse") if objective.minimize else ("worse", "better")
    for place, align, said in ((0, "left", f"← {left}"), (1, "right", f"{right} →")):
        ax.text(
            place,
            1.0 + 8 / (drawing.height - _TOP - _BOTTOM),
            drawing.text(said),
            transform=ax.transAxes,
            ha=align,
            fontsize=TEXT_SIZE - 1,
            color=colours.SOFT,
        )

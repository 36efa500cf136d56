"""What each factor does to the first objective, averaged over everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from eval.html_report import drawing as colours
from eval.html_report.drawing import TEXT_SIZE, Drawing
from eval.html_report.exhibits import Exhibit
from eval.html_report.formatting import count, direction, number, share, shorten, unit
from eval.sweep.results import FactorEffect, Objective, SweepResult

VALUES_AT_MOST = 12
FACTORS_AT_MOST = 10
_BINS = 5
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _ROW = 190, 80, 12, 48, 720, 24


@dataclass(frozen=True, slots=True)
class _Level:
    """A value of a factor, or a range of its values, and the mean over the `trials` that have it."""

    name: str
    mean: float
    trials: int


def effects_exhibit(result: SweepResult) -> Exhibit | None:
    """The factors, the one that explains most first; None when none has two values to compare."""
    effects = sorted(
        (effect for effect in result.effects if len(effect.means) > 1),
        key=lambda effect: -(effect.share or 0),
    )
    if not effects:
        return None
    objective = result.objectives[0]
    levels = {effect.factor: _levels(effect) for effect in effects}
    drawn = effects[:FACTORS_AT_MOST]
    return Exhibit(
        finding=_finding(effects[0], levels[effects[0].factor], objective),
        reading=(
            f"Each dot is the mean {objective.name} of all complete configurations with that value "
            f"({direction(objective)}). Beside it: how many they are; hollow where they are few. The share says how "
            "much of the spread between configurations the factor alone explains; means of few configurations, or of "
            "unevenly mixed ones, say little."
        ),
        drawings=[_draw(drawn, levels, objective)],
        header=("Factor", "Explains", "Value", f"Mean {objective.name}", "Trials"),
        rows=[
            (
                effect.factor,
                _share(effect),
                level.name,
                number(objective.name, level.mean),
                f"{level.trials:,}",
            )
            for effect in effects
            for level in levels[effect.factor]
        ],
        note=f"Drawn: {len(drawn)} of {len(effects)} factors. All are in the table below."
        if len(drawn) < len(effects)
        else "",
    )


def _levels(effect: FactorEffect) -> list[_Level]:
    levels = [_Level(name, mean, trials) for name, (mean, trials) in effect.means.items()]
    if len(levels) <= VALUES_AT_MOST:
        return levels
    try:
        return _ranges(sorted(levels, key=lambda level: float(level.name)))
    except ValueError:
        most_tried = sorted(levels, key=lambda level: -level.trials)[: VALUES_AT_MOST - 1]
        others = [level for level in levels if level not in most_tried]
        return [*most_tried, _merge(f"{len(others)} other values", others)]


def _ranges(levels: Sequence[_Level]) -> list[_Level]:
    """Neighbouring numbers together, about as many in each range."""
    bounds = [round(len(levels) * place / _BINS) for place in range(_BINS + 1)]
    parts = [levels[low:high] for low, high in pairwise(bounds)]
    return [_merge(f"{float(part[0].name):.4g} to {float(part[-1].name):.4g}", part) for part in parts]


def _merge(name: str, levels: Sequence[_Level]) -> _Level:
    trials = sum(level.trials for level in levels)
    return _Level(name, sum(level.mean * level.trials for level in levels) / trials, trials)


def _is_thin(level: _Level, levels: Sequence[_Level]) -> bool:
    """Whether it was tried so much less than others that its mean is another matter: a baseline's own value, say."""
    return 2 * level.trials < max(other.trials for other in levels)


def _share(effect: FactorEffect) -> str:
    return "–" if effect.share is None else share(effect.share)


def _finding(effect: FactorEffect, levels: Sequence[_Level], objective: Objective) -> str:
    enough = [level for level in levels if not _is_thin(level, levels)]
    ordered = sorted(
        enough if len(enough) > 1 else levels, key=lambda level: level.mean, reverse=not objective.minimize
    )
    best, worst = ordered[0], ordered[-1]
    explained = f", which explains {_share(effect)} of the spread" if effect.share is not None else ""
    return (
        f"Most depends on {effect.factor}{explained}: {shorten(best.name, 30)} averages "
        f"{number(objective.name, best.mean)}, {shorten(worst.name, 30)} averages {number(objective.name, worst.mean)}."
    )


def _draw(
    effects: Sequence[FactorEffect], levels: Mapping[str, Sequence[_Level]], objective: Objective
) -> Markup:
    from matplotlib.ticker import MaxNLocator

    rows = sum(len(levels[effect.factor]) + 1.5 for effect in effects)
    drawing = Drawing("effects", _WIDTH, _TOP + _ROW * rows + _BOTTOM)
    ax = drawing.axes(_LEFT, _TOP, _RIGHT, _BOTTOM)
    ax.set_ylim(rows - 0.25, -0.75)
    ax.grid(axis="x", color=colours.LINE, linewidth=1)
    ax.set_axisbelow(True)
    ticks: dict[float, str] = {}
    place = 0.0
    for effect in effects:
        ax.text(
            -_LEFT / (_WIDTH - _LEFT - _RIGHT),
            place,
            drawing.text(shorten(f"{effect.factor} — explains {_share(effect)}", (_WIDTH - 20) / TEXT_SIZE)),
            transform=ax.get_yaxis_transform(),
            va="center_baseline",
            fontsize=TEXT_SIZE,
            fontweight="bold",
            color=colours.INK,
            bbox={"facecolor": colours.SURFACE, "edgecolor": "none", "pad": 2},
        )
        found = levels[effect.factor]
        places = [place + 1 + row for row in range(len(found))]
        ax.plot([level.mean for level in found], places, color=colours.EDGE, linewidth=1)
        for level, row in zip(found, places, strict=True):
            ticks[row] = drawing.text(shorten(level.name, _LEFT / TEXT_SIZE - 1.5))
            tip = drawing.tip(f"{effect.factor} = {level.name}: {number(objective.name, level.mean)}")
            thin = _is_thin(level, found)
            ax.plot(
                [level.mean],
                [row],
                "o",
                color=colours.ACCENT,
                markerfacecolor=colours.SURFACE if thin else colours.ACCENT,
                markersize=8,
                gid=tip,
            )
            ax.text(
                1.04,
                row,
                drawing.text(count(level.trials, "trial")),
                transform=ax.get_yaxis_transform(),
                va="center_baseline",
                fontsize=TEXT_SIZE - 1,
                color=colours.SOFT,
            )
        place += len(found) + 1.5
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.tick_params(axis="y", labelcolor=colours.INK)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(lambda value, _: drawing.text(f"{value:,.6g}".replace("-", "−")))
    ax.set_xlabel(drawing.text(unit(objective.name)), color=colours.SOFT, fontsize=TEXT_SIZE)
    return drawing.to_svg(f"Mean {objective.name} by the value of each factor")

"""A comparison as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from eval.comparison.changes import Evidence, QuestionChange
from eval.comparison.comparison import Comparison, improvement
from eval.comparison.verdicts import arrow, judge, p_value
from eval.paired import PairedDifference
from eval.text_table import number, signed, table
from program.well_formed import shorten

_HEADER = ("A", "B", "B − A", "interval", "p", "p corr.", "better", "worse", "same", "n", "d", "shows ≥")
_QUESTION_CHARACTERS = 200
_ANSWER_CHARACTERS = 300
_VALUE_CHARACTERS = 60
_DOCUMENTS = 3


def render_comparison(comparison: Comparison, changes: Sequence[QuestionChange] = ()) -> str:
    """Which runs, the verdicts, all metrics, the slices, and the questions of `changes` side by side."""
    blocks = [
        _runs(comparison),
        "\n".join(f"! {warning}" for warning in comparison.warnings()),
        "\n".join(judge(difference).sentence for difference in comparison.headline.values()),
        _metric_table("metric", comparison.headline),
        _metric_table("other metrics", {m: d for m, d in comparison.others.items() if d.ties < d.n}),
        _unchanged(comparison),
        *_slice_tables(comparison),
        _legend(comparison),
        *(_change(change) for change in changes),
    ]
    return "\n\n".join(block for block in blocks if block)


def _runs(comparison: Comparison) -> str:
    lines = [
        f"{letter}: {run.name} ({len(run.questions)} questions, {len(run.unscored)} unscored) from {run.source}"
        for letter, run in (("A", comparison.a), ("B", comparison.b))
    ]
    pairing = comparison.pairing
    how = "by their text" if pairing.by_text else "by id"
    lines.append(
        f"Compared: {len(pairing.pairs)} questions, matched {how}; {len(pairing.only_a)} only in A, "
        f"{len(pairing.only_b)} only in B"
    )
    lines += [f"  {key}: {_value(a)} → {_value(b)}" for key, (a, b) in comparison.settings.items()]
    return "\n".join(lines)


def _value(value: object) -> str:
    return "–" if value is None else shorten(str(value), _VALUE_CHARACTERS)


def _metric_table(title: str, differences: Mapping[str, PairedDifference]) -> str:
    if not differences:
        return ""
    return table((title, *_HEADER), [_metric_row(difference) for difference in differences.values()])


def _unchanged(comparison: Comparison) -> str:
    names = [metric for metric, difference in comparison.others.items() if difference.ties == difference.n]
    return f"No question differs in {', '.join(names)}." if names else ""


def _metric_row(difference: PairedDifference) -> tuple[str, ...]:
    metric, turned = difference.metric, improvement(difference)
    return (
        arrow(metric),
        number(metric, difference.mean_a),
        number(metric, difference.mean_b),
        signed(metric, difference.difference.mean),
        _range(difference),
        p_value(difference.p_value),
        p_value(difference.p_adjusted),
        str(turned.wins),
        str(turned.losses),
        str(turned.ties),
        str(difference.n),
        f"{difference.effect_size:+.2f}" if isfinite(difference.effect_size) else "∞",
        number(metric, difference.detectable) if isfinite(difference.detectable) else "–",
    )


def _range(difference: PairedDifference) -> str:
    interval, metric = difference.difference, difference.metric
    return f"{signed(metric, interval.low)} … {signed(metric, interval.high)}"


def _slice_tables(comparison: Comparison) -> Iterator[str]:
    for tag, values in comparison.slices.items():
        metrics = [m for m in comparison.headline if any(m in found for found in values.values())]
        rows = [
            (
                value,
                str(comparison.slice_sizes[tag][value]),
                *(_cell(found.get(metric)) for metric in metrics),
            )
            for value, found in values.items()
        ]
        yield table((tag, "n", *map(arrow, metrics)), rows)


def _cell(difference: PairedDifference | None) -> str:
    """The difference, the number of questions where not all of the slice have it, and a star where it is clear."""
    if difference is None:
        return "–"
    star = {"better": " *", "worse": " *"}.get(judge(difference).kind, "")
    return f"{signed(difference.metric, difference.difference.mean)} ({difference.n}){star}"


def _legend(comparison: Comparison) -> str:
    lines = [
        f"interval: {100 * comparison.confidence:g} % of the difference, by paired bootstrap. p: paired randomization "
        "test; corr.: Holm's correction over the table.",
        "d: difference in standard deviations. shows ≥: the difference these questions show four times out of five.",
    ]
    if comparison.slices:
        lines.append("Slices: B − A (questions with a value); *: clear after correction over all slices.")
    if any(arrow(metric) != metric for metric in comparison.differences):
        lines.append("↓: lower is better.")
    return "\n".join(lines)


def _change(change: QuestionChange) -> str:
    tags = ", ".join(f"{tag} {value}" for tag, value in change.tags.items())
    lines = [
        f"{change.kind} {abs(change.gain):.3f}  {change.id}{f' ({tags})' if tags else ''}",
        f"  {shorten(change.question, _QUESTION_CHARACTERS)}",
        *(f"  {arrow(m)}: {number(m, a)} → {number(m, b)}" for m, (a, b) in change.metrics.items()),
        *(f"  why: {reason}" for reason in change.reasons),
        *_side("A", change.a),
        *_side("B", change.b),
    ]
    return "\n".join(lines)


def _side(letter: str, evidence: Evidence) -> Iterator[str]:
    answer = shorten(evidence.answer, _ANSWER_CHARACTERS) or "(no answer)"
    yield f"  {letter}: {'(abstained) ' if evidence.abstained else ''}{answer}"
    if evidence.cited:
        more = len(evidence.cited) - _DOCUMENTS
        cited = ", ".join(evidence.cited[:_DOCUMENTS])
        yield f"     cites {cited}{f' and {more} more' if more > 0 else ''}"

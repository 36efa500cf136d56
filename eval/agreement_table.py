"""How far judges agree with people, as a person reads it in a terminal."""

from __future__ import annotations

from eval.agreement import Agreement
from eval.labels import LabelReport
from eval.text_table import table

_COLUMNS = ("judge / people", "n", "agree", "kappa", "95 % interval")
_COUNTS = ("yes / yes", "yes / no", "no / yes", "no / no")


def render_agreement(report: LabelReport | None) -> str:
    """One row a judge, what is to be doubted of it, and the labels that tell nothing; empty without labels."""
    if report is None:
        return ""
    lines = ["No label is of a verdict in this run."]
    if report.agreements:
        lines = [table((*_COLUMNS, *_COUNTS), [_row(found) for found in report.agreements])]
        lines += [f"{found.metric}: {found.caution}" for found in report.agreements if found.caution]
    left_out = (
        (report.elsewhere, "of answers or judges without a verdict of yes or no in this run"),
        (report.outdated, "of another answer than this run's"),
        (report.tied, "answers that as many people call good as bad"),
    )
    return "\n".join([*lines, *(f"Labels left out: {count} {why}" for count, why in left_out if count)])


def _row(found: Agreement) -> tuple[str, ...]:
    kappa, width = "not defined", "–"
    if found.kappa is not None:
        kappa, width = f"{found.kappa.mean:.3f}", f"{found.kappa.low:.3f} – {found.kappa.high:.3f}"
    counts = (found.both_yes, found.judge_yes, found.judge_no, found.both_no)
    return found.metric, str(found.n), f"{found.raw.mean:.3f}", kappa, width, *map(str, counts)

"""A run as a person reads it in a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from eval.agents import OUR_PROGRAM
from eval.agreement_table import render_agreement
from eval.costs import add_costs
from eval.evaluate import Evaluation
from eval.judges.judgements import judging_cost
from eval.judges.summary_lines import judging_lines
from eval.metric_names import is_lower_better
from eval.questions import count_unreviewed
from eval.stats import Interval
from eval.summary import Slice
from eval.text_table import number, table
from program.responses import shorten
from program.tracking import ui_command

_REASONS = 5
_REASON_CHARACTERS = 200


def render_evaluation(evaluation: Evaluation) -> str:
    """The headline, every metric with its interval, the slices, and what could not be scored."""
    blocks = [
        _headline(evaluation),
        _unreviewed(evaluation),
        _metric_table(evaluation),
        *_slice_tables(evaluation),
    ]
    judging = "\n".join(judging_lines(evaluation.result.judgements))
    costs = add_costs(evaluation.result.records.values()).render()
    agreement = render_agreement(evaluation.labels)
    blocks += [
        _failures(evaluation),
        "\n".join(evaluation.notes),
        costs,
        judging,
        agreement,
        _whereabouts(evaluation),
    ]
    return "\n\n".join(block for block in blocks if block)


def render_json(evaluation: Evaluation) -> str:
    """The summary for a machine, with where the run is."""
    body: dict[str, Any] = {
        "run": str(evaluation.result.path),
        "mlflow_run_id": evaluation.mlflow_run_id,
        "subject": evaluation.subject,
        "notes": list(evaluation.notes),
        "failed": dict(evaluation.result.failed),
        "costs": asdict(add_costs(evaluation.result.records.values())),
        "summary": asdict(evaluation.result.summary),
    }
    if pending := count_unreviewed(evaluation.ground_truth.questions):
        body["unreviewed"] = pending
    if evaluation.result.judgements:
        body["judging"] = asdict(judging_cost(evaluation.result.judgements))
    if evaluation.labels is not None:
        body["labels"] = asdict(evaluation.labels)
    return json.dumps(body, ensure_ascii=False, indent=2)


def _headline(evaluation: Evaluation) -> str:
    questions = evaluation.ground_truth.questions
    answerable = sum(question.answerable for question in questions)
    reader = next((record.reader for record in evaluation.result.records.values() if record.reader), "?")
    split = evaluation.settings.evaluation.split
    who = (
        f"reader {reader}" if evaluation.subject == OUR_PROGRAM else f"{evaluation.subject}, reader {reader}"
    )
    return (
        f"{evaluation.ground_truth.name}, split {split or 'all'}: "
        f"{len(questions)} questions, {answerable} answerable; "
        f"{who}, k = {_k(evaluation)}; {evaluation.result.answered_now} answered now"
    )


def _k(evaluation: Evaluation) -> int:
    return evaluation.k or evaluation.settings.retrieval.k


def _unreviewed(evaluation: Evaluation) -> str:
    """A warning, where a language model drafted questions that nobody has read since."""
    questions = evaluation.ground_truth.questions
    pending = count_unreviewed(questions)
    if not pending:
        return ""
    return (
        f"NOT REVIEWED: {pending} of {len(questions)} questions were drafted by a model and nobody has checked "
        "them (tag review = pending), so these figures are provisional."
    )


def _metric_table(evaluation: Evaluation) -> str:
    intervals = evaluation.result.summary.overall.intervals
    rows = [
        (
            name + " ↓" * (is_lower_better(name)),
            number(name, i.mean),
            _range(name, i),
            str(i.n),
        )
        for name, i in intervals.items()
    ]
    return table(("metric", "mean", "95 % interval", "n"), rows)


def _slice_tables(evaluation: Evaluation) -> Iterator[str]:
    k = _k(evaluation)
    columns = (f"recall@{k}", f"ndcg@{k}", "citation_precision", "citation_recall", "fact_recall")
    for tag, slices in evaluation.result.summary.slices.items():
        rows = [_slice_row(value, part, (*columns, "abstention_accuracy")) for value, part in slices.items()]
        yield table((tag, "n", *columns, "abstention"), rows)


def _slice_row(value: str, part: Slice, columns: Sequence[str]) -> tuple[str, ...]:
    cells = (part.intervals.get(name) for name in columns)
    return value, str(part.scored), *("–" if cell is None else f"{cell.mean:.3f}" for cell in cells)


def _failures(evaluation: Evaluation) -> str:
    failed = evaluation.result.failed
    missing = evaluation.result.summary.overall.unscored - len(failed)
    reasons = Counter(shorten(reason, _REASON_CHARACTERS) for reason in failed.values())
    lines = [f"  {count} × {reason}" for reason, count in reasons.most_common(_REASONS)]
    if failed:
        lines.insert(0, f"Failed, and in no mean: {len(failed)} (to retry: --retry-errors)")
    if missing:
        lines.append(f"Not answered yet, and in no mean: {missing}")
    return "\n".join(lines)


def _whereabouts(evaluation: Evaluation) -> str:
    lines = [f"Every question with its evidence: {evaluation.result.path / 'scores.jsonl'}"]
    if evaluation.mlflow_run_id:
        tracking = evaluation.settings.tracking
        lines.append(f"MLflow run {evaluation.mlflow_run_id}, with its traces: {ui_command(tracking)}")
    return "\n".join(lines)


def _range(name: str, interval: Interval) -> str:
    return f"{number(name, interval.low)} – {number(name, interval.high)}"

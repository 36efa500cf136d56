"""A comparison for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from eval.comparison.changes import QuestionChange
from eval.comparison.comparison import Comparison
from eval.comparison.verdicts import judge
from eval.metric_names import is_lower_better
from eval.paired import PairedDifference
from eval.scored_runs import ScoredRun


def render_json(comparison: Comparison, changes: Sequence[QuestionChange] = ()) -> str:
    """Everything that the tables show, as JSON; what is no number (NaN, infinite) is null."""
    pairing = comparison.pairing
    body = {
        "a": _run(comparison.a),
        "b": _run(comparison.b),
        "questions": {
            "compared": len(pairing.pairs),
            "matched_by": "question" if pairing.by_text else "id",
            "only_a": pairing.only_a,
            "only_b": pairing.only_b,
            "changed": pairing.changed,
            "ambiguous": pairing.ambiguous,
            "unscored_a": comparison.unscored_a,
            "unscored_b": comparison.unscored_b,
        },
        "settings": comparison.settings,
        "warnings": comparison.warnings(),
        "headline": _differences(comparison.headline),
        "others": _differences(comparison.others),
        "slices": {
            tag: {
                value: {"n": comparison.slice_sizes[tag][value], "metrics": _differences(found)}
                for value, found in values.items()
            }
            for tag, values in comparison.slices.items()
        },
        "changes": [{**asdict(change), "kind": change.kind} for change in changes],
    }
    return json.dumps(finite(body), ensure_ascii=False, indent=2, allow_nan=False, default=str)


def finite(value: Any) -> Any:
    """A value that JSON can hold: numbers that are none are None."""
    match value:
        case float():
            return value if isfinite(value) else None
        case Mapping():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
    return value


def _run(run: ScoredRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "source": run.source,
        "dataset": run.dataset,
        "questions": len(run.questions),
        "unscored": len(run.unscored),
    }


def _differences(differences: Mapping[str, PairedDifference]) -> dict[str, Any]:
    return {
        metric: {
            **asdict(difference),
            "lower_is_better": is_lower_better(metric),
            "verdict": judge(difference).kind,
            "sentence": judge(difference).sentence,
        }
        for metric, difference in differences.items()
    }

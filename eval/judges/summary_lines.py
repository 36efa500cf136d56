"""What the judges did, in the lines below a run's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from eval.judges.judgements import Judgements, judging_cost
from program.well_formed import shorten

_REASONS = 3
_REASON_CHARACTERS = 200


def judging_lines(judgements: Judgements) -> Iterator[str]:
    """Who judged, what it cost, and which verdicts are missing because a judge failed."""
    if not judgements:
        return
    cost = judging_cost(judgements)
    models = sorted({judgement.model for row in judgements.values() for judgement in row.values()})
    tokens = cost.input_tokens + cost.output_tokens
    yield (
        f"Judged by {', '.join(models)}: {cost.verdicts} verdicts, {tokens} tokens, {_usd(cost.usd, cost.unpriced)} "
        "(apart from what the answers cost)"
    )
    failed = [j for row in judgements.values() for j in row.values() if j.error is not None]
    for metric, count in sorted(Counter(judgement.metric for judgement in failed).items()):
        yield f"{metric}: {count} verdicts failed, and are in no mean (to retry: --retry-errors)"
    reasons = Counter(shorten(str(judgement.error), _REASON_CHARACTERS) for judgement in failed)
    yield from (f"  {count} × {reason}" for reason, count in reasons.most_common(_REASONS))


def _usd(usd: float | None, unpriced: int) -> str:
    if usd is None:
        return "price not known (evaluation.judge_model.price)"
    return f"{usd:.4f} USD" + (f" without {unpriced} verdicts of unknown price" if unpriced else "")

"""What MLflow's judges return, as one value for a question: several feedbacks are averaged, and none is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Feedback
from mlflow.tracing.constant import AssessmentMetadataKey

from retrieval.errors import DataError

_VALUES = {"yes": 1.0, "no": 0.0}
_SHARE_OF_PASSAGES = "/precision"
_TOKENS = {
    "input_tokens": AssessmentMetadataKey.JUDGE_INPUT_TOKENS,
    "output_tokens": AssessmentMetadataKey.JUDGE_OUTPUT_TOKENS,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's value for one question, and the feedbacks of MLflow that make it up.

    `mlflow_cost_usd` is by MLflow's price list, None where it has no price.
    """

    value: float
    verdict: str
    rationale: str
    usage: dict[str, int]
    mlflow_cost_usd: float | None
    feedbacks: tuple[Feedback, ...]


def read_verdict(returned: Feedback | Sequence[Feedback]) -> Verdict:
    """The verdict that a scorer returned.

    A judge of several passages or searches gives several feedbacks: the value is the mean of what it said of
    the searches, or else of the passages. A judge without a passage to look at found none that is relevant: 0.

    Raises:
        DataError: if one of them says anything but yes or no.
    """
    feedbacks = [returned] if isinstance(returned, Feedback) else list(returned)
    shares = [feedback for feedback in feedbacks if feedback.name.endswith(_SHARE_OF_PASSAGES)]
    said = [feedback for feedback in feedbacks if feedback not in shares]
    values = [_yes_or_no(feedback) for feedback in said]
    if shares:
        values = [float(str(feedback.value)) for feedback in shares]
    return Verdict(
        value=sum(values) / len(values) if values else 0.0,
        verdict=", ".join(str(feedback.value) for feedback in said) or "nothing was retrieved",
        rationale="\n".join(feedback.rationale for feedback in said if feedback.rationale),
        usage=_usage(feedbacks),
        mlflow_cost_usd=_cost(said),
        # What was said of each passage stays here: writing it would cost a transaction each.
        feedbacks=tuple(shares or said),
    )


def _yes_or_no(feedback: Feedback) -> float:
    if feedback.error is not None:
        raise DataError(f"The judge failed: {feedback.error.error_message or feedback.error.error_code}.")
    value = feedback.value
    value = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).strip().lower()
    if value not in _VALUES:
        raise DataError(
            f"The judge's verdict is {feedback.value!r}, neither yes nor no. Try another model, or again."
        )
    return _VALUES[value]


def _usage(feedbacks: Sequence[Feedback]) -> dict[str, int]:
    counts = {
        ours: [count for f in feedbacks if (count := _metadata(f, theirs)) is not None]
        for ours, theirs in _TOKENS.items()
    }
    return {name: sum(map(int, found)) for name, found in counts.items() if found}


def _cost(said: Sequence[Feedback]) -> float | None:
    costs = [_metadata(feedback, AssessmentMetadataKey.JUDGE_COST) for feedback in said]
    return None if None in costs else float(sum(costs))


def _metadata(feedback: Feedback, name: str) -> Any:
    return (feedback.metadata or {}).get(name)

"""Score answered questions: every metric by its name, for many questions in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from eval.answer_metrics import ANSWER_METRICS, judge_answer
from eval.metric_names import Metric, default_metrics, parse_metric, parse_metrics
from eval.observations import Observation, RetrievedDocument
from eval.questions import Question
from eval.ranking_metrics import score_rankings
from eval.uris import UriNormalization, uri_normalizer

__all__ = [
    "Metric",
    "Observation",
    "RetrievedDocument",
    "Scores",
    "default_metrics",
    "parse_metric",
    "parse_metrics",
    "score_questions",
]

Scores: TypeAlias = dict[str, dict[str, float | None]]
"""By question id and metric name. None: the metric does not apply. An empty row: unscored."""


def score_questions(
    questions: Iterable[Question],
    observations: Mapping[str, Observation | None],
    metrics: Sequence[Metric],
    normalization: UriNormalization | None = None,
) -> Scores:
    """Every metric for every question, in the order given.

    A question that failed (its observation is None) or was not run (it has none) is unscored: it has an
    empty row, never zeros. A retriever that found nothing is no failure: its empty list scores 0.

    Raises:
        GroundTruthError: if normalization makes two groups of alternatives overlap.
    """
    normalize = uri_normalizer(normalization or UriNormalization())
    asked = [(question, observations.get(question.id)) for question in questions]
    answered = [(question, observed) for question, observed in asked if observed is not None]
    rankings = score_rankings(answered, [metric for metric in metrics if metric.is_ranking], normalize)
    scores: Scores = {question.id: {} for question, _ in asked}
    for question, observed in answered:
        answers = _score_answer(question, observed, metrics, normalize)
        scores[question.id] = {
            metric.name: rankings[metric].get(question.id) if metric.is_ranking else answers[metric.measure]
            for metric in metrics
        }
    return scores


def _score_answer(
    question: Question, observation: Observation, metrics: Sequence[Metric], normalize: Callable[[str], str]
) -> dict[str, float | None]:
    measures = [metric.measure for metric in metrics if not metric.is_ranking]
    if not measures:
        return {}
    answered = judge_answer(question, observation, normalize)
    return {measure: ANSWER_METRICS[measure](answered) for measure in measures}

"""Metrics of one answer. None means that a metric does not apply to the question, or, of
costs, that they are not known.

A question counts as unanswerable when no relevant document is known. On an answerable question an
abstention is an answer that says nothing and cites nothing: it scores 0, it is not missing. On an
unanswerable one only abstention is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eval.observations import Observation
from eval.questions import GoldGroup, Question, document_groups
from eval.text_overlap import contained_share, token_f1


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with what was observed, both sides of its citations under normalized URIs."""

    question: Question
    observation: Observation
    gold: tuple[GoldGroup, ...]
    cited: frozenset[str]


def judge_answer(question: Question, observation: Observation, normalize: Callable[[str], str]) -> Answered:
    """Gold and citations in one form: relevant groups, distinct citations, none of an abstention."""
    gold = tuple(group for group in document_groups(question, normalize) if group.grade > 0)
    cited = () if observation.abstained else observation.cited_uris
    return Answered(question, observation, gold, frozenset(map(normalize, cited)))


def citation_precision(answered: Answered) -> float | None:
    """The share of cited documents that are gold; either of two alternatives is. 0 if nothing is cited."""
    if not answered.gold:
        return None
    gold = frozenset().union(*(group.members for group in answered.gold))
    return len(answered.cited & gold) / len(answered.cited) if answered.cited else 0.0


def citation_recall(answered: Answered) -> float | None:
    """The share of gold groups of which some document is cited."""
    if not answered.gold:
        return None
    return sum(bool(group.members & answered.cited) for group in answered.gold) / len(answered.gold)


def response_f1(answered: Answered) -> float | None:
    """Token F1 against the expected response, or the accepted answer that fits best (see `token_f1`)."""
    question, observation = answered.question, answered.observation
    expected = [text for text in (question.expected_response, *question.accepted_answers) if text]
    if not expected or not question.answerable:
        return None
    return 0.0 if observation.abstained else max(token_f1(observation.answer, text) for text in expected)


def fact_recall(answered: Answered) -> float | None:
    """The mean share of each expected fact that the answer contains (see `contained_share`).

    Accepted answers count as one fact, which the best of them stands for.
    """
    question, observation = answered.question, answered.observation
    facts = [(fact,) for fact in question.expected_facts]
    alternatives = [*facts, question.accepted_answers] if question.accepted_answers else facts
    if not alternatives or not question.answerable:
        return None
    if observation.abstained:
        return 0.0
    return sum(_best_share(observation.answer, fact) for fact in alternatives) / len(alternatives)


def abstention_accuracy(answered: Answered) -> float:
    """Whether it abstained exactly when the question is unanswerable."""
    return float(answered.observation.abstained != answered.question.answerable)


def answered_unanswerable(answered: Answered) -> float | None:
    """On an unanswerable question, whether it answered all the same."""
    return None if answered.question.answerable else float(not answered.observation.abstained)


def abstained_answerable(answered: Answered) -> float | None:
    """On an answerable question, whether it declined."""
    return float(answered.observation.abstained) if answered.question.answerable else None


def dropped_markers(answered: Answered) -> float:
    """How many citation markers pointed at no retrieved passage and were removed."""
    return float(answered.observation.dropped_markers)


def latency_ms(answered: Answered) -> float:
    """How long the program took, in milliseconds."""
    return answered.observation.latency_ms


def usd(answered: Answered) -> float | None:
    """What language models cost for the answer, in US dollars; None where no price is known."""
    return answered.observation.usd


def tokens(answered: Answered) -> float | None:
    """How many tokens language models read and wrote for the answer; None where nobody counted."""
    count = answered.observation.tokens
    return None if count is None else float(count)


ANSWER_METRICS: dict[str, Callable[[Answered], float | None]] = {
    "citation_precision": citation_precision,
    "citation_recall": citation_recall,
    "token_f1": response_f1,
    "fact_recall": fact_recall,
    "abstention_accuracy": abstention_accuracy,
    "answered_unanswerable": answered_unanswerable,
    "abstained_answerable": abstained_answerable,
    "dropped_markers": dropped_markers,
    "latency_ms": latency_ms,
    "usd": usd,
    "tokens": tokens,
}


def _best_share(answer: str, alternatives: tuple[str, ...]) -> float:
    return max(contained_share(answer, text) for text in alternatives)

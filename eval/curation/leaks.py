"""Questions that are asked twice: across splits, what was learned or chosen on one is repeated on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from eval.questions import Question
from retrieval.similarity import similar_pairs

NEAR_DUPLICATE = 0.9
"""Cosine from which two questions count as one, whatever their gold.

Of the 31 million pairs among 7,938 questions of SQuADShifts, 534 reach it, 527 of them with the same gold; at .8
the 26 pairs of other gold are mostly two questions (`Which rivers drain from the west?`, `… from the east?`).
"""

SAME_GOLD = 0.75
"""Cosine from which they do when their gold is the same: there 767 pairs, nearly all one question put twice."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Two questions that are nearly one. `similarity` is their cosine, 1 for the same words."""

    first: Question
    second: Question
    similarity: float
    same_gold: bool


def find_leaks(
    questions_a: Sequence[Question],
    questions_b: Sequence[Question],
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> list[Leak]:
    """The pairs of a question of A and one of B that are nearly one, most alike first.

    See `retrieval.similarity` for what is compared; of a conversation, all that its user said. Questions
    that mean the same in other words, or another language, are not found.

    Raises:
        ValueError: unless both thresholds are above 0 and at most 1.
    """
    texts_a, texts_b = list(map(_asked, questions_a)), list(map(_asked, questions_b))
    pairs = similar_pairs(texts_a, texts_b, min(threshold, same_gold_threshold))
    return _leaks(questions_a, questions_b, pairs, threshold, same_gold_threshold)


def find_near_duplicates(
    questions: Sequence[Question],
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> list[Leak]:
    """The pairs within one set that are nearly one question; as `find_leaks`."""
    pairs = similar_pairs(list(map(_asked, questions)), None, min(threshold, same_gold_threshold))
    return _leaks(questions, questions, pairs, threshold, same_gold_threshold)


def group_questions(
    questions: Sequence[Question],
    *,
    gold_together: bool,
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> list[list[Question]]:
    """The questions in groups that belong on one side of a split, in order of their first question.

    Near duplicates are in one group, and with `gold_together` all questions with the same gold.
    """
    place = {id(question): number for number, question in enumerate(questions)}
    leader = list(range(len(questions)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    def join(one: int, other: int) -> None:
        first, last = sorted((find(one), find(other)))
        leader[last] = first

    for leak in find_near_duplicates(questions, threshold, same_gold_threshold):
        join(place[id(leak.first)], place[id(leak.second)])
    if gold_together:
        first_with: dict[frozenset[str], int] = {}
        for number, question in enumerate(questions):
            if gold := relevant_documents(question):
                join(first_with.setdefault(gold, number), number)
    groups: dict[int, list[Question]] = {}
    for number, question in enumerate(questions):
        groups.setdefault(find(number), []).append(question)
    return list(groups.values())


def leaks_between_splits(
    questions: Sequence[Question],
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> tuple[list[Leak], list[Leak]]:
    """The near duplicates in two different splits, and those within one (or without any split)."""
    across: list[Leak] = []
    within: list[Leak] = []
    for leak in find_near_duplicates(questions, threshold, same_gold_threshold):
        one, other = (question.tags.get("split") for question in (leak.first, leak.second))
        (across if one is not None and other is not None and one != other else within).append(leak)
    return across, within


def shared_gold(questions: Sequence[Question]) -> dict[tuple[str, str], int]:
    """For each two splits, how many gold documents both have: no leak, but fewer documents are tested."""
    documents: dict[str, set[str]] = {}
    for question in questions:
        if split := question.tags.get("split"):
            documents.setdefault(split, set()).update(relevant_documents(question))
    return {
        (one, other): len(documents[one] & documents[other])
        for one, other in combinations(sorted(documents), 2)
    }


def relevant_documents(question: Question) -> frozenset[str]:
    """The documents that answer a question; none for an unanswerable one."""
    return frozenset(
        item.doc_uri for alternatives in question.gold for item in alternatives if item.grade > 0
    )


def _asked(question: Question) -> str:
    said = (turn["content"] for turn in question.history if turn.get("role") == "user")
    return "\n".join([*said, question.question])


def _leaks(
    questions_a: Sequence[Question],
    questions_b: Sequence[Question],
    pairs: Iterator[tuple[int, int, float]],
    threshold: float,
    same_gold_threshold: float,
) -> list[Leak]:
    found = []
    for i, j, similarity in pairs:
        first, second = questions_a[i], questions_b[j]
        gold = relevant_documents(first)
        same_gold = bool(gold) and gold == relevant_documents(second)
        if similarity >= (min(threshold, same_gold_threshold) if same_gold else threshold) - 1e-6:
            found.append(Leak(first, second, similarity, same_gold))
    return sorted(found, key=lambda leak: -leak.similarity)

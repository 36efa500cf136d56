"""What a question set holds: a question, its gold documents, and what an answer should say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from retrieval.errors import GroundTruthError

KEY_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class GoldItem:
    """A document, or one passage of it, that was judged for a question. Grade 0 means: not relevant."""

    doc_uri: str
    grade: int = 1
    chunk_id: str | None = None


Gold: TypeAlias = tuple[tuple[GoldItem, ...], ...]
"""A conjunction of alternatives: `((A, B), (C,))` asks for one of A or B, and for C."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a ground truth.

    `tags` holds its `type`, `split` and `lang` where they are known. `history` holds the turns before it,
    each with `role` and `content`. `accepted_answers` are short answers any one of which is right (SQuAD
    and BEIR sets have such lists); `expected_facts` must all be stated.

    Raises:
        GroundTruthError: if the question is empty, or its gold contradicts itself (see `document_groups`).
    """

    id: str
    question: str
    gold: Gold
    expected_facts: tuple[str, ...] = ()
    expected_response: str = ""
    accepted_answers: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise GroundTruthError("the question is empty. Write it, or remove the row.")
        for alternatives in self.gold:
            _check_alternatives(self.id, alternatives)
        document_groups(self, str)
        passage_groups(self, str)

    @property
    def answerable(self) -> bool:
        """Whether a relevant document is known. Judgements of grade 0 alone make no question answerable."""
        return any(item.grade > 0 for alternatives in self.gold for item in alternatives)


@dataclass(frozen=True, slots=True)
class GoldGroup:
    """Interchangeable answers to one part of a question: finding any of `members` satisfies it."""

    members: frozenset[str]
    grade: int


def document_groups(question: Question, normalize: Callable[[str], str]) -> list[GoldGroup]:
    """The gold of a question at document level, under normalized URIs.

    Two groups are the same (several gold passages of one document: merged, best grade) or disjoint.

    Raises:
        GroundTruthError: if two groups share some documents but not all, so that one document would count
            for both.
    """
    return _merged_groups(question, lambda item: normalize(item.doc_uri))


def passage_groups(question: Question, normalize: Callable[[str], str]) -> list[GoldGroup] | None:
    """The gold of a question at passage level, or None unless every item of it names a passage.

    Raises:
        GroundTruthError: as for `document_groups`.
    """
    items = [item for alternatives in question.gold for item in alternatives]
    if not items or any(item.chunk_id is None for item in items):
        return None
    return _merged_groups(question, lambda item: passage_key(normalize(item.doc_uri), item.chunk_id or ""))


def passage_key(doc_uri: str, chunk_id: str) -> str:
    """One string that names a passage: some indexes number their chunks within each document only."""
    return f"{doc_uri}{KEY_SEPARATOR}{chunk_id}"


def count_unreviewed(questions: Iterable[Question]) -> int:
    """How many questions a language model drafted that no person has reviewed (`citeqa dataset generate`)."""
    return sum(question.tags.get("review") == "pending" for question in questions)


def hashed_id(question: str, history: Iterable[Mapping[str, str]] = ()) -> str:
    """An id for a question that came without one: the same for the same question and history, everywhere."""
    content = json.dumps([question, [dict(turn) for turn in history]], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _check_alternatives(question_id: str, alternatives: tuple[GoldItem, ...]) -> None:
    if not alternatives:
        raise GroundTruthError(
            f"question {question_id!r} has an empty list of alternatives. Name a document, or remove it."
        )
    for item in alternatives:
        if not item.doc_uri.strip():
            raise GroundTruthError(f"question {question_id!r} has a gold document without doc_uri. Name it.")
        if item.grade < 0:
            raise GroundTruthError(
                f"question {question_id!r}: grade {item.grade} of {item.doc_uri!r} is negative. "
                "Use 0 for a document that is not relevant."
            )
    if len({item.grade for item in alternatives}) > 1:
        named = ", ".join(f"{item.doc_uri!r} ({item.grade})" for item in alternatives)
        raise GroundTruthError(
            f"question {question_id!r}: alternatives have different grades: {named}. "
            "Alternatives stand for one another, so give them one grade."
        )


def _merged_groups(question: Question, key: Callable[[GoldItem], str]) -> list[GoldGroup]:
    grades: dict[frozenset[str], int] = {}
    owner: dict[str, frozenset[str]] = {}
    for alternatives in question.gold:
        members = frozenset(map(key, alternatives))
        for member in members:
            if owner.setdefault(member, members) != members:
                raise GroundTruthError(
                    f"question {question.id!r}: {member.replace(KEY_SEPARATOR, ' ')!r} stands in two "
                    "different lists of alternatives, so finding it would count twice. "
                    "Make the lists the same or disjoint."
                )
        grades[members] = max(grades.get(members, 0), alternatives[0].grade)
    return [GoldGroup(members, grade) for members, grade in grades.items()]

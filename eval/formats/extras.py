"""What a format has no place for: kept under one key of its own where it allows that, else counted as lost.

A format's module says with `held(question)` what its own fields keep of a question. The difference is either
kept as *extras* (one JSON object under the key `citeqa`, which other programs leave alone), so that reading
gives back the very question, or it is what `find_losses` reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from eval.formats.agent_evaluation_set import to_question, to_row
from eval.questions import Gold, Question
from retrieval.errors import GroundTruthError

KEY = "citeqa"
UNJUDGED = "questions without a judged document"

Hold: TypeAlias = Callable[[Question], Question | None]
"""The question as a format's own fields hold it; None for a question that it cannot hold at all."""

_DEFAULTS = {"history": [], "expected_facts": [], "expected_response": "", "accepted_answers": [], "tags": {}}


@dataclass(frozen=True, slots=True)
class Loss:
    """Something of `questions` questions, `first` among them (its id), that a format's own fields do not hold.

    `whole` says that they do not hold these questions at all.
    """

    what: str
    questions: int
    first: str
    whole: bool = False


def find_losses(questions: Iterable[Question], hold: Hold, refused: str = UNJUDGED) -> list[Loss]:
    """What a format's own fields do not hold of the questions, most frequent first.

    `refused` says which questions they do not hold at all.
    """
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for question in questions:
        held = hold(question)
        for what in [refused] if held is None else _differences(question, held):
            counts[what] = counts.get(what, 0) + 1
            first.setdefault(what, question.id)
    by_frequency = sorted(counts.items(), key=lambda item: -item[1])
    return [Loss(what, n, first[what], whole=what == refused) for what, n in by_frequency]


def extras_beside(question: Question, held: Question) -> dict[str, Any]:
    """The fields in which `question` differs from `held`, for `with_extras`; empty where they are equal."""
    fields, there = _fields(question), _fields(held)
    extras = {name: value for name, value in fields.items() if value != there[name]}
    if "tags" in extras:
        # Only what differs (null: there is none), so that a file renamed to another split keeps its say.
        extras["tags"] = {name: question.tags.get(name) for name in _differing_tags(question, held)}
    return extras


def with_extras(held: Question, extras: Any, place: str, *, judged_in_part: bool = False) -> Question:
    """The question that was written as `held` with these extras beside it.

    `judged_in_part` says that the format's own fields hold some of the judged documents only.

    Raises:
        GroundTruthError: if the extras are not usable, or their gold contradicts the format's own judgements.
    """
    if not extras:
        return held
    if not isinstance(extras, dict):
        raise GroundTruthError(f"{place}: {KEY}: expected an object {{…}}, got {extras!r:.60}.")
    fields = {**_fields(held), **extras}
    if isinstance(extras.get("tags"), dict):
        fields["tags"] = {**held.tags, **extras["tags"]}
    row = {
        "id": held.id,
        "inputs": {name: fields[name] for name in ("question", "history")},
        "expectations": {
            name: fields[name] for name in fields if name not in ("question", "history", "tags")
        },
        "tags": fields["tags"],
    }
    question = to_question(row, f"{place}: {KEY}")
    _check_judgements(question, held, judged_in_part, place)
    return question


def _check_judgements(question: Question, held: Question, judged_in_part: bool, place: str) -> None:
    said, native = judgements(question.gold), judgements(held.gold)
    agree = native.keys() <= said.keys() if judged_in_part else native == said
    if not agree or question.answerable != held.answerable:
        raise GroundTruthError(
            f"{place}: the gold under {KEY!r} ({_named(said)}) is not what the judgements beside it say "
            f"({_named(native)}). Change both, or remove expected_retrieved_context under {KEY!r}."
        )


def judgements(gold: Gold) -> dict[str, int]:
    """Each document's best grade: what is left of gold without alternatives and passages."""
    grades: dict[str, int] = {}
    for item in (item for alternatives in gold for item in alternatives):
        grades[item.doc_uri] = max(grades.get(item.doc_uri, 0), item.grade)
    return grades


def _fields(question: Question) -> Mapping[str, Any]:
    row = to_row(question)
    return {**_DEFAULTS, **row["inputs"], **row["expectations"], "tags": row.get("tags", {})}


def _differences(question: Question, held: Question) -> list[str]:
    differing = extras_beside(question, held)
    found = [_IN_WORDS[name] for name in differing if name in _IN_WORDS]
    if question.id != held.id:
        found.append("white space or broken characters in an id")
    if "expected_retrieved_context" in differing:
        found += _gold_differences(question.gold, held.gold)
    if "tags" in differing:
        found += [f"tag {name!r}" for name in _differing_tags(question, held)]
    return found


def _differing_tags(question: Question, held: Question) -> list[str]:
    names = sorted({*question.tags, *held.tags})
    return [name for name in names if question.tags.get(name) != held.tags.get(name)]


_IN_WORDS = {
    "question": "white space or broken characters in a question",
    "history": "the turns before a question",
    "expected_facts": "expected facts",
    "expected_response": "expected responses",
    "accepted_answers": "accepted answers",
}


def _gold_differences(gold: Gold, held: Gold) -> list[str]:
    items = [item for alternatives in gold for item in alternatives]
    there = [item for alternatives in held for item in alternatives]
    found = []
    if any(len(alternatives) > 1 for alternatives in gold):
        found.append("alternatives (one of several documents suffices)")
    if {item.chunk_id for item in items} != {item.chunk_id for item in there}:
        found.append("gold passages (chunk_id)")
    if judgements(gold) != judgements(held):
        found.append("grades")
    return found or ["repeated gold documents"]


def _named(judged: Mapping[str, int]) -> str:
    return ", ".join(f"{uri}: {grade}" for uri, grade in judged.items()) or "no document"

"""Gold that names documents which are not there: a retriever would be blamed for what nobody can find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from eval.questions import Question
from retrieval.errors import GroundTruthError

if TYPE_CHECKING:
    from eval.ground_truth import GroundTruth

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class MissingGold:
    """A relevant document that is not known, the ids of the questions that want it, and the nearest known."""

    doc_uri: str
    questions: Sequence[str]
    nearest: str | None


def find_missing_gold(
    questions: Iterable[Question],
    known_doc_uris: Iterable[str],
    normalize: Callable[[str], str],
    nearest_for: int = _NAMED_AT_MOST,
) -> list[MissingGold]:
    """The relevant documents that are not known, under normalized URIs.

    The nearest known document is looked for, which takes time, for the first `nearest_for` only.
    """
    known = {normalize(uri): uri for uri in known_doc_uris}
    wanted_by: dict[str, list[str]] = {}
    for question in questions:
        for item in (item for alternatives in question.gold for item in alternatives if item.grade > 0):
            if normalize(item.doc_uri) not in known:
                wanted_by.setdefault(item.doc_uri, []).append(question.id)
    return [
        MissingGold(uri, ids, _nearest(normalize(uri), known) if number < nearest_for else None)
        for number, (uri, ids) in enumerate(wanted_by.items())
    ]


def check_gold_exists(
    ground_truth: GroundTruth, known_doc_uris: Iterable[str], normalize: Callable[[str], str]
) -> None:
    """Make sure that every relevant document is known, under normalized URIs.

    Raises:
        GroundTruthError: names the first few that are not, the questions that want them, and for the very
            first the known document that is nearest.
    """
    missing = find_missing_gold(ground_truth.questions, known_doc_uris, normalize, nearest_for=1)
    if missing:
        raise GroundTruthError(_unknown_documents(ground_truth.path, missing))


def _nearest(uri: str, known: Mapping[str, str]) -> str | None:
    return next((known[near] for near in get_close_matches(uri, known, n=1, cutoff=0.8)), None)


def _unknown_documents(path: Path, missing: Sequence[MissingGold]) -> str:
    named = ", ".join(
        f"{gold.doc_uri!r} (question {', '.join(map(repr, gold.questions[:3]))}"
        f"{' …' if len(gold.questions) > 3 else ''})"
        for gold in missing[:_NAMED_AT_MOST]
    )
    nearest = missing[0].nearest
    return (
        f"{path}: the gold names {len(missing)} documents that are not in the index: {named}"
        f"{', …' if len(missing) > _NAMED_AT_MOST else ''}. "
        f"{f'Nearest to the first: {nearest!r}. ' if nearest else ''}"
        "Add the documents, correct the gold, or set how URIs are normalized."
    )

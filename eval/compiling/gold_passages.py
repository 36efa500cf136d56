"""Which of the passages that were retrieved are a question's gold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.questions import Question, document_groups, passage_groups, passage_key
from retrieval.types import Passage


@dataclass(frozen=True, slots=True)
class GoldPart:
    """One of the things that a question needs: a document, or a passage where the gold names passages.

    Attributes:
        doc_uris: where it stands, as the ground truth writes it; several where one is as good as the other.
        names_passages: whether the gold says which passage, and not only which document.
    """

    doc_uris: tuple[str, ...]
    names_passages: bool
    _members: frozenset[str]
    _normalize: Callable[[str], str]

    def numbers(self, passages: Sequence[Passage]) -> list[int]:
        """The places, counted from 1, of the passages that are this part of the gold."""
        return [number for number, passage in enumerate(passages, start=1) if self.is_in(passage)]

    def is_in(self, passage: Passage) -> bool:
        """Whether the passage is this part of the gold, or of the document that is."""
        uri = self._normalize(passage.doc_uri)
        return (passage_key(uri, passage.chunk_id) if self.names_passages else uri) in self._members


def gold_parts(question: Question, normalize: Callable[[str], str]) -> list[GoldPart]:
    """What a question needs, as the metrics count it; nothing for an unanswerable question."""
    by_passage = passage_groups(question, normalize)
    groups = document_groups(question, normalize) if by_passage is None else by_passage
    items = [item for alternatives in question.gold for item in alternatives]

    def written(members: frozenset[str]) -> tuple[str, ...]:
        found = (item.doc_uri for item in items if _key(item.doc_uri, item.chunk_id) in members)
        return tuple(dict.fromkeys(found))

    def _key(doc_uri: str, chunk_id: str | None) -> str:
        uri = normalize(doc_uri)
        return uri if by_passage is None else passage_key(uri, chunk_id or "")

    return [
        GoldPart(written(group.members), by_passage is not None, group.members, normalize)
        for group in groups
        if group.grade > 0
    ]

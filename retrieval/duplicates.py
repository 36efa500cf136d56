"""Passages that an index holds more than once, or nearly: copied documents, and what stands on every page."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.local_index import LocalIndex
from retrieval.similarity import similar_pairs
from retrieval.types import Passage

_MOST_TEXTS = 20_000


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Passages of different documents, each nearly the same as another of them, by `doc_uri` and position.

    `similarity` is the lowest cosine that joins one to another; 1 for the same words.
    """

    similarity: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Groups, the largest first. `compared` of the `passages` of the index were looked at, evenly spread."""

    passages: int
    compared: int
    groups: tuple[DuplicateGroup, ...]


def find_duplicates(index: LocalIndex, threshold: float, most: int = _MOST_TEXTS) -> DuplicateReport:
    """The near duplicates among at most `most` passages. See `similar_pairs` for what counts as alike.

    Passages of one document do not count as duplicates of one another.

    Raises:
        ValueError: unless 0 < threshold <= 1.
    """
    passages = index.sample(most)
    by_text: defaultdict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_text[_normalize(passage.text)].append(passage)
    texts = list(by_text)
    groups = _Groups(len(texts))
    for i, j, cosine in similar_pairs(texts, None, threshold):
        groups.join(i, j, cosine)
    found = [
        DuplicateGroup(round(similarity, 4), _in_order([one for i in members for one in by_text[texts[i]]]))
        for members, similarity in groups.all()
    ]
    of_many = [group for group in found if len({passage.doc_uri for passage in group.passages}) > 1]
    of_many.sort(key=lambda group: (-len(group.passages), -group.similarity, group.passages[0].doc_uri))
    return DuplicateReport(len(index), len(passages), tuple(of_many))


def render_duplicates(report: DuplicateReport, limit: int) -> str:
    """The first groups, for a person."""
    lines: list[str] = []
    for group in report.groups[:limit]:
        excerpt = " ".join(group.passages[0].text.split())
        lines.append(
            f"{len(group.passages)} passages, similarity {group.similarity:.2f}: {_shorten(excerpt)}"
        )
        lines += [f"  {passage.url}" for passage in group.passages]
    held = sum(len(group.passages) for group in report.groups)
    of = "" if report.compared == report.passages else f" of {report.passages}"
    lines.append(
        f"{held} of {report.compared}{of} passages are in {len(report.groups)} groups of near duplicates."
    )
    if len(report.groups) > limit:
        lines.append(f"The {limit} largest are shown; --limit shows more, --json all.")
    return "\n".join(lines)


class _Groups:
    """Numbers, and which of them are joined."""

    def __init__(self, count: int) -> None:
        self._leader = list(range(count))
        self._lowest = [1.0] * count

    def join(self, first: int, second: int, similarity: float) -> None:
        a, b = sorted((self._find(first), self._find(second)))
        if a != b:
            self._leader[b] = a
            self._lowest[a] = min(self._lowest[a], self._lowest[b], similarity)

    def all(self) -> list[tuple[list[int], float]]:
        members: defaultdict[int, list[int]] = defaultdict(list)
        for number in range(len(self._leader)):
            members[self._find(number)].append(number)
        return [(numbers, self._lowest[leader]) for leader, numbers in members.items()]

    def _find(self, number: int) -> int:
        while self._leader[number] != number:
            self._leader[number] = self._leader[self._leader[number]]
            number = self._leader[number]
        return number


def _normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _in_order(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    return tuple(sorted(passages, key=lambda passage: (passage.doc_uri, passage.start)))


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

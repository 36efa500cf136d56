"""Small passages are found, what stands around them is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Literal, TypeAlias

from retrieval.chunking import count_tokens
from retrieval.types import Passage

Around: TypeAlias = Literal["neighbours", "section"]


def expand_all(
    passages: Iterable[Passage],
    passages_of: Callable[[str], Sequence[Passage]],
    around: Around,
    max_tokens: int,
) -> Iterator[Passage]:
    """Each passage with what stands around it in its document; no stretch of text comes twice.

    A passage that an earlier one brought along is left out, and what an earlier one holds is not brought again;
    so the first n are the same however many follow. `passages_of` gives a document's passages in order.
    """
    given: dict[str, set[str]] = {}
    documents: dict[str, Sequence[Passage]] = {}
    for passage in passages:
        taken = given.setdefault(passage.doc_uri, set())
        if passage.chunk_id in taken:
            continue
        if passage.doc_uri not in documents:
            documents[passage.doc_uri] = passages_of(passage.doc_uri)
        stretch = _stretch(passage, documents[passage.doc_uri], around, max_tokens, taken)
        taken.update(one.chunk_id for one in stretch)
        yield join(passage, stretch)


def join(found: Passage, stretch: Sequence[Passage]) -> Passage:
    """`found` with the text of consecutive passages of its document, itself among them.

    It keeps its `chunk_id` and score; `start` and `end` are those of the whole text, and every character stands
    where it stands in the document. Between passages that do not touch there was only white space, of which
    the index keeps how much, not which: it is given as line breaks.
    """
    text, start, end = "", stretch[0].start, stretch[0].start
    for passage in stretch:
        text += "\n" * max(0, passage.start - end) + passage.text[max(0, end - passage.start) :]
        end = max(end, passage.end)
    return replace(found, text=text, start=start, end=end)


def _stretch(
    found: Passage, document: Sequence[Passage], around: Around, max_tokens: int, taken: Set[str]
) -> Sequence[Passage]:
    place = next((i for i, one in enumerate(document) if one.chunk_id == found.chunk_id), None)
    if place is None:
        return [found]
    first = last = place

    def may_join(other: int) -> bool:
        return (
            0 <= other < len(document)
            and document[other].chunk_id not in taken
            and _belongs(found, document[other], around, abs(other - place))
            and count_tokens(join(found, document[min(first, other) : max(last, other) + 1]).text)
            <= max_tokens
        )

    while True:
        grown = False
        # What follows before what precedes: an explanation goes on more often than it begins above.
        if may_join(last + 1):
            last, grown = last + 1, True
        if may_join(first - 1):
            first, grown = first - 1, True
        if not grown:
            return document[first : last + 1]


def _belongs(found: Passage, other: Passage, around: Around, distance: int) -> bool:
    if around == "neighbours":
        return distance == 1
    return other.headings[: len(found.headings)] == found.headings

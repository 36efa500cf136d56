"""What an answer claims, sentence by sentence, and how much of it each passage says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from eval.text_overlap import contained_share
from program.citations import find_quote
from program.types import CitedAnswer
from retrieval.analysis import CJK_RUN, analyze, is_function_word
from retrieval.sentences import FENCE, split_sentences
from retrieval.types import Passage

SAYS = 0.5
"""The share of a text's content words from which a passage counts as saying it.

On SQuADShifts new-wiki the sentence that holds a fact scores .998 (`eval.text_overlap`); a model that answers in
words of its own keeps about half of them.
"""

SAYS_NOT = 0.35
"""The share below which it does not; between the two nothing is claimed either way."""

_FEWEST_TERMS = 3
_CJK_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer, without its markers, and the numbers of the passages that it cites.

    `number` counts the sentences from 1.
    """

    number: int
    text: str
    cited: tuple[int, ...]


def claims(cited: CitedAnswer) -> list[Claim]:
    """The sentences of an answer that state something. A marker belongs to the sentence before it."""
    plain, places = _without_markers(cited)
    spans = split_sentences(plain)
    starts = [start for start, _ in spans]
    numbers: list[list[int]] = [[] for _ in spans]
    for number, place in places:
        if spans:
            numbers[max(0, bisect_left(starts, place) - 1)].append(number)
    return [
        Claim(count, plain[start:end], tuple(dict.fromkeys(numbers[count - 1])))
        for count, (start, end) in enumerate(spans, start=1)
        if _states_something(plain[start:end])
    ]


def share_said(passage: Passage, text: str) -> float | None:
    """How much of `text` the passage says, 0 to 1; None where they are in different scripts, so that none can tell."""
    if _is_cjk(passage.text) != _is_cjk(text):
        return None
    return contained_share(_shown(passage), text)


def best_passage(passages: Sequence[Passage], text: str) -> tuple[int, float]:
    """The number of the passage that says most of `text`, and how much; (0, 0.0) where none can be compared."""
    shares = [
        (number, share)
        for number, passage in enumerate(passages, start=1)
        if (share := share_said(passage, text)) is not None
    ]
    return max(shares, key=lambda pair: (pair[1], -pair[0]), default=(0, 0.0))


def quote_of(passage: Passage, text: str) -> str:
    """The sentence of the passage that is nearest to `text`."""
    start, end = find_quote(text, passage.text)
    return passage.text[start:end]


def _shown(passage: Passage) -> str:
    """A passage as the reader sees it, which may name in its title alone what it speaks of."""
    return "\n".join((passage.title, *passage.headings, passage.text))


def _without_markers(cited: CitedAnswer) -> tuple[str, list[tuple[int, int]]]:
    """The answer without its markers, and (number, place) of each in what is left."""
    plain, places, position = "", [], 0
    for citation in sorted(cited.citations, key=lambda citation: citation.start):
        plain = (plain + cited.text[position : citation.start]).rstrip(" \t")
        places.append((citation.number, len(plain)))
        position = citation.end
    return plain + cited.text[position:], places


def _states_something(sentence: str) -> bool:
    if FENCE.match(sentence) or sentence.lstrip().startswith("#"):
        return False
    return len({term for term in analyze(sentence) if not is_function_word(term)}) >= _FEWEST_TERMS


# The same passages are compared with sentence after sentence, and with those of the next candidate.
@lru_cache(maxsize=2_000)
def _is_cjk(text: str) -> bool:
    """Whether it is written in Chinese, Japanese or Korean, names and code in Latin letters apart."""
    if text.isascii():
        return False
    letters = sum(character.isalpha() for character in text)
    return sum(map(len, CJK_RUN.findall(text))) > _CJK_SHARE * letters

"""BM25 as the inner product of two sparse vectors: weights of a passage's terms, and of a query's.

PostgreSQL's own ranking of full text (`ts_rank`) knows neither how rare a term is nor how long texts usually are, and
finds far less. pgvector multiplies sparse vectors: what BM25 makes of how often a term is in a passage is in one, how
rare the terms are, which changes with the corpus, in the other.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from retrieval.analysis import analyze_names, analyze_words, split_scripts
from retrieval.lexical import indexed_text
from retrieval.types import Passage

DIMENSIONS = 1_000_000_000
"""As many as pgvector bears: that two of a query's and a passage's terms meet in one is a matter of 1 to a million."""

SATURATION, LENGTH_PART = 1.2, 0.75
"""BM25's k1 and b, as in the embedded index."""


@dataclass(frozen=True, slots=True)
class Averages:
    """How many words, names and character pairs a passage has on average: what long and short are measured by."""

    words: float
    names: float
    grams: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What a passage is searched by: its words, the names among them, and its pairs of CJK characters."""

    words: Sequence[str]
    names: Sequence[str]
    grams: Sequence[str]

    @classmethod
    def of(cls, passage: Passage) -> Terms:
        """Those that the embedded index has of the passage, title and headings included."""
        words, grams = split_scripts(indexed_text(passage))
        return cls(analyze_words(words), analyze_names(words), grams)

    def distinct(self) -> list[str]:
        """Each term once."""
        return list(dict.fromkeys(chain(self.words, self.names, self.grams)))

    def weights(self, averages: Averages) -> dict[int, float]:
        """BM25's weight of each term by its dimension, but for how rare it is."""
        found: dict[int, float] = {}
        for terms, average in (
            (self.words, averages.words),
            (self.names, averages.names),
            (self.grams, averages.grams),
        ):
            norm = (
                SATURATION * (1 - LENGTH_PART + LENGTH_PART * len(terms) / average) if average else SATURATION
            )
            for term, times in Counter(terms).items():
                weight = times * (SATURATION + 1) / (times + norm)
                place = dimension_of(term)
                found[place] = found.get(place, 0.0) + weight
        return found


def average_of(passages: Iterable[Terms]) -> Averages:
    """The averages of some passages; 0 where there is none."""
    lengths = [(len(terms.words), len(terms.names), len(terms.grams)) for terms in passages]
    count = max(len(lengths), 1)
    words, names, grams = (
        (sum(column) / count for column in zip(*lengths, strict=True)) if lengths else (0, 0, 0)
    )
    return Averages(words, names, grams)


@lru_cache(maxsize=1 << 17)
def dimension_of(term: str) -> int:
    """The dimension that stands for a term, from 0."""
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % DIMENSIONS


def rarity(passages: int, holding: int) -> float:
    """BM25's inverse document frequency: ln(1 + (N - n + 0.5) / (n + 0.5)), as in the embedded index."""
    return math.log1p((max(passages, holding) - holding + 0.5) / (holding + 0.5))


def sparse_text(weights: Mapping[int, float]) -> str:
    """A sparse vector as PostgreSQL reads it."""
    elements = ",".join(f"{place + 1}:{weight!r}" for place, weight in sorted(weights.items()))
    return f"{{{elements}}}/{DIMENSIONS}"

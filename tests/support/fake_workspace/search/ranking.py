"""How an index ranks: BM25 over its words, nearest vectors, both fused, as Databricks describes them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import analyze

Vectors = NDArray[np.float32]
_DIMENSION = 256


def embed(texts: Sequence[str]) -> Vectors:
    """What an embedding endpoint of the workspace gives: texts that share words or letters are near."""
    vectors = np.zeros((len(texts), _DIMENSION), np.float32)
    for row, text in enumerate(texts):
        folded = f" {text.lower()} "
        grams = Counter(folded[i : i + 3] for i in range(len(folded) - 2))
        pieces = [*((term, 2.0 * count) for term, count in Counter(analyze(text)).items()), *grams.items()]
        for piece, count in pieces:
            place = int.from_bytes(hashlib.blake2b(piece.encode("utf-8", "replace"), digest_size=4).digest())
            vectors[row, place % _DIMENSION] += (1.0 if place & 1 << 20 else -1.0) * math.sqrt(count)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


class Words:
    """BM25 over texts; built once, asked often."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._postings: dict[str, list[tuple[int, int]]] = {}
        self._lengths = np.zeros(len(texts), np.float32)
        for row, text in enumerate(texts):
            terms = Counter(analyze(text))
            self._lengths[row] = terms.total()
            for term, count in terms.items():
                self._postings.setdefault(term, []).append((row, count))
        self._average = float(self._lengths.mean()) if len(texts) else 1.0

    def scores(self, query: str) -> Vectors:
        """One score a text; 0 where no word is shared."""
        total = len(self._lengths)
        scores = np.zeros(total, np.float32)
        for term in set(analyze(query)):
            postings = self._postings.get(term, [])
            idf = math.log(1 + (total - len(postings) + 0.5) / (len(postings) + 0.5))
            for row, count in postings:
                norm = 1.2 * (0.25 + 0.75 * float(self._lengths[row]) / self._average)
                scores[row] += idf * count * 2.2 / (count + norm)
        return scores


def nearness(vectors: Vectors, query: Sequence[float]) -> Vectors:
    """`1 / (1 + distance²)`, as Databricks scores neighbours."""
    difference = vectors - np.asarray(query, np.float32)
    return np.asarray(1 / (1 + (difference * difference).sum(axis=1)), np.float32)


def fuse(rankings: Sequence[Sequence[int]], k: int = 60) -> dict[int, float]:
    """Reciprocal rank fusion, scaled so that what is first everywhere has 1."""
    scores: Counter[int] = Counter()
    for ranking in rankings:
        for rank, row in enumerate(ranking, 1):
            scores[row] += (k + 1) / (k + rank) / len(rankings)  # type: ignore[assignment]
    return dict(scores)


def best(scores: Vectors, among: Sequence[int], n: int) -> list[int]:
    """The rows with the best scores above 0, best first, and the first of equals first."""
    return sorted((row for row in among if scores[row] > 0), key=lambda row: (-scores[row], row))[:n]

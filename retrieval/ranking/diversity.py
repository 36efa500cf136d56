"""Results that do not repeat one another: maximal marginal relevance, and a cap for each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import analyze, content_terms
from retrieval.types import Passage


def diversify(
    relevance: Sequence[float], vectors: NDArray[np.floating], diversity: float, n: int
) -> list[tuple[int, float]]:
    """The places of the first `n` by maximal marginal relevance, with what each was chosen for.

    The next is the one of the highest `(1 - diversity) * relevance - diversity * similarity`, the similarity
    being its cosine with the nearest that was chosen before (Carbonell and Goldstein, SIGIR 1998). A smaller
    `n` gives the beginning of a larger one, values never rise, and ties keep the order. `vectors` are of unit
    length, one a row; `relevance` is best between 0 and 1.

    Raises:
        ValueError: if there is not one vector for each, or `diversity` is not from 0 to 1.
    """
    if len(vectors) != len(relevance):
        raise ValueError(f"{len(relevance)} things need as many vectors, got {len(vectors)}")
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity must be from 0 to 1, got {diversity}")
    gain = (1 - diversity) * np.asarray(relevance, dtype=np.float64)
    nearest = np.zeros(len(relevance))
    left = np.ones(len(relevance), dtype=bool)
    chosen: list[tuple[int, float]] = []
    for _ in range(min(n, len(relevance))):
        values = np.where(left, gain - diversity * nearest, -np.inf)
        best = int(values.argmax())
        chosen.append((best, round(float(values[best]), 6)))
        left[best] = False
        similar = np.asarray(vectors @ vectors[best], dtype=np.float64)
        nearest = np.maximum(nearest, similar)
    return chosen


def term_vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors of the terms of texts, for where no embedding model is: square roots of counts, so that a
    term that comes often does not outweigh all others."""
    counts = [Counter(content_terms(analyze(text))) for text in texts]
    places = {term: place for place, term in enumerate(dict.fromkeys(t for count in counts for t in count))}
    vectors = np.zeros((len(texts), max(1, len(places))))
    for row, count in zip(vectors, counts, strict=True):
        for term, number in count.items():
            row[places[term]] = np.sqrt(number)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return vectors


def cap_documents(passages: Iterable[Passage], at_most: int) -> Iterator[Passage]:
    """The passages in their order, without those that come after `at_most` of the same document."""
    seen: Counter[str] = Counter()
    for passage in passages:
        seen[passage.doc_uri] += 1
        if seen[passage.doc_uri] <= at_most:
            yield passage

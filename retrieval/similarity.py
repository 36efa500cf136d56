"""Texts that are nearly the same, found among many: by the cosine of their character n-grams, and all of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import CJK_RUN

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

_PAIRS_AT_ONCE = 4_000_000
_CHECKED_AT_ONCE = 20_000
_FEW = 20
"""With more than one pair of so many to look at, it is faster to look at all."""
_NO_WORD = re.compile(r"[\W_]+")
_ROUNDING = 1e-5


def similar_pairs(
    texts: Sequence[str], others: Sequence[str] | None, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """The pairs with at least this cosine, as (row of `texts`, row of `others`, cosine), in order of rows.

    Without `others`, pairs within `texts`, the smaller row first. What is compared are runs of three characters of
    a text in NFKC, lower case and without punctuation, and in Chinese, Japanese and Korean runs of two, which are
    often a word; each weighs more the rarer it is among all these texts (TF-IDF; Salton & Buckley 1988). The order
    of words matters little. A text in other words is not found, however much it means the same.

    No pair is missed: those that have none of their rare n-grams in common cannot reach the threshold, and all
    others are compared, in blocks.

    Raises:
        ValueError: unless 0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    if not texts or others == []:
        return
    rows, columns = _vectors(texts, others)
    for i, j, cosine in _pairs(rows, columns, threshold - _ROUNDING):
        if others is not None or i < j:
            yield i, j, min(1.0, cosine)


def _ngrams(text: str) -> list[str]:
    words = _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    # The spaces mark where words begin and end; a text of punctuation alone is compared as it is.
    padded = f" {words or text} "
    grams = [padded[i : i + 3] for i in range(len(padded) - 2)]
    if not padded.isascii():
        grams += [run[i : i + 2] for run in CJK_RUN.findall(padded) for i in range(len(run) - 1)]
    return grams


def _vectors(texts: Sequence[str], others: Sequence[str] | None) -> tuple[csr_matrix, csr_matrix]:
    """One row of unit length for each text."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(analyzer=_ngrams, sublinear_tf=True, dtype=np.float32)
    fitted: Any = vectorizer.fit_transform(texts if others is None else [*texts, *others]).tocsr()
    return (fitted, fitted) if others is None else (fitted[: len(texts)], fitted[len(texts) :])


def _pairs(rows: csr_matrix, columns: csr_matrix, threshold: float) -> Iterator[tuple[int, int, float]]:
    """The pairs from the threshold on. All that can reach it have a rare n-gram in common (Bayardo et al. 2007)."""
    frequencies = np.bincount(columns.indices, minlength=columns.shape[1])
    if rows is not columns:
        frequencies += np.bincount(rows.indices, minlength=columns.shape[1])
    rarest_first = np.argsort(np.argsort(frequencies, kind="stable"))
    rare_of_rows = _rare_part(rows, rarest_first, threshold)
    rare_of_columns = _rare_part(columns, rarest_first, threshold).T.tocsr()
    by_ngram = columns.T.tocsr()
    rows_at_once = max(1, _PAIRS_AT_ONCE // columns.shape[0])
    for start in range(0, rows.shape[0], rows_at_once):
        block = slice(start, start + rows_at_once)
        candidates = (rare_of_rows[block] @ rare_of_columns).tocoo()
        i, j = candidates.row, candidates.col
        if len(i) * _FEW > rows_at_once * columns.shape[0]:
            cosines = (rows[block] @ by_ngram).tocoo()
            i, j, values = cosines.row, cosines.col, cosines.data
        else:
            values = _cosines(rows, columns, i + start, j)
        near = values >= threshold
        i, j, values = i[near] + start, j[near], values[near]
        for k in np.lexsort((j, i)):
            yield int(i[k]), int(j[k]), float(values[k])


def _rare_part(vectors: csr_matrix, rank: NDArray[np.int64], threshold: float) -> csr_matrix:
    """1 for the n-grams of each vector, rarest first, without which what is left is shorter than the threshold."""
    from scipy.sparse import csr_matrix

    owners = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    order = np.lexsort((rank[vectors.indices], owners))
    squares = vectors.data[order].astype(np.float64) ** 2
    before = np.cumsum(squares) - squares
    totals = np.concatenate([np.cumsum(squares), [0.0]])[vectors.indptr[1:] - 1]
    left = totals[owners] - before
    kept = order[left >= (threshold - _ROUNDING) ** 2]
    ones = np.ones(len(kept), np.float32)
    return csr_matrix((ones, (owners[kept], vectors.indices[kept])), shape=vectors.shape)


def _cosines(
    rows: csr_matrix, columns: csr_matrix, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The cosine of each pair of a row of the one and a row of the other."""
    parts = [
        np.asarray(rows[i[start:end]].multiply(columns[j[start:end]]).sum(axis=1)).ravel()
        for start in range(0, len(i), _CHECKED_AT_ONCE)
        for end in [start + _CHECKED_AT_ONCE]
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)

"""How alike texts are letter by letter: what words alone miss of compounds, inflections and misspellings.

Nothing of it is in the index: the first passages of a ranking are compared as they are found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Numbers: TypeAlias = NDArray[np.intp]

_WORD = re.compile(r"[^\W_]+")
_LETTERS = 4
_FIRST_CJK = 0x3005
_KINDS = 1 << 15
"""Runs are told apart by so many numbers, several times as many as are ever compared at once."""

_BITS = np.uint64(16)
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: its multiples spread evenly


def letter_likeness(question: str, texts: Sequence[str]) -> list[float]:
    """The likeness (0 to 1) of each text to the question: the cosine of their runs of letters.

    Runs are of four characters within a word and its borders; of Chinese, Japanese and Korean, of one and two.
    Each counts by its logarithmic frequency, and by how few of `texts` hold it: what they are compared for is
    what tells them apart.
    """
    if not texts:
        return []
    runs, owners = _runs(texts)
    asked = np.bincount(_runs([question])[0], minlength=_KINDS)
    cells, counts = np.unique((owners * _KINDS + runs).astype(np.int32), return_counts=True)
    text, run = cells // _KINDS, cells % _KINDS
    rarity = np.log((1 + len(texts)) / (1 + np.bincount(run, minlength=_KINDS))) + 1
    weights = (1 + np.log(counts)) * rarity[run]
    wanted = np.where(asked, (1 + np.log(np.maximum(asked, 1))) * rarity, 0.0)
    shared = np.bincount(text, weights * wanted[run], minlength=len(texts))
    lengths = np.sqrt(np.bincount(text, weights * weights, minlength=len(texts)) * np.square(wanted).sum())
    likeness = np.divide(shared, lengths, out=np.zeros(len(texts)), where=lengths > 0)
    return [round(float(value), 6) for value in np.minimum(likeness, 1.0)]


def _runs(texts: Sequence[str]) -> tuple[_Numbers, _Numbers]:
    """The numbers of all runs of all texts, and the place of the text that each is of."""
    folded = [f" {' '.join(_WORD.findall(_fold(text)))} " for text in texts]
    # Runs of four hold no space within, so that none goes from one text into the next.
    codes = np.frombuffer("".join(folded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in folded])
    is_cjk, is_space = codes >= _FIRST_CJK, codes == ord(" ")
    runs = [_take(codes, owners, _LETTERS, ~(is_cjk | is_space), ~is_cjk)]
    if is_cjk.any():
        runs += [_take(codes, owners, length, is_cjk, is_cjk) for length in (1, 2)]
    return np.concatenate([grams for grams, _ in runs]), np.concatenate([of for _, of in runs])


def _take(
    codes: NDArray[np.uint64],
    owners: _Numbers,
    length: int,
    inner: NDArray[np.bool_],
    outer: NDArray[np.bool_],
) -> tuple[_Numbers, _Numbers]:
    """The runs of a length whose first and last characters are `outer` and whose others are `inner`."""
    count = max(0, len(codes) - length + 1)
    grams, valid = np.zeros(count, dtype=np.uint64), np.ones(count, dtype=bool)
    for i in range(length):
        grams |= (codes[i : i + count] & np.uint64(0xFFFF)) << (_BITS * np.uint64(i))
        valid &= (outer if i in (0, length - 1) else inner)[i : i + count]
    numbers = (grams[valid] * _MIXER) >> np.uint64(64 - 15)
    return numbers.astype(np.intp), owners[:count][valid]


def _fold(text: str) -> str:
    # Lower case may be longer than what it is of; a lone surrogate cannot be encoded.
    return unicodedata.normalize("NFKC", text).lower().encode("utf-8", "replace").decode("utf-8")

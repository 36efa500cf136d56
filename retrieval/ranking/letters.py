"""How alike texts are letter by letter: what words alone miss of compounds, inflections and misspellings.

Nothing of it is in the index: the first passages of a ranking are compared as they are found.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Numbers: TypeAlias = NDArray[np.int32]

_LETTERS = 4
_LONGEST_QUESTION = 10_000
"""Characters: of one that is longer, which is no question that a person typed, the rest is left out."""

_FIRST_CJK, _LAST = 0x3005, 0xFFFF
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
    asked, times = np.unique(_runs([question[:_LONGEST_QUESTION]])[0], return_counts=True)
    cells, counts = np.unique(owners * np.int32(_KINDS) + runs, return_counts=True)
    text, run = cells // _KINDS, cells % _KINDS
    holding = np.bincount(run, minlength=_KINDS)
    weights = (1 + np.log(counts)) * _rarity(holding[run], len(texts))
    wanted = np.zeros(_KINDS)
    wanted[asked] = (1 + np.log(times)) * _rarity(holding[asked], len(texts))
    shared = np.bincount(text, weights * wanted[run], minlength=len(texts))
    lengths = np.sqrt(np.bincount(text, weights * weights, minlength=len(texts)) * np.square(wanted).sum())
    likeness = np.divide(shared, lengths, out=np.zeros(len(texts)), where=lengths > 0)
    return [round(float(value), 6) for value in np.minimum(likeness, 1.0)]


def _rarity(holding: NDArray[np.intp], texts: int) -> NDArray[np.float64]:
    return np.log((1 + texts) / (1 + holding)) + 1


def _runs(texts: Sequence[str]) -> tuple[_Numbers, _Numbers]:
    """The numbers of all runs of all texts, and the place of the text that each is of."""
    # Runs of four hold no space within, so that none goes from one text into the next.
    folded = [f" {_fold(text)} " for text in texts]
    codes = np.frombuffer("".join(folded).encode("utf-32-le"), dtype=np.uint32)
    codes = np.where(codes > _LAST, ord(" "), codes)
    letters = np.where(_in_words()[codes], codes, ord(" ")).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in folded])
    is_space, is_cjk = letters == ord(" "), letters >= _FIRST_CJK
    if not is_cjk.any():
        return _take(letters, owners, _LETTERS, ~is_space, None)
    runs = [_take(letters, owners, _LETTERS, ~(is_cjk | is_space), ~is_cjk)]
    runs += [_take(letters, owners, length, is_cjk, is_cjk) for length in (1, 2)]
    return np.concatenate([grams for grams, _ in runs]), np.concatenate([of for _, of in runs])


def _take(
    codes: NDArray[np.uint64],
    owners: _Numbers,
    length: int,
    inner: NDArray[np.bool_],
    outer: NDArray[np.bool_] | None,
) -> tuple[_Numbers, _Numbers]:
    """The runs of a length whose first and last characters are `outer` (any, if None) and whose others `inner`."""
    count = max(0, len(codes) - length + 1)
    valid = np.ones(count, dtype=bool)
    for i in range(length):
        wanted = outer if i in (0, length - 1) else inner
        if wanted is not None:
            valid &= wanted[i : i + count]
    places = np.flatnonzero(valid)
    grams = codes[places]
    for i in range(1, length):
        grams |= codes[places + i] << (_BITS * np.uint64(i))
    numbers = (grams * _MIXER) >> np.uint64(64 - 15)
    return numbers.astype(np.int32), owners[places]


@lru_cache(maxsize=1)
def _in_words() -> NDArray[np.bool_]:
    """Whether a character, by its number, is one of words."""
    return np.array([chr(code).isalnum() for code in range(_LAST + 1)])


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    # A lone surrogate cannot be encoded.
    return unicodedata.normalize("NFKC", text).lower().encode("utf-8", "replace").decode("utf-8")

"""The vectors of an index on disk: written with a generation, mapped into memory, and searched by nearness.

    vectors.faiss   each vector in 16-bit floats, in the order of the passages' rows
    signs.faiss     of more than some ten thousand vectors, one bit a dimension: what is worth comparing exactly
    places.npy      the row of each vector, and the address of its passage

Up to that size, and among so few that filters leave, all vectors are compared: the result is exact. Above it,
the signs (RaBitQ, Gao and Long, SIGMOD 2024) find candidates, whose vectors are compared. Neither needs
fitting, so that an index that was brought up to date finds what one that was built anew finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import FieldType, Order, Query

from retrieval.embedders.embedder import Embedder
from retrieval.errors import EmbeddingError
from retrieval.extras import needs_extra
from retrieval.lexical import ROW, indexed_text
from retrieval.types import Passage

VECTORS, SIGNS, PLACES = "vectors.faiss", "signs.faiss", "places.npy"
FILES = (VECTORS, SIGNS, PLACES)

EXACT_MOST = 20_000
"""So many vectors are compared one by one: as soon as the signs of more take as long."""

_CANDIDATES = 256
_CANDIDATES_PER_HIT = 12
_FEW = 100_000
"""Of more vectors, more candidates are compared: the signs tell the best from the next best less well."""

_SCORE_DIGITS = 6
_TEXTS_AT_ONCE = 256
_VECTORS_AT_ONCE = 32_768
_ROWS_AT_ONCE = 100_000
_DRAFT = "vectors.draft"
_UNIT_LENGTH = 1e-3

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which of the vectors may be found."""

    mask: NDArray[np.bool_]
    count: int

    @classmethod
    def of(cls, positions: Positions, size: int) -> Allowed:
        """Those at `positions`, of `size` vectors."""
        mask = np.zeros(size, np.bool_)
        mask[positions] = True
        return cls(mask, int(np.count_nonzero(mask)))


class Vectors:
    """The vectors of a generation, by position. They stay readable when the files are removed.

    Raises:
        ConfigurationError: if the extra `dense` is missing.
        ValueError, OSError: if the files are damaged.
    """

    def __init__(self, directory: Path) -> None:
        faiss = _faiss()
        self._faiss = faiss
        has_signs = (directory / SIGNS).exists()
        try:
            self._exact = faiss.read_index(str(directory / VECTORS), faiss.IO_FLAG_MMAP_IFC)
            self._signs = faiss.read_index(str(directory / SIGNS)) if has_signs else None
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        self.rows, self.addresses = np.load(directory / PLACES, mmap_mode="r")
        if not len(self.rows) == self._exact.ntotal == (self._signs or self._exact).ntotal:
            raise ValueError(f"{directory / PLACES} and {VECTORS} are not of one index")
        size = self._exact.code_size * len(self.rows)
        codes = faiss.rev_swig_ptr(self._exact.codes.data(), size) if size else np.empty(0, np.uint8)
        self._codes: NDArray[np.uint8] = codes.reshape(-1, self._exact.code_size)
        self._order: Positions | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """The length of each."""
        return int(self._exact.d)

    def nearest(
        self, query: NDArray[np.float32], n: int, allowed: Allowed | None = None
    ) -> tuple[Positions, NDArray[np.float32]]:
        """Positions and cosines of the n nearest, and of all that tie with the last, best first."""
        limit = n + 1
        while True:
            positions, scores = self._best(query, limit, allowed)
            if len(positions) < limit or scores[-1] < scores[n - 1]:
                is_found = scores >= scores[min(n, len(scores)) - 1] if len(scores) else slice(0)
                return positions[is_found], scores[is_found]
            limit *= 4

    def at(self, positions: Positions) -> NDArray[np.float32]:
        """The vectors there, of length one up to the last digits of a 16-bit float."""
        vectors: NDArray[np.float32] = self._exact.sa_decode(np.ascontiguousarray(self._codes[positions]))
        return vectors

    def codes(self, positions: Positions) -> NDArray[np.uint8]:
        """The vectors as they are on disk."""
        return self._codes[positions]

    def positions_of_rows(self, rows: NDArray[np.uint64]) -> Positions:
        """Where the vectors of these rows are, all of which have one."""
        return np.searchsorted(self.rows, rows)

    def positions_at(self, addresses: NDArray[np.uint64]) -> Positions:
        """Where the vectors of the passages at these addresses are."""
        if self._order is None:
            self._order = np.argsort(self.addresses)
        return self._order[np.searchsorted(self.addresses, addresses, sorter=self._order)]

    def _best(
        self, query: NDArray[np.float32], limit: int, allowed: Allowed | None
    ) -> tuple[Positions, NDArray[np.float32]]:
        count = len(self) if allowed is None else allowed.count
        limit = min(limit, count)
        if limit and self._signs is not None and count > EXACT_MOST:
            enough = max(_CANDIDATES, _CANDIDATES_PER_HIT * limit) * max(1.0, (count / _FEW) ** 0.5)
            wanted = int(enough * len(self) / count)
            found = self._signs.search(query[None], min(wanted, len(self)))[1][0]
            found = np.sort(
                found[found >= 0] if allowed is None else found[(found >= 0) & allowed.mask[found]]
            )
            if len(found) >= limit:
                # Not a product of matrices, whose last digits depend on a vector's place among the others.
                scores = np.einsum("ij,j->i", self.at(found), query)
                best = np.argsort(-scores, kind="stable")[:limit]
                return found[best], scores[best].round(_SCORE_DIGITS)
        parameters = None if allowed is None else self._only(allowed)
        exact, positions = self._exact.search(query[None], max(limit, 1), params=parameters)
        is_there = positions[0] >= 0
        return positions[0][is_there], exact[0][is_there].round(_SCORE_DIGITS)

    def _only(self, allowed: Allowed) -> Any:
        bits = np.packbits(allowed.mask, bitorder="little")
        return self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))


class VectorDraft:
    """The vectors of a generation in the making: embedded as passages come, and written when all have come."""

    def __init__(self, directory: Path, embedder: Embedder, base: Path | None, first_row: int) -> None:
        _faiss()
        self._directory = directory
        self._embedder = embedder
        self._base = Vectors(base) if base else None
        self._first_row = first_row
        self._texts: list[str] = []
        self._dimension = embedder.dimension  # which asks an endpoint, and it may refuse
        self._file = (directory / _DRAFT).open("w+b")
        for name in FILES:
            # They may be links to those of the generation before.
            (directory / name).unlink(missing_ok=True)

    def add(self, passage: Passage) -> None:
        """Embed the passage, some time: it has the next row.

        Raises:
            EmbeddingError: if the model fails.
        """
        self._texts.append(indexed_text(passage))
        if len(self._texts) >= _TEXTS_AT_ONCE:
            self._embed()

    def finish(self, index: tantivy.Index) -> None:
        """Write the vectors of the passages that the index holds, new ones and those of the base."""
        self._embed()
        self._file.flush()
        rows, addresses = _live_rows(index, self._first_row + self._new)
        np.save(self._directory / PLACES, np.stack([rows, addresses]))
        with (self._directory / VECTORS).open("wb") as file:
            file.write(_header(self._dimension, len(rows)))
            for codes in self._codes(rows):
                file.write(codes.tobytes())
        if len(rows) > EXACT_MOST:
            self._write_signs()
        self.close()

    def close(self) -> None:
        """Remove what is only for the making."""
        self._file.close()
        (self._directory / _DRAFT).unlink(missing_ok=True)

    @property
    def _new(self) -> int:
        return self._file.tell() // (2 * self._dimension)

    def _embed(self) -> None:
        if not self._texts:
            return
        vectors = self._embedder.embed_passages(self._texts)
        expected = (len(self._texts), self._dimension)
        if vectors.shape != expected:
            raise EmbeddingError(
                f"The embedding model '{self._embedder.name}' gave vectors of the shape {vectors.shape} "
                f"instead of {expected}."
            )
        lengths = np.linalg.norm(vectors, axis=1)
        if not np.allclose(lengths[lengths != 0], 1, atol=_UNIT_LENGTH):
            raise EmbeddingError(
                f"The embedding model '{self._embedder.name}' gave vectors not of length one."
            )
        self._file.write(vectors.astype("<f2").tobytes())
        self._texts.clear()

    def _codes(self, rows: NDArray[np.uint64]) -> Iterator[NDArray[np.uint8]]:
        """The vectors of `rows`, some at a time, as they are on disk."""
        size = 2 * self._dimension
        drafted = (
            np.memmap(self._file, np.uint8, "r", shape=(self._new, size))
            if self._new
            else np.empty((0, size), np.uint8)
        )
        for start in range(0, len(rows), _VECTORS_AT_ONCE):
            some = rows[start : start + _VECTORS_AT_ONCE]
            old = some[some < self._first_row]
            if len(old) and self._base:
                yield self._base.codes(self._base.positions_of_rows(old))
            yield drafted[(some[len(old) :] - self._first_row).astype(np.int64)]

    def _write_signs(self) -> None:
        faiss = _faiss()
        written = faiss.read_index(str(self._directory / VECTORS), faiss.IO_FLAG_MMAP_IFC)
        codes = faiss.rev_swig_ptr(written.codes.data(), written.code_size * written.ntotal)
        codes = codes.reshape(written.ntotal, written.code_size)
        starts = range(0, written.ntotal, _VECTORS_AT_ONCE)
        total = np.zeros(self._dimension)
        for start in starts:
            total += written.sa_decode(codes[start : start + _VECTORS_AT_ONCE]).sum(axis=0, dtype=np.float64)
        signs = faiss.IndexRaBitQFastScan(self._dimension, faiss.METRIC_INNER_PRODUCT)
        # All that is fitted is the centre from which the signs are taken.
        signs.train((total / written.ntotal).astype(np.float32)[None])
        for start in starts:
            signs.add(written.sa_decode(codes[start : start + _VECTORS_AT_ONCE]))
        faiss.write_index(signs, str(self._directory / SIGNS))


def to_address(address: tantivy.DocAddress) -> int:
    """An address as a number: tantivy's own cannot be hashed."""
    return int(address.segment_ord) << 32 | int(address.doc)


def _live_rows(index: tantivy.Index, end: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The rows of all passages in rising order, and the address of each."""
    searcher = index.searcher()
    parts: list[NDArray[np.uint64]] = [np.empty((0, 2), np.uint64)]
    for start in range(0, end, _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        some = Query.range_query(index.schema, ROW, FieldType.Unsigned, start, stop, include_upper=False)
        hits = searcher.search(some, _ROWS_AT_ONCE, count=False, order_by_field=ROW, order=Order.Asc).hits
        if hits:
            parts.append(np.array([(row, to_address(address)) for row, address in hits], np.uint64))
    rows, addresses = np.concatenate(parts).T
    return rows, addresses


def _header(dimension: int, count: int) -> bytes:
    """What stands before the vectors in a file of faiss, so that they need not be in memory all at once."""
    faiss = _faiss()
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.ntotal = count
    header: bytes = faiss.serialize_index(index)[:-8].tobytes()
    length: bytes = (count * index.code_size).to_bytes(8, "little")
    return header + length


def _faiss() -> Any:
    with needs_extra("dense", "an index with vectors"):
        import faiss
    return faiss

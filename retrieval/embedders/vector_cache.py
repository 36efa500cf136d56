"""Vectors that were computed once, by what they were computed from: one SQLite file for many threads and processes.

It can be deleted at any time, and nothing is lost but time (and money, where an endpoint embeds).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embedders.embedder import Embedder, Vectors
from retrieval.sqlite_cache import SqliteCache

_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
_KEY_BYTES = 16
_CHECK_BYTES = 4
_MOST_VARIABLES = 500


class VectorCache(SqliteCache):
    """Vectors by key, as 16-bit floats. What is put is there when `put` returns, whatever then ends the process.

    A vector that does not match its checksum is as one that is not there.

    Raises:
        StorageError: if the file cannot be read or written, is locked for a minute, or is something else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors that are there."""
        found: dict[bytes, Vectors] = {}
        for start in range(0, len(keys), _MOST_VARIABLES):
            some = keys[start : start + _MOST_VARIABLES]
            marks = ",".join("?" * len(some))
            rows = self._read(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some)
            found.update(
                (key, vector) for key, packed in rows if (vector := _unpack(key, packed)) is not None
            )
        return found

    def put(self, vectors: Mapping[bytes, NDArray[np.floating]]) -> None:
        """Keep vectors by key, all or none of them."""
        rows = [(key, _pack(key, vector)) for key, vector in vectors.items()]
        self._write_all("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)


class CachedEmbedder:
    """An embedder that computes the vector of a passage once. Queries are not kept.

    What it gives is what the cache holds, whether it was there or is only now: vectors in 16 bits and
    lengthened to one again.
    """

    def __init__(self, embedder: Embedder, cache: VectorCache) -> None:
        self._embedder = embedder
        self._cache = cache
        self.name = embedder.name
        self.fingerprint = embedder.fingerprint

    @property
    def dimension(self) -> int:
        """The model's."""
        return self._embedder.dimension

    @property
    def truncated(self) -> int:
        """The passages that were cut when they were embedded; those in the cache are not counted again."""
        return self._embedder.truncated

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """As the embedder's, for what is not in the cache yet."""
        keys = [self._key(text) for text in texts]
        known = self._cache.get(list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            new = self._embedder.embed_passages(list(missing.values()))
            vectors = dict(zip(missing, new.astype(np.float16), strict=True))
            self._cache.put(vectors)
            known.update((key, _lengthened(vector)) for key, vector in vectors.items())
        if not keys:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([known[key] for key in keys])

    def embed_query(self, text: str) -> Vectors:
        """As the embedder's."""
        return self._embedder.embed_query(text)

    def _key(self, text: str) -> bytes:
        content = f"{self.fingerprint}\0{text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=_KEY_BYTES).digest()


def _pack(key: bytes, vector: NDArray[np.floating]) -> bytes:
    content = vector.astype("<f2").tobytes()
    return zlib.crc32(key + content).to_bytes(_CHECK_BYTES, "little") + content


def _unpack(key: bytes, packed: object) -> Vectors | None:
    if not isinstance(packed, bytes):
        return None
    check, content = packed[:_CHECK_BYTES], packed[_CHECK_BYTES:]
    if not content or len(content) % 2 or check != zlib.crc32(key + content).to_bytes(_CHECK_BYTES, "little"):
        return None
    return _lengthened(np.frombuffer(content, "<f2"))


def _lengthened(vector: NDArray[np.floating]) -> Vectors:
    whole: Vectors = vector.astype(np.float32)
    length = np.linalg.norm(whole)
    if length:
        whole /= length
    return whole

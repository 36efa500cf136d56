"""What was computed once, by the hash of what it was computed from: one SQLite file for many threads and processes.

A content store can be deleted at any time, and nothing is lost but time (and money, where a language model answered).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from program.files import to_json
from retrieval.sqlite_cache import SqliteCache

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS contents "
    "(kind TEXT, key TEXT, value BLOB, check_ BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
)
_DIGEST_BYTES = 8


def content_key(*parts: Any) -> str:
    """A hash of values that JSON can hold: the same for the same content, in any process; 32 characters."""
    content = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ContentStore(SqliteCache):
    """JSON objects by kind and key. What is put is on disk when `put` returns, whatever then ends the process.

    A value that does not match its checksum is as one that is not there, and counted in `damaged`.

    Raises:
        StorageError: if the file cannot be read or written, is locked for a minute, or is no store.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)
        self.damaged = 0

    def __enter__(self) -> ContentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The value; None where there is none, or only a damaged one."""
        rows = self._read("SELECT value, check_ FROM contents WHERE kind = ? AND key = ?", (kind, key))
        if not rows:
            return None
        packed, checksum = rows[0]
        if not isinstance(packed, bytes) or checksum != _checksum(kind, key, packed):
            self.damaged += 1
            return None
        value: dict[str, Any] = json.loads(zlib.decompress(packed))
        return value

    def put(self, kind: str, key: str, value: dict[str, Any]) -> None:
        """Keep a value, in place of one that is there."""
        self.put_all(kind, {key: value})

    def put_all(self, kind: str, values: Mapping[str, dict[str, Any]]) -> None:
        """Keep values by key, all or none of them, in one transaction."""
        rows = [(kind, key, packed, _checksum(kind, key, packed)) for key, packed in _packed(values)]
        self._write_all("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", rows)


def _packed(values: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    for key, value in values.items():
        yield key, zlib.compress(to_json(value), 1)


def _checksum(kind: str, key: str, packed: bytes) -> bytes:
    # With its address, so that a value cannot pass for another's.
    content = b"\0".join((kind.encode(), key.encode(), packed))
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()

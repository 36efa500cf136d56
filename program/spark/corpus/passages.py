"""What a row of the passage table holds, and how a passage becomes one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa  # type: ignore[import-untyped]

from retrieval.errors import ConfigurationError
from retrieval.types import Passage

ColumnType: TypeAlias = Literal["string", "bigint", "double", "boolean"]

PRIMARY_KEY = "chunk_id"
TEXT = "text"
VECTOR = "embedding"
VECTOR_KEY = "embedding_key"
DIGEST = "digest"
FORMAT_VERSION = 1
"""Raised with every change of what a row holds, so that tables are made anew."""

_TYPES: Mapping[ColumnType, tuple[Any, tuple[type, ...]]] = {
    "string": (pa.string(), (str,)),
    "bigint": (pa.int64(), (int,)),
    "double": (pa.float64(), (int, float)),
    "boolean": (pa.bool_(), (bool,)),
}
_FIELDS = (
    (PRIMARY_KEY, pa.string()),
    ("doc_uri", pa.string()),
    (TEXT, pa.string()),
    ("title", pa.string()),
    ("lang", pa.string()),
    ("url", pa.string()),
    ("headings", pa.list_(pa.string())),
    ("start_char", pa.int64()),
    ("end_char", pa.int64()),
    ("metadata", pa.string()),
)
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class PassageRows:
    """Makes rows of passages. `metadata_columns` are the metadata that have columns of their own, with their types.

    `embedder` is the fingerprint of the model that makes the vectors of the table, "" where it has none. Rows of
    equal `digest` are equal, vector included; texts of equal `embedding_key` have one vector.

    Raises:
        ConfigurationError: if two columns would have one name.
    """

    metadata_columns: Mapping[str, ColumnType]
    embedder: str = ""

    def __post_init__(self) -> None:
        for name in self.metadata_columns:
            if name.lower() in {*(field for field, _ in _FIELDS), DIGEST, VECTOR, VECTOR_KEY}:
                raise ConfigurationError(
                    f"pipeline.metadata_columns: '{name}' is a column of every passage table. Call the metadata "
                    "otherwise, or leave it in the column 'metadata'."
                )

    @property
    def schema(self) -> pa.Schema:
        """The columns without the vector, which is made later."""
        more = [(name, _TYPES[kind][0]) for name, kind in self.metadata_columns.items()]
        keyed = [(VECTOR_KEY, pa.string())] if self.embedder else []
        return pa.schema([*_FIELDS, *more, *keyed, (DIGEST, pa.string())])

    @property
    def names(self) -> list[str]:
        """The names of all columns of the table, in their order."""
        return [*self.schema.names, *([VECTOR] if self.embedder else [])]

    def row(self, passage: Passage) -> tuple[Any, ...]:
        """The cells of a passage, in the order of `schema`.

        A metadatum of another type than its column's is in `metadata` alone.
        """
        metadata = json.dumps(passage.metadata, ensure_ascii=False) if passage.metadata else "{}"
        stated = [
            _writable(passage.chunk_id),
            _writable(passage.doc_uri),
            _writable(passage.text),
            _writable(passage.title),
            passage.lang,
            _writable(passage.url),
            [_writable(heading) for heading in passage.headings],
            passage.start,
            passage.end,
            _writable(metadata),
        ]
        own = [_of_type(passage.metadata.get(name), kind) for name, kind in self.metadata_columns.items()]
        keyed = [_digest(self.embedder, passage.text)] if self.embedder else []
        cells = [*stated, *own, *keyed]
        return (*cells, _digest(*map(str, cells)))


def _of_type(value: Any, kind: ColumnType) -> Any:
    fits = isinstance(value, _TYPES[kind][1]) and isinstance(value, bool) == (kind == "boolean")
    if not fits or (kind == "bigint" and not -(2**63) <= value < 2**63):
        return None
    return float(value) if kind == "double" else value


def _digest(*parts: str) -> str:
    # Lengths tell where one ends and the next begins.
    whole = " ".join([*map(str, map(len, parts)), *parts]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(whole, digest_size=_KEY_BYTES).hexdigest()


def _writable(text: str) -> str:
    """Text as a table can hold it: halves of surrogate pairs, which are no characters, become a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")

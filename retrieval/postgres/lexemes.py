"""Terms as PostgreSQL's full text search keeps and asks for them: as they are, by none of its dictionaries."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

_TSVECTOR = 3614
"""The type's number, which is the same in every database."""


@dataclass(frozen=True, slots=True)
class Lexemes:
    """Different terms, as a `tsvector` without positions."""

    terms: list[str]


class _LexemesDumper(Dumper):
    format = Format.BINARY
    oid = _TSVECTOR

    def dump(self, obj: Lexemes) -> bytes:
        # A number of lexemes, and of each its bytes, a zero, and how many positions it has.
        lexemes = b"".join(b"%s\0\0\0" % term.encode() for term in obj.terms)
        return struct.pack(">i", len(obj.terms)) + lexemes


def register_lexemes(connection: Connection[object]) -> None:
    """Have a connection take `Lexemes` in its binary copies."""
    connection.adapters.register_dumper(Lexemes, _LexemesDumper)


def any_of(terms: Iterable[str]) -> str:
    """A `tsquery` that holds where one of the terms is, as text."""
    return " | ".join(f"'{_quoted(term)}'" for term in terms)


def _quoted(term: str) -> str:
    return term.replace("\\", "\\\\").replace("'", "''")

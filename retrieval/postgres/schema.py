"""The tables of a corpus: what is in each, and how they are made, found and put in place of others.

<table>            a passage a row: what is searched (`terms`, `weights`, `embedding`) and what is shown
<table>_documents  a document a row: the digest that tells whether it changed, and the source it came from
<table>_terms      how many passages hold a term
<table>_corpus     one row: what the corpus was made with, and how much it is
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.errors import ConfigurationError
from retrieval.postgres.weights import DIMENSIONS

if TYPE_CHECKING:
    from retrieval.postgres.connections import Connection

FORMAT = 1
"""Raised with every change of the tables: a corpus remembers the one that it was made with."""

MOST_EXACT = 20_000
"""So many vectors are compared one by one, as in the embedded index; of more, an index finds the nearest."""

_PARTS = ("", "_documents", "_terms", "_corpus")
_LONGEST = 63 - len("_documents_new")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MOST_INDEXED_DIMENSIONS = 4000


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of the tables of a corpus, ready for SQL."""

    schema: str
    name: str

    @classmethod
    def of(cls, table: str) -> Tables:
        """From `table` or `schema.table`.

        Raises:
            ConfigurationError: if it is not a plain name.
        """
        schema, _, name = table.rpartition(".")
        if not all(_NAME.fullmatch(part) for part in (schema or "public", name)) or len(name) > _LONGEST:
            raise ConfigurationError(
                f"retrieval.pgvector.table = {table!r}: must be a name, or schema.name, of small letters, digits and "
                f"underscores, of at most {_LONGEST} characters."
            )
        return cls(schema, name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def passages(self) -> str:
        """The table of passages."""
        return self.part("")

    @property
    def documents(self) -> str:
        """The table of documents."""
        return self.part("_documents")

    @property
    def terms(self) -> str:
        """The table of terms."""
        return self.part("_terms")

    @property
    def corpus(self) -> str:
        """The table of what the corpus was made with."""
        return self.part("_corpus")

    def beside(self) -> Tables:
        """The names of tables that are made to take the place of these."""
        return Tables(self.schema, f"{self.name}_new")

    def part(self, suffix: str) -> str:
        """One of the tables, by what its name ends in."""
        name = f'"{self.name}{suffix}"'
        return f'"{self.schema}".{name}' if self.schema else name


def exists(connection: Connection, table: str) -> bool:
    """Whether there is a table of this name."""
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    return bool(found and found[0])


def create(connection: Connection, tables: Tables) -> None:
    """Make empty tables, without the indexes that are made faster afterwards: see `create_indexes`."""
    connection.execute(
        # In the order of the bytes, as Python compares, whatever the database's language is.
        f"""
        CREATE TABLE {tables.passages} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            doc_uri text COLLATE "C" NOT NULL,
            start integer NOT NULL,
            "end" integer NOT NULL,
            chunk_id text NOT NULL,
            title text COLLATE "C" NOT NULL,
            lang text COLLATE "C" NOT NULL,
            fragment text NOT NULL,
            headings text[] NOT NULL,
            metadata jsonb NOT NULL,
            text text NOT NULL,
            terms tsvector NOT NULL,
            weights sparsevec({DIMENSIONS}) NOT NULL,
            embedding vector
        );
        -- What searches compare stays with the row, where it is read thirty times as fast; where a row is long,
        -- what is only shown goes beside it.
        ALTER TABLE {tables.passages} ALTER COLUMN weights SET STORAGE MAIN;
        ALTER TABLE {tables.passages} ALTER COLUMN embedding SET STORAGE MAIN;
        CREATE TABLE {tables.documents} (
            doc_uri text COLLATE "C" PRIMARY KEY,
            digest bigint NOT NULL,
            source text COLLATE "C" NOT NULL,
            place text NOT NULL
        );
        CREATE TABLE {tables.terms} (term text COLLATE "C" PRIMARY KEY, passages bigint NOT NULL);
        CREATE TABLE {tables.corpus} (
            format integer NOT NULL,
            analyzer integer NOT NULL,
            max_tokens integer NOT NULL,
            overlap_tokens integer NOT NULL,
            chunker text NOT NULL,
            embedder_name text NOT NULL,
            embedder text NOT NULL,
            dimension integer NOT NULL,
            average_words double precision NOT NULL,
            average_names double precision NOT NULL,
            average_grams double precision NOT NULL,
            averaged bigint NOT NULL,
            documents bigint NOT NULL,
            passages bigint NOT NULL,
            languages text[] NOT NULL,
            content_hash text NOT NULL
        )
        """
    )


def create_indexes(connection: Connection, tables: Tables) -> None:
    """Make what finds passages by their terms, document and metadata, and documents by their source."""
    connection.execute(
        f"""
        SET LOCAL maintenance_work_mem = '256MB';
        CREATE INDEX ON {tables.passages} USING gin (terms) WITH (fastupdate = off);
        CREATE INDEX ON {tables.passages} (doc_uri, start);
        CREATE INDEX ON {tables.passages} USING gin (metadata jsonb_path_ops) WITH (fastupdate = off);
        CREATE INDEX ON {tables.documents} (source)
        """
    )


def create_vector_index(connection: Connection, tables: Tables, dimension: int, passages: int) -> None:
    """Make what finds the nearest of many vectors, where they are many and there is none yet."""
    if not has_vector_index(dimension, passages):
        return
    found = connection.execute(
        "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
        "WHERE indrelid = to_regclass(%s) AND amname = 'hnsw'",
        [tables.passages],
    ).fetchone()
    if not found or not found[0]:
        # Half the memory; the nearest by it are compared by the full vectors.
        connection.execute(
            f"CREATE INDEX ON {tables.passages} USING hnsw ((embedding::halfvec({dimension})) halfvec_ip_ops)"
        )


def has_vector_index(dimension: int, passages: int) -> bool:
    """Whether nearness is looked up in an index rather than computed for every passage."""
    return 0 < dimension <= _MOST_INDEXED_DIMENSIONS and passages > MOST_EXACT


def put_in_place(connection: Connection, tables: Tables) -> None:
    """Put the tables beside `tables` in their place; who could read those can read these."""
    beside = tables.beside()
    for part in _PARTS:
        old, new = tables.part(part), beside.part(part)
        if exists(connection, old):
            _grant_alike(connection, old, new)
            connection.execute(f"DROP TABLE {old}")
        connection.execute(f'ALTER TABLE {new} RENAME TO "{tables.name}{part}"')


def _grant_alike(connection: Connection, old: str, new: str) -> None:
    rows = connection.execute(
        "SELECT DISTINCT coalesce(quote_ident(rolname), 'PUBLIC') "
        "FROM pg_class CROSS JOIN aclexplode(relacl) AS granted LEFT JOIN pg_roles ON pg_roles.oid = grantee "
        "WHERE pg_class.oid = to_regclass(%s) AND privilege_type = 'SELECT' AND grantee <> relowner",
        [old],
    ).fetchall()
    for (role,) in rows:
        connection.execute(f"GRANT SELECT ON {new} TO {role}")

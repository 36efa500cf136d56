"""Vectors of passages, made by executors in slices that are each kept when they are done.

What was embedded is not paid for again: texts whose vector the table has, or the journal of a run that was ended,
are known. Beside a directory `passages` the journal is `passages.run/vectors`, beside a table `passages_run_vectors`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa  # type: ignore[import-untyped]

from program.spark.corpus.passages import TEXT, VECTOR, VECTOR_KEY
from program.spark.corpus.staging import stage, staging
from program.spark.tables import Place, append, read_if_there
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.errors import EmbeddingError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA = "key string, vector array<float>, error string, slice string"
_ARROW = pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float32())), ("error", pa.string())])
_REQUESTS_PER_TASK = 25
_TEXTS_PER_REQUEST = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Embedding:
    """Which model embeds, in how many tasks at once, and how many requests a minute they make together at most.

    A request is a batch of texts: `EmbedderConfig.batch_size`.
    """

    config: EmbedderConfig
    tasks: int
    requests_per_minute: float | None = None

    @property
    def texts_per_request(self) -> int:
        """How many texts go at once."""
        return self.config.batch_size or _TEXTS_PER_REQUEST

    @property
    def pace_s(self) -> float:
        """The seconds from one request of a task to its next, at least."""
        return 60 * self.tasks / self.requests_per_minute if self.requests_per_minute else 0.0

    def on_executors(self) -> EmbedderConfig:
        """The configuration as an executor takes it: its working directory is another, and the journal is the cache."""
        model = Path(self.config.model).expanduser()
        where = str(model.resolve()) if model.exists() else self.config.model
        return dataclasses.replace(self.config, model=where, cache=None)


@dataclasses.dataclass(frozen=True, slots=True)
class Embedded:
    """How many texts were embedded, and how many had a vector already."""

    made: int
    known: int


def add_vectors(
    passages: DataFrame, known: DataFrame, target: Place, how: Embedding, tell: Callable[[str], None]
) -> tuple[DataFrame, Embedded]:
    """`passages`, which go to `target`, with their vectors; `known` has vectors by key already.

    Raises:
        EmbeddingError: if some could not be embedded; what could is kept, and the same command goes on with the rest.
        StorageError: if Spark cannot do it.
    """
    spark, journal = passages.sparkSession, staging(target, "vectors")
    texts = passages.select(VECTOR_KEY, TEXT).dropDuplicates([VECTOR_KEY])
    missing = texts.join(known.select(VECTOR_KEY), VECTOR_KEY, "left_anti")
    missing = missing.join(_kept(spark, journal).select(VECTOR_KEY), VECTOR_KEY, "left_anti")
    missing = stage(missing, staging(target, "wanted"))
    count, done = missing.count(), 0
    for part in _slices(missing, count, how, staging(target, "slices")):
        embedded, failed, reason = _embed_slice(part, journal, how)
        done += embedded
        if failed:
            raise EmbeddingError(
                f"{count - done} of {count} texts have no vector yet: {reason} What was embedded is kept: the same "
                "command goes on from there."
            )
        tell(f"Embedded {done:,} of {count:,} texts")
    vectors = known.select(VECTOR_KEY, VECTOR).unionByName(_kept(spark, journal))
    vectors = vectors.dropDuplicates([VECTOR_KEY])
    return passages.join(vectors, VECTOR_KEY, "left"), Embedded(count, texts.count() - count)


def _slices(missing: DataFrame, count: int, how: Embedding, place: Place) -> Iterator[DataFrame]:
    """The texts in slices of some 25 requests a task."""
    from pyspark.sql import functions as f

    slices = -(-count // (how.tasks * how.texts_per_request * _REQUESTS_PER_TASK))
    if slices <= 1:
        yield from [missing] * slices
        return
    numbered = missing.withColumn("slice", f.pmod(f.xxhash64(VECTOR_KEY), f.lit(slices)))
    # Sorted, so that a slice is read without the others.
    sliced = stage(numbered.repartition("slice").sortWithinPartitions("slice"), place)
    for number in range(slices):
        yield sliced.where(f.col("slice") == number).drop("slice")


def _kept(spark: SparkSession, journal: Place) -> DataFrame:
    from pyspark.sql import functions as f

    rows = read_if_there(spark, journal, SCHEMA).where("error is null")
    return rows.select(f.col("key").alias(VECTOR_KEY), f.col("vector").alias(VECTOR))


def _embed_slice(part: DataFrame, journal: Place, how: Embedding) -> tuple[int, int, str]:
    """Embed and keep; how many were embedded, how many not, and why the first was not."""
    from pyspark.sql import functions as f

    name = f"slice-{uuid4().hex}"
    embed = partial(embed_rows, how.on_executors(), how.texts_per_request, how.pace_s)
    made = part.repartition(how.tasks).mapInArrow(embed, "key string, vector array<float>, error string")
    append(made.withColumn("slice", f.lit(name)), journal, name)
    own = read_if_there(part.sparkSession, journal, SCHEMA).where(f.col("slice") == name)
    row = own.agg(f.count("vector"), f.count("error"), f.max("error")).first()
    return (row[0], row[1], row[2] or "") if row else (0, 0, "")


def embed_rows(
    config: EmbedderConfig, at_once: int, pace_s: float, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The vectors of texts, on an executor. After a failure, what is left is not asked: its error is ""."""
    embedder, next_at, error = _embedder(config), time.monotonic(), None
    for batch in batches:
        keys, texts = batch.column(0).to_pylist(), batch.column(1).to_pylist()
        for start in range(0, len(keys), at_once):
            some = slice(start, start + at_once)
            if error is not None:
                yield _rows(keys[some], None, "")
                continue
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at = time.monotonic() + pace_s
            try:
                vectors = embedder.embed_passages(texts[some])
            except EmbeddingError as failure:
                error = str(failure)
                yield _rows(keys[some], None, error)
            else:
                yield _rows(keys[some], list(vectors), None)


@lru_cache(maxsize=1)
def _embedder(config: EmbedderConfig) -> Embedder:
    """The model, opened once for all tasks of a worker process."""
    return open_embedder(config)


def _rows(keys: list[str], vectors: list[object] | None, error: str | None) -> pa.RecordBatch:
    cells = [keys, vectors or [None] * len(keys), [error] * len(keys)]
    return pa.RecordBatch.from_arrays(
        [pa.array(cell, field.type) for cell, field in zip(cells, _ARROW, strict=True)], schema=_ARROW
    )

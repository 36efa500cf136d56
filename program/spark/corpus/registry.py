"""What is known of the sources of a table: the Delta table beside it that says what was read, and what it made.

A row is a document with its source, or a source without documents. Sources that were refused, in part or whole,
have no `fingerprint`: they are read each time, and told each time. Each row has the `state` of the whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from program.spark.corpus.outcome import BAD, READ, SAME

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA = (
    "place string, fingerprint string, size bigint, modified bigint, position int, doc_uri string, hash bigint, "
    "state string"
)


@dataclass(frozen=True, slots=True)
class State:
    """How a table was made (`made_with`), of what (`reading`, `corpus`), how much is in it, and what follows it.

    `corpus` is "" where it must be looked at again. The `index` was told of all that the table holds; "": none was.
    """

    made_with: str
    reading: str
    corpus: str
    documents: int
    passages: int
    index: str = ""

    @classmethod
    def parse(cls, text: str | None) -> State | None:
        """The state that a row states; None where it is none of this version."""
        try:
            values: Any = json.loads(text or "")
            return cls(**values)
        except (TypeError, ValueError):
            return None

    def as_text(self) -> str:
        """The state as `parse` reads it."""
        return json.dumps(asdict(self))


def empty(spark: SparkSession) -> DataFrame:
    """The registry of a table that is not there yet."""
    return spark.createDataFrame([], SCHEMA)


def known_sources(registry: DataFrame, *, by_time: bool) -> DataFrame:
    """`place`, `fingerprint`, `size`, `modified` of each source; sizes and times only if they are comparable."""
    from pyspark.sql import functions as f

    # Of a table's rows with one id, there are several at one place.
    latest = f.max(f.struct("fingerprint", "size", "modified")).alias("latest")
    known = registry.groupBy("place").agg(latest).select("place", "latest.*")
    return (
        known
        if by_time
        else known.withColumns({name: f.lit(None).cast("bigint") for name in ("size", "modified")})
    )


def claims(outcome: DataFrame, registry: DataFrame) -> DataFrame:
    """Each document that a source has, and whether the source is the first to have it (`is_won`).

    `first` is the place of the one that is. Documents of a source that turned bad stay (`is_kept`), unless they
    are found elsewhere.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    columns = ("ordinal", "place", "fingerprint", "position", "doc_uri", "hash", "is_kept", "is_read")
    sources = outcome.where(f.col("kind") == "source").select("ordinal", "place", "fingerprint", "status")
    documents = registry.where("doc_uri is not null")
    read = outcome.where(f.col("kind") == "document").withColumns(
        {"is_kept": f.lit(False), "is_read": f.lit(True)}
    )
    known = documents.select("fingerprint", "position", "doc_uri", "hash")
    same = sources.where(f.col("status") == SAME).join(known, "fingerprint")
    same = same.withColumns({"is_kept": f.lit(False), "is_read": f.lit(False)})
    bad = sources.where(f.col("status") == BAD)
    kept = bad.join(documents.select("place", "position", "doc_uri", "hash"), "place")
    kept = kept.withColumns({"is_kept": f.lit(True), "is_read": f.lit(False)})
    every = read.select(*columns).unionByName(same.select(*columns)).unionByName(kept.select(*columns))
    first = Window.partitionBy("doc_uri").orderBy("is_kept", "ordinal", "place", "position", "fingerprint")
    ranked = every.withColumns({"number": f.row_number().over(first), "first": f.first("place").over(first)})
    return ranked.withColumn("is_won", f.col("number") == 1).drop("number")


def changes(claimed: DataFrame, registry: DataFrame) -> DataFrame:
    """Each document that is there or was, with its `change`: added, replaced, deleted or unchanged."""
    from pyspark.sql import functions as f

    won = claimed.where("is_won").drop("is_won", "first")
    before = registry.where("doc_uri is not null").select("doc_uri", f.col("hash").alias("hash_before"))
    both = won.join(before, "doc_uri", "full_outer")
    change = (
        f.when(f.col("place").isNull(), "deleted")
        .when(f.col("hash_before").isNull(), "added")
        .when(f.col("is_read") & (f.col("hash") != f.col("hash_before")), "replaced")
        .otherwise("unchanged")
    )
    return both.withColumn("change", change).drop("hash_before")


def next_registry(outcome: DataFrame, claimed: DataFrame, state: State) -> DataFrame:
    """The registry once the table holds what was won."""
    from pyspark.sql import functions as f

    key = ["place", "fingerprint"]
    sources = outcome.where(f.col("kind") == "source").select(*key, "size", "modified", "status")
    won = claimed.where("is_won").select(*key, "position", "doc_uri", "hash")
    lost = claimed.where("not is_won and not is_kept").select(*key, f.lit(True).alias("has_lost")).distinct()
    rows = sources.join(won, key, "left").join(lost, key, "left")
    is_known = f.col("status").isin(SAME, READ) & f.col("has_lost").isNull()
    rows = rows.withColumns(
        {
            "fingerprint": f.when(is_known, f.col("fingerprint")),
            "state": f.lit(state.as_text()),
        }
    )
    return rows.select(*(field.split()[0] for field in SCHEMA.split(", ")))

"""What was answered by content, beside the output: whatever ends the job, a finished slice of it stays answered.

Of a table `answers` it is the table `answers_run`, of a directory `answers.parquet` the directory
`answers.parquet.run`. A row says what was asked (`key`: a hash of the question with its history, k and filters, and
of the agent), what became of it (`record`: JSON), and when. Of several rows with one key an answer counts more than
a failure, and of these the latest.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from program.spark.tables import Place, append, read_if_there

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

SCHEMA = "key string, record string, at string"


@dataclass(frozen=True, slots=True)
class SparkJournal:
    """The journal of one output."""

    spark: SparkSession
    place: Place

    def known(self) -> DataFrame:
        """`key`, `record`, `at`, and whether it `failed`, once for each key."""
        from pyspark.sql import functions as f

        rows = read_if_there(self.spark, self.place, SCHEMA).withColumn("failed", failed(f.col("record")))
        weight = f.struct(~f.col("failed"), f.col("at"))
        latest = f.max_by(f.struct("record", "at", "failed"), weight).alias("latest")
        return rows.groupBy("key").agg(latest).select("key", "latest.*")

    def keep(self, answered: DataFrame) -> None:
        """Keep a slice of `key` and `record`, all or nothing. Raises StorageError."""
        from pyspark.sql import functions as f

        append(answered.withColumn("at", f.lit(now())), self.place, f"slice-{uuid4().hex}")


def failed(record: Column) -> Column:
    """Whether a record is of a question that failed."""
    from pyspark.sql import functions as f

    return f.get_json_object(record, "$.error").isNotNull()


def now() -> str:
    """The time as the journal writes it; later times are greater texts."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")

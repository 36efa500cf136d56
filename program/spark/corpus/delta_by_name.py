"""A Delta table of a catalog, read and written by Spark with Delta: what Databricks has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from program.spark.corpus.delta import CHANGE_DATA_FEED, GONE, Written
from program.spark.corpus.passages import DIGEST, PRIMARY_KEY
from program.spark.corpus.staging import read_staged
from program.spark.session import spark_errors
from program.spark.tables import TABLE, Place, exists

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CHANGES = ("inserted", "updated", "deleted")


class DeltaByName:
    """A Delta table of a catalog, by Spark with Delta: what Databricks has."""

    def __init__(self, spark: SparkSession, name: str) -> None:
        self.name = name
        self._spark = spark
        self._place = Place(name, TABLE)

    def exists(self) -> bool:
        """Whether there is a table."""
        with spark_errors(f"'{self.name}' cannot be looked up"):
            return exists(self._spark, self._place)

    def columns(self) -> list[str]:
        """The names of its columns."""
        with spark_errors(f"'{self.name}' cannot be read"):
            return self._spark.table(self.name).columns

    def count(self) -> int:
        """How many rows it has."""
        with spark_errors(f"'{self.name}' cannot be read"):
            return self._spark.table(self.name).count()

    def first(self, column: str) -> Any:
        """A cell of the column."""
        if not self.exists():
            return None
        with spark_errors(f"'{self.name}' cannot be read"):
            row = self._spark.table(self.name).select(column).first()
        return row[column] if row else None

    def read(self, spark: SparkSession, schema: str) -> DataFrame:
        """The rows."""
        return spark.table(self.name) if self.exists() else spark.createDataFrame([], schema)

    def merge(self, staged: Place, names: Sequence[str]) -> Written:
        """Merge by Delta's own MERGE, distributed."""
        if not self.exists():
            return self.overwrite(staged, names)
        with spark_errors(f"'{self.name}' cannot be written"):
            row = self._spark.sql(merge_statement(self.name, staged, names)).first()
        done = row.asDict() if row else {}
        inserted, updated, deleted = (int(done.get(f"num_{what}_rows") or 0) for what in _CHANGES)
        return Written(inserted, updated, deleted, self._version())

    def overwrite(self, staged: Place, names: Sequence[str]) -> Written:
        """Create or replace the table."""
        before = self.count() if self.exists() else 0
        rows = read_staged(self._spark, staged)
        if GONE in rows.columns:
            rows = rows.where(f"not {GONE}")
        writer = rows.select(*names).writeTo(self.name).using("delta")
        with spark_errors(f"'{self.name}' cannot be written"):
            for key, value in CHANGE_DATA_FEED.items():
                writer = writer.tableProperty(key, value)
            writer.createOrReplace()
        return Written(inserted=self.count(), deleted=before, version=self._version())

    def _version(self) -> int:
        with spark_errors(f"'{self.name}' cannot be described"):
            row = self._spark.sql(f"DESCRIBE HISTORY {self.name} LIMIT 1").first()
        return int(row["version"]) if row else 0


def merge_statement(table: str, staged: Place, names: Sequence[str]) -> str:
    """The MERGE that `DeltaStore.merge` is, in SQL."""
    source = staged.name if staged.format == TABLE else f"parquet.`{staged.name}`"
    sets = ", ".join(f"t.`{name}` = s.`{name}`" for name in names)
    columns = ", ".join(f"`{name}`" for name in names)
    values = ", ".join(f"s.`{name}`" for name in names)
    return (
        f"MERGE INTO {table} t USING {source} s ON t.{PRIMARY_KEY} = s.{PRIMARY_KEY} "
        f"WHEN MATCHED AND s.{GONE} THEN DELETE "
        f"WHEN MATCHED AND t.{DIGEST} <> s.{DIGEST} THEN UPDATE SET {sets} "
        f"WHEN NOT MATCHED AND NOT s.{GONE} THEN INSERT ({columns}) VALUES ({values})"
    )

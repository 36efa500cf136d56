"""What is computed once and kept beside the table until its run has ended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from program.spark.tables import TABLE, Place, beside, replace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def stage(rows: DataFrame, place: Place) -> DataFrame:
    """Rows, computed once and kept beside the table until the run has ended.

    Raises:
        StorageError: if they cannot be computed or written.
    """
    replace(rows, place)
    spark = rows.sparkSession
    # With the schema that is known, Spark does not start a job to find it in the files.
    return (
        spark.table(place.name)
        if place.format == TABLE
        else spark.read.schema(rows.schema).parquet(place.name)
    )


def read_staged(spark: SparkSession, place: Place) -> DataFrame:
    """What was staged."""
    return spark.table(place.name) if place.format == TABLE else spark.read.parquet(place.name)


def unstage(spark: SparkSession, target: Place, names: Sequence[str]) -> None:
    """Remove what was staged beside a table."""
    for name in names:
        place = staging(target, name)
        if place.format == TABLE:
            spark.sql(f"DROP TABLE IF EXISTS {place.name}")
        else:
            shutil.rmtree(place.name, ignore_errors=True)


def staging(target: Place, name: str) -> Place:
    """Where something of that name is staged beside a table."""
    if target.format == TABLE:
        return beside(target, f"_run_{name}")
    return Place(f"{target.name}.run/{name}", "parquet")

"""Delta tables, written by whom can: Spark, for tables by name, or delta-rs, for directories.

On Databricks, and wherever Spark has Delta's packages, a table is `catalog.schema.table`. Without them (they are Java
and come from Maven), a directory is written through the Python package `deltalake`: the same format, with the merge
done on the driver.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from program.spark.tables import TABLE, Place
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GONE = "is_gone"
"""The column of a staged row that says that the passage is to be deleted."""

CHANGE_DATA_FEED = {"delta.enableChangeDataFeed": "true"}
"""The property of a table that an index can follow."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did to the rows of a table, and the table's version afterwards."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    version: int | None = None


class DeltaStore(Protocol):
    """A Delta table, there or not. Each write is one commit: all of it or nothing.

    Raises:
        StorageError: by each, where it cannot be read or written.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def exists(self) -> bool: ...  # noqa: D102

    def columns(self) -> list[str]: ...  # noqa: D102

    def count(self) -> int: ...  # noqa: D102

    def first(self, column: str) -> Any:
        """A cell of the column; None where the table is empty or not there."""
        ...

    def read(self, spark: SparkSession, schema: str) -> DataFrame:
        """The rows; of a table that is not there, none of that schema."""
        ...

    def merge(self, staged: Place, names: Sequence[str]) -> Written:
        """Delete the staged rows that are gone, update those of another digest, insert the others."""
        ...

    def overwrite(self, staged: Place, names: Sequence[str]) -> Written:
        """Put the staged rows in place of the table, whatever columns it had."""
        ...


def open_store(spark: SparkSession | None, place: Place) -> DeltaStore:
    """The Delta table at a place.

    Raises:
        ConfigurationError: if it is a table by name, and Spark has no Delta; if a package is missing.
    """
    if place.format != TABLE:
        from program.spark.corpus.delta_directory import DeltaDirectory

        return DeltaDirectory(place.name)
    if spark is None or not _has_delta(spark):
        raise ConfigurationError(
            f"--to {place}: this Spark has no Delta, which Databricks has and `--packages io.delta:…` brings. Name a "
            "directory here: --to build/passages"
        )
    from program.spark.corpus.delta_by_name import DeltaByName

    return DeltaByName(spark, place.name)


def _has_delta(spark: SparkSession) -> bool:
    from pyspark.sql.utils import is_remote

    if is_remote() or "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return True  # Databricks, or a server whose configuration is its own affair
    stated = (
        spark.conf.get(f"spark.sql.{name}", "") or "" for name in ("extensions", "catalog.spark_catalog")
    )
    return any("delta" in value.lower() for value in stated)

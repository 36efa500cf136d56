"""A Delta table in a directory, read by Spark and written by delta-rs (the package `deltalake`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from program.spark.corpus.delta import CHANGE_DATA_FEED, GONE, Written
from program.spark.corpus.passages import DIGEST, PRIMARY_KEY
from program.spark.session import spark_errors
from program.spark.tables import Place
from retrieval.errors import StorageError
from retrieval.extras import needs_extra

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

_CHANGES = ("inserted", "updated", "deleted")


class DeltaDirectory:
    """A Delta table in a directory, by delta-rs."""

    def __init__(self, path: str) -> None:
        with needs_extra("spark", "a Delta table in a directory"):
            import deltalake  # noqa: F401
        self.name = path

    def exists(self) -> bool:
        """Whether there is a table."""
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(self.name))

    def columns(self) -> list[str]:
        """The names of its columns."""
        return [field.name for field in self._open().schema().fields]

    def count(self) -> int:
        """How many rows it has."""
        return int(self._open().count())

    def first(self, column: str) -> Any:
        """A cell of the column."""
        if not self.exists():
            return None
        with _delta_errors(self.name):
            rows = self._open().to_pyarrow_dataset().head(1, columns=[column]).to_pylist()
        return rows[0][column] if rows else None

    def read(self, spark: SparkSession, schema: str) -> DataFrame:
        """The rows, which Spark reads from the table's files."""
        files = self._open().file_uris() if self.exists() else []
        if not files:
            return spark.createDataFrame([], schema)
        with spark_errors(f"'{self.name}' cannot be read"):
            return spark.read.schema(schema).parquet(*files)

    def merge(self, staged: Place, names: Sequence[str]) -> Written:
        """Merge on the driver, as a stream."""
        if not self.exists():
            return self.overwrite(staged, names)
        with _delta_errors(self.name):
            values = {f"`{name}`": f"s.`{name}`" for name in names}
            table = self._open()
            merger = table.merge(
                _stream(staged, [*names, GONE]),
                predicate=f"t.{PRIMARY_KEY} = s.{PRIMARY_KEY}",
                source_alias="s",
                target_alias="t",
            )
            done: Mapping[str, Any] = (
                merger.when_matched_delete(f"s.{GONE}")
                .when_matched_update(values, f"NOT s.{GONE} AND t.{DIGEST} <> s.{DIGEST}")
                .when_not_matched_insert(values, f"NOT s.{GONE}")
                .execute()
            )
        inserted, updated, deleted = (int(done[f"num_target_rows_{what}"]) for what in _CHANGES)
        return Written(inserted, updated, deleted, table.version())

    def overwrite(self, staged: Place, names: Sequence[str]) -> Written:
        """Write the staged rows as they stream."""
        from deltalake import write_deltalake

        before = self.count() if self.exists() else 0
        with _delta_errors(self.name):
            write_deltalake(
                self.name,
                _stream(staged, names, without_gone=True),
                mode="overwrite",
                schema_mode="overwrite" if before else None,
                configuration=CHANGE_DATA_FEED,
            )
            table = self._open()
            # What was replaced a week ago is deleted for good; deltalake's default, and Delta's.
            table.vacuum(dry_run=False)
        return Written(inserted=self.count(), deleted=before, version=table.version())

    def _open(self) -> DeltaTable:
        from deltalake import DeltaTable

        with _delta_errors(self.name):
            return DeltaTable(self.name)


def _stream(staged: Place, names: Sequence[str], *, without_gone: bool = False) -> Any:
    """The staged rows as Arrow reads them, batch by batch."""
    import pyarrow.dataset as dataset  # type: ignore[import-untyped]

    rows = dataset.dataset(Path(staged.name), format="parquet")
    wanted = ~dataset.field(GONE) if without_gone and GONE in rows.schema.names else None
    return rows.scanner(columns=list(names), filter=wanted).to_reader()


@contextmanager
def _delta_errors(name: str) -> Iterator[None]:
    """What delta-rs refuses is an error of one line."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise StorageError(
            f"'{name}' was written by another at the same time. Run the same command again."
        ) from error
    except (DeltaError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise StorageError(f"'{name}' cannot be used: {reason}") from error

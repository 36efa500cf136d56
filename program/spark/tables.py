"""Where Spark reads questions and writes answers: a table by its name, or files at a path in a known format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from program.batch_questions import FORMATS
from program.spark.session import spark_errors
from retrieval.errors import ConfigurationError, DataError
from retrieval.tables import table_format

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "table"

_SPARK_FORMATS = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}
_TABLE_NAME = re.compile(r"(\w+|`[^`]+`)(\.(\w+|`[^`]+`)){0,2}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_READING: Mapping[str, Mapping[str, Any]] = {
    # As Python's csv reads: cells may hold line breaks, and a quote within a cell is doubled.
    "csv": {"header": True, "multiLine": True, "escape": '"', "mode": "FAILFAST"},
    "json": {"mode": "FAILFAST"},
    "parquet": {},
}
_WRITING: Mapping[str, Mapping[str, Any]] = {
    "csv": {"header": True, "escape": '"', "emptyValue": ""},
    "json": {"ignoreNullFields": False},
    "parquet": {},
    # A Delta table that was written with other columns takes these; other tables do not know the option.
    TABLE: {"overwriteSchema": True},
}


@dataclass(frozen=True, slots=True)
class Place:
    """A table's name or a path, and the format: `table`, `csv`, `json` or `parquet`."""

    name: str
    format: str

    def __str__(self) -> str:
        return self.name

    @property
    def journal(self) -> Place:
        """Where what was answered into this place is kept: beside it."""
        if self.format == TABLE:
            return beside(self, "_run")
        return Place(f"{self.name}.run", "parquet")


def beside(place: Place, suffix: str) -> Place:
    """The place whose name is this one's with a suffix."""
    return Place(_with_suffix(place.name, suffix), place.format)


def is_table_name(text: str) -> bool:
    """Whether this is a table's name, and cannot be a path."""
    return not _is_path(text) and _TABLE_NAME.fullmatch(text) is not None


def questions_place(text: str) -> Place:
    """Where questions are read: a file, a directory of files of one format, or `catalog.schema.table`.

    Raises:
        ConfigurationError: if it is neither, or its format cannot be told.
    """
    if not _is_path(text):
        return _table(text)
    format_ = _SPARK_FORMATS.get(table_format(Path(text))) or _format_within(Path(text))
    if format_ is None:
        raise ConfigurationError(
            f"{text}: questions are read from {', '.join(FORMATS)} files, directories of one such kind, or a table. "
            "Let its name end in the format."
        )
    return Place(_absolute(text), format_)


def answers_place(text: str) -> Place:
    """Where answers go: a directory, whose name says the format (none: Parquet), or `catalog.schema.table`.

    Raises:
        ConfigurationError: if it is neither, or a file.
    """
    if not _is_path(text):
        return _table(text)
    path = Path(text)
    suffix = table_format(path)
    if path.is_file() or path.suffix.lower() == ".gz":
        raise ConfigurationError(f"--out {text}: Spark writes a directory. Name one, or a table.")
    return Place(_absolute(text), _SPARK_FORMATS.get(suffix, "parquet"))


def passages_place(text: str) -> Place:
    """Where passages go: `catalog.schema.table`, or a directory; a Delta table either way.

    Raises:
        ConfigurationError: if it is neither.
    """
    if not _is_path(text):
        return _table(text)
    if _SCHEME.match(text):
        raise ConfigurationError(f"--to {text}: name a table, or a directory that is mounted here.")
    if Path(text).is_file():
        raise ConfigurationError(
            f"--to {text}: is a file. A Delta table is a directory, or a table by its name."
        )
    return Place(_absolute(text).rstrip("/"), "delta")


def read_questions(spark: SparkSession, place: Place) -> DataFrame:
    """The table as Spark has it; CSV is all text, and an empty cell is empty text.

    Raises:
        DataError: if it cannot be read.
    """
    with spark_errors(f"Cannot read {place}", DataError):
        if place.format == TABLE:
            table = spark.table(place.name)
        else:
            table = spark.read.options(**_READING[place.format]).format(place.format).load(place.name)
        # Of a table's name that is all: Spark looks it up when its columns are asked for.
        _ = table.columns
    return table.fillna("") if place.format == "csv" else table


def exists(spark: SparkSession, place: Place) -> bool:
    """Whether there is a table of the name, or anything at the path."""
    from pyspark.errors import AnalysisException

    if place.format == TABLE:
        return spark.catalog.tableExists(place.name)
    if not _SCHEME.match(place.name):
        return Path(place.name).exists()
    try:
        spark.read.format("binaryFile").load(place.name).limit(1).count()
    except AnalysisException:
        return False
    return True


def read_if_there(spark: SparkSession, place: Place, schema: str) -> DataFrame:
    """What was appended to a place, if anything was."""
    if not exists(spark, place):
        return spark.createDataFrame([], schema)
    if place.format == TABLE:
        return spark.table(place.name)
    return spark.read.schema(schema).option("recursiveFileLookup", True).parquet(place.name)


def append(rows: DataFrame, place: Place, batch: str) -> None:
    """Add rows, all or none of them. `batch` names them, so that two that write at once cannot mix.

    Raises:
        StorageError: if it cannot be written, or the rows cannot be computed.
    """
    with spark_errors(f"'{place}' cannot be written"):
        if place.format == TABLE:
            rows.write.mode("append").saveAsTable(place.name)
        else:
            rows.write.mode("error").parquet(f"{place.name}/{batch}")


def replace(rows: DataFrame, place: Place) -> None:
    """Put rows in place of what is there.

    Raises:
        StorageError: if it cannot be written.
    """
    writer = rows.write.mode("overwrite").options(**_WRITING[place.format])
    with spark_errors(f"'{place}' cannot be written"):
        if place.format == TABLE:
            writer.saveAsTable(place.name)
        else:
            writer.format(place.format).save(place.name)


def _is_path(text: str) -> bool:
    is_file_name = table_format(Path(text)) in FORMATS
    return is_file_name or "/" in text or "\\" in text or bool(_SCHEME.match(text)) or Path(text).exists()


def _table(text: str) -> Place:
    if not _TABLE_NAME.fullmatch(text):
        raise ConfigurationError(f"{text}: neither a path nor a table's name (catalog.schema.table).")
    return Place(text, TABLE)


def _absolute(text: str) -> str:
    # Spark's own working directory is where the Java process was started.
    return text if _SCHEME.match(text) else str(Path(text).resolve())


def _format_within(path: Path) -> str | None:
    """The format of the files in a directory, if they have one in common."""
    found = {table_format(file) for file in _files(path)} & set(FORMATS)
    return _SPARK_FORMATS[found.pop()] if len(found) == 1 else None


def _files(path: Path) -> Iterable[Path]:
    return (file for file in path.rglob("*") if not file.name.startswith(("_", "."))) if path.is_dir() else ()


def _with_suffix(name: str, suffix: str) -> str:
    return f"{name[:-1]}{suffix}`" if name.endswith("`") else name + suffix

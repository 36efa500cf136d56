"""What there is to read: the files of a folder, the records of a file, or the rows of a table."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa  # type: ignore[import-untyped]

from program.spark.corpus.outcome import SAME, outcome_schema
from program.spark.corpus.reading import KNOWN, PLACE, Recipe, read_files, read_records, read_table
from program.spark.session import parallelism, spark_errors
from retrieval.corpus import ReadingSettings, read_sources
from retrieval.documents import folders, git
from retrieval.documents.addresses import OF_GIT, Addresses, template_fields
from retrieval.documents.reading import READABLE, READER_VERSION, Files, printable
from retrieval.errors import ConfigurationError, CorpusError, DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FILES = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("place", pa.string()),
        ("relative", pa.binary()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("refusal", pa.string()),
    ]
)
_RECORDS = pa.schema([("ordinal", pa.int64()), ("place", pa.string()), ("fingerprint", pa.string())])
_IDS = ("doc_uri", "_id", "id")
_BEIR = ("corpus.jsonl", "corpus.jsonl.gz")
_FRESH_NS = 2_000_000_000
"""A file that was written so shortly before it was listed may be written again without another time."""
_SOURCES_PER_TASK = 1000


class Listing(Protocol):
    """What is at a place. `digest` is equal for what is surely equal, and "" where that is not known.

    Sizes and times of files are compared with those that are known if both were listed by equal `reading`.
    """

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def reading(self) -> str: ...  # noqa: D102

    def outcome(self, spark: SparkSession, recipe: Recipe, known: DataFrame) -> DataFrame:
        """What becomes of each source, in the rows of `outcome_schema`.

        `known` has `place`, `fingerprint`, `size` and `modified` of sources.
        """
        ...


def list_corpus(path: str, settings: ReadingSettings) -> Listing:
    """What there is at a path, or in the table of that name.

    Raises:
        CorpusError: if there is nothing.
        ConfigurationError: if a setting contradicts what is there.
    """
    from program.spark.tables import is_table_name

    place = Path(path)
    if not place.exists() and is_table_name(path):
        return TableListing(path, settings)
    layout = _layout(place, settings)
    if layout in ("folder", "git") and place.is_dir():
        return FileListing.of(place, settings, is_git=layout == "git")
    return RecordListing.of(place, settings)


def _layout(path: Path, settings: ReadingSettings) -> str:
    """As `retrieval.corpus` decides; a test holds the two together."""
    if settings.layout != "auto":
        return settings.layout
    if not path.is_dir() or any((path / name).is_file() for name in _BEIR):
        return "records"
    return "git" if set(OF_GIT) & set(template_fields(settings.url_template)) else "folder"


@dataclass(frozen=True, slots=True)
class FileListing:
    """The files of a folder, each a document, which executors open where the folder is."""

    folder: Path
    files: Files
    table: pa.Table
    reading: str
    digest: str

    @classmethod
    def of(cls, folder: Path, settings: ReadingSettings, *, is_git: bool) -> FileListing:
        """List a folder, or what Git tracks of it."""
        folder = folder.resolve()
        fields = set(template_fields(settings.url_template))
        if is_git:
            checkout = git.describe(folder)
            given = {"commit": checkout.commit, "branch": checkout.branch}
            # The commit is a part of what addresses are made of only where the template says so.
            used = {name: value for name, value in given.items() if name in fields}
            addresses = Addresses(settings.base_url, settings.url_template, checkout.root, given)
            entries = folders.chosen(folder, git.tracked_files(folder), _is_readable)
        else:
            if set(OF_GIT) & fields:
                raise ConfigurationError(
                    "corpus.url_template: {commit} and {branch} are those of a Git folder. Set corpus.layout: git."
                )
            used = {}
            addresses = Addresses(settings.base_url, settings.url_template)
            entries = folders.walk(folder, _is_readable)
        table, digest = _stat_all(entries)
        if not table.num_rows:
            raise CorpusError(
                f"There is no document in '{folder}'. It may hold {', '.join(sorted(READABLE))} files."
            )
        reading = _hash(f"{READER_VERSION} {settings} {used} {addresses.root}")
        return cls(folder, Files(settings, addresses), table, reading, digest and _hash(digest + reading))

    def outcome(self, spark: SparkSession, recipe: Recipe, known: DataFrame) -> DataFrame:
        """What becomes of each file."""
        found = spark.createDataFrame(self.table)
        known = known.select("place", *(known[name].alias(f"known_{name}") for name in _KNOWN))
        found = found.join(known, "place", "left").repartition(_tasks(spark, self.table.num_rows))
        read = partial(read_files, recipe, self.folder, self.files)
        return found.mapInArrow(read, _spark_schema(recipe))


@dataclass(frozen=True, slots=True)
class RecordListing:
    """The records of a file, which executors read again for those that are not known."""

    path: Path
    table: pa.Table
    reading: str
    digest: str

    @classmethod
    def of(cls, path: Path, settings: ReadingSettings) -> RecordListing:
        """List what `read_sources` finds at a path."""
        path = path.resolve() if path.exists() else path
        places, fingerprints = [], []
        for source in read_sources(path, settings):
            places.append(source.place)
            fingerprints.append(source.fingerprint)
        table = pa.table([list(range(len(places))), places, fingerprints], schema=_RECORDS)
        return cls(path, table, "", _hash("\n".join([*places, *fingerprints])))

    def outcome(self, spark: SparkSession, recipe: Recipe, known: DataFrame) -> DataFrame:
        """What becomes of each record."""
        from pyspark.sql import functions as f

        found = spark.createDataFrame(self.table)
        fingerprints = known.select("fingerprint").where("fingerprint is not null").distinct()
        same = found.join(fingerprints, "fingerprint", "left_semi")
        new = found.join(fingerprints, "fingerprint", "left_anti")
        new = new.repartitionByRange(_tasks(spark, self.table.num_rows), "ordinal")
        schema = _spark_schema(recipe)
        read = new.mapInArrow(partial(read_records, recipe, self.path), schema)
        stated = {"kind": f.lit("source"), "status": f.lit(SAME)}
        columns = [
            (stated.get(name, f.col(name) if name in same.columns else f.lit(None))).cast(kind).alias(name)
            for name, kind in ((field.name, field.dataType) for field in schema)
        ]
        return same.select(*columns).unionByName(read)


@dataclass(frozen=True, slots=True)
class TableListing:
    """The rows of a table, which Spark reads. A row is called by its id."""

    name: str
    settings: ReadingSettings
    reading: str = ""
    digest: str = ""

    def outcome(self, spark: SparkSession, recipe: Recipe, known: DataFrame) -> DataFrame:
        """What becomes of each row."""
        from pyspark.sql import functions as f

        with spark_errors(f"Cannot read {self.name}", DataError):
            table = spark.table(self.name)
            ids = [name for name in self._ids() if name in table.columns]
        if not ids:
            raise DataError(
                f"{self.name}: there is no column {' or '.join(self._ids())} that tells rows apart. The columns are: "
                f"{', '.join(table.columns)}. Name yours: corpus.columns='{{doc_uri: …}}'."
            )
        named = f.coalesce(*(f.col(f"`{name}`").cast("string") for name in ids), f.lit("(no id)"))
        rows = table.withColumn(PLACE, f.concat(f.lit(f"{self.name}:"), named))
        known = known.select(known["place"].alias(PLACE), known["fingerprint"].alias(KNOWN))
        return rows.join(known, PLACE, "left").mapInArrow(partial(read_table, recipe), _spark_schema(recipe))

    def _ids(self) -> list[str]:
        return [self.settings.columns.get(name, name) for name in _IDS]


_KNOWN = ("fingerprint", "size", "modified")


def _stat_all(entries: Iterator[folders.Entry]) -> tuple[pa.Table, str]:
    """The rows of `_FILES`, and a digest of names, sizes and times; "" where a file is too fresh to be sure."""
    fresh_ns = time.time_ns() - _FRESH_NS
    rows: list[tuple[Any, ...]] = []
    for ordinal, (relative, found) in enumerate(entries):
        place, name = printable(relative), os.fsencode(relative)
        try:
            if isinstance(found, CorpusError):
                raise found
            stated = found.stat()
            modified = stated.st_mtime_ns if stated.st_mtime_ns < fresh_ns else -1
            rows.append((ordinal, place, name, stated.st_size, modified, None))
        except CorpusError as error:
            rows.append((ordinal, place, name, None, None, printable(str(error))))
        except OSError as error:
            reason = f"{place}: cannot be read ({error.strerror}). Check its permissions."
            rows.append((ordinal, place, name, None, None, reason))
    columns = list(zip(*rows, strict=True)) or [()] * len(_FILES)
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, _FILES, strict=True)], _FILES
    )
    is_sure = all(row[4] is not None and row[4] >= 0 for row in rows)
    return table, _hash(repr([row[2:5] for row in rows])) if is_sure else ""


def _is_readable(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in READABLE


def _tasks(spark: SparkSession, sources: int) -> int:
    at_once = parallelism(spark)
    return max(at_once, -(-sources // _SOURCES_PER_TASK) // at_once * at_once)


def _spark_schema(recipe: Recipe) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(outcome_schema(recipe.rows))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()

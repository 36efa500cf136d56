"""What the executors do: read the sources that are not known, and cut their documents into passages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as parquet  # type: ignore[import-untyped]

from program.spark.corpus.outcome import OutcomeWriter
from program.spark.corpus.passages import PassageRows
from retrieval.chunking import ChunkingSettings
from retrieval.corpus import ReadingSettings, read_sources
from retrieval.documents.reading import Files
from retrieval.documents.records import Records

PLACE, KNOWN = "_citeqa_place", "_citeqa_fingerprint"
"""The columns beside those of a table: what its row is called, and the fingerprint that is known of it."""

_CHANGED = "changed while it was read. Run the same command again."


@dataclass(frozen=True, slots=True)
class Recipe:
    """How documents are read and cut, and what rows passages become."""

    reading: ReadingSettings
    chunking: ChunkingSettings
    rows: PassageRows

    def writer(self) -> OutcomeWriter:
        """What writes the outcome of a task."""
        return OutcomeWriter(self.rows, self.chunking)


def read_files(
    recipe: Recipe, folder: Path, files: Files, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The outcome of files: those of the size and time that are known of them are not even opened."""
    outcome = recipe.writer()
    for batch in batches:
        for row in batch.to_pylist():
            ordinal, place, size, modified = row["ordinal"], row["place"], row["size"], row["modified"]
            known = row["known_fingerprint"]
            if row["refusal"] is not None:
                outcome.bad(ordinal, place, "", row["refusal"])
            elif known and size == row["known_size"] and modified == row["known_modified"] >= 0:
                outcome.same(ordinal, place, known, size, modified)
            else:
                relative = os.fsdecode(row["relative"])
                source = files.source(folder / relative, relative)
                if source.fingerprint == known:
                    outcome.same(ordinal, place, known, size, modified)
                else:
                    outcome.read(ordinal, place, source, size, modified)
            yield from outcome.full()
    yield from outcome.rest()


def read_records(recipe: Recipe, path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The outcome of records, which are known by their number in the file: it is read up to the last of them."""
    wanted = {row["ordinal"]: row for batch in batches for row in batch.to_pylist()}
    outcome = recipe.writer()
    for ordinal, source in enumerate(read_sources(path, recipe.reading)) if wanted else ():
        row = wanted.pop(ordinal, None)
        if row is not None and row["fingerprint"] == source.fingerprint:
            outcome.read(ordinal, source.place, source)
            yield from outcome.full()
        elif row is not None:
            outcome.bad(ordinal, row["place"], row["fingerprint"], f"{row['place']}: {_CHANGED}")
        if not wanted:
            break
    for row in wanted.values():
        outcome.bad(row["ordinal"], row["place"], row["fingerprint"], f"{row['place']}: {_CHANGED}")
    yield from outcome.rest()


def read_table(recipe: Recipe, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The outcome of a table's rows.

    They go through a Parquet file of this task, so that they are read as any user's Parquet file is.
    """
    outcome, records = recipe.writer(), Records(recipe.reading)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "rows.parquet"
        for batch in batches:
            places, known = batch.column(PLACE).to_pylist(), batch.column(KNOWN).to_pylist()
            table = pa.Table.from_batches([batch]).drop_columns([PLACE, KNOWN])
            parquet.write_table(table, file)
            for number, source in enumerate(records.rows(file)):
                if source.fingerprint == known[number]:
                    outcome.same(0, places[number], source.fingerprint)
                else:
                    outcome.read(0, places[number], source)
                yield from outcome.full()
    yield from outcome.rest()

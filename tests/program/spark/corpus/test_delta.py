"""A Delta table in a directory, written by delta-rs from what was staged; and the MERGE that Spark is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from deltalake import DeltaTable, write_deltalake

from program.spark.corpus.delta import open_store
from program.spark.corpus.delta_by_name import merge_statement
from program.spark.corpus.delta_directory import DeltaDirectory
from program.spark.corpus.staging import staging
from program.spark.tables import Place, passages_place
from retrieval.errors import ConfigurationError, StorageError

NAMES = ("chunk_id", "text", "embedding", "digest")
SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("text", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("digest", pa.string()),
        ("is_gone", pa.bool_()),
    ]
)
Stage = Callable[..., Place]


@pytest.fixture
def target(tmp_path: Path) -> Place:
    return passages_place(str(tmp_path / "passages"))


@pytest.fixture
def stage(target: Place) -> Stage:
    """Stage rows, given as key and text; a key alone is gone."""

    def write(**texts: str | None) -> Place:
        place = staging(target, "rows")
        rows = [
            {"chunk_id": key, "text": text, "embedding": [1.0], "digest": text or "", "is_gone": text is None}
            for key, text in texts.items()
        ]
        Path(place.name).mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), Path(place.name) / "part-0.parquet")
        return place

    return write


def texts(place: Place) -> dict[str, str]:
    return {row["chunk_id"]: row["text"] for row in DeltaTable(place.name).to_pyarrow_table().to_pylist()}


def changed(place: Place, version: int) -> set[tuple[str, str]]:
    """What the change data feed says of one version."""
    feed: Any = pa.table(
        DeltaTable(place.name).load_cdf(starting_version=version, ending_version=version).read_all()
    )
    return {(row["chunk_id"], row["_change_type"]) for row in feed.to_pylist()}


def test_a_merge_deletes_what_is_gone_updates_what_differs_and_leaves_the_rest_untouched(
    target: Place, stage: Stage
) -> None:
    store = open_store(None, target)
    assert (store.exists(), store.first("text")) == (False, None)
    first = store.merge(stage(a="one", b="two", c="three", x=None), NAMES)
    assert (first.inserted, first.deleted, first.version) == (3, 0, 0)
    assert (store.exists(), store.count(), store.columns()) == (True, 3, list(NAMES))
    second = store.merge(stage(a="one", b="zwei", c=None, d="four"), NAMES)
    assert (second.inserted, second.updated, second.deleted, second.version) == (1, 1, 1, 1)
    assert texts(target) == {"a": "one", "b": "zwei", "d": "four"}
    assert changed(target, 1) == {
        ("b", "update_preimage"),
        ("b", "update_postimage"),
        ("c", "delete"),
        ("d", "insert"),
    }


def test_the_change_data_feed_is_on_from_the_first_version(target: Place, stage: Stage) -> None:
    open_store(None, target).merge(stage(a="one"), NAMES)
    assert DeltaTable(target.name).metadata().configuration["delta.enableChangeDataFeed"] == "true"
    assert changed(target, 0) == {("a", "insert")}


def test_the_same_rows_again_change_no_row(target: Place, stage: Stage) -> None:
    store, place = open_store(None, target), stage(a="one", b="two")
    store.merge(place, NAMES)
    again = store.merge(place, NAMES)
    assert (again.inserted, again.updated, again.deleted) == (0, 0, 0)


def test_an_overwrite_may_have_other_columns(target: Place, stage: Stage) -> None:
    store = open_store(None, target)
    store.overwrite(stage(a="one", b="two"), ("chunk_id", "digest"))
    written = store.overwrite(stage(a="one", x=None), NAMES)
    assert (written.inserted, written.deleted) == (1, 2)
    assert (store.columns(), texts(target)) == (list(NAMES), {"a": "one"})


def test_what_delta_refuses_is_one_line(target: Place, stage: Stage) -> None:
    store, place = open_store(None, target), stage(a="one")
    store.merge(place, NAMES)
    log = Path(target.name) / "_delta_log" / "00000000000000000000.json"
    log.write_text("no log")
    with pytest.raises(StorageError) as told:
        store.merge(place, NAMES)
    assert str(told.value).startswith(f"'{target.name}' cannot be used: ")
    assert "\n" not in str(told.value)


def test_a_write_that_another_overtook_says_so(
    target: Place, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DeltaDirectory(target.name)
    store.merge(stage(a="one"), NAMES)
    stale = DeltaTable(target.name)
    nothing = stale.to_pyarrow_table().slice(0, 0)
    write_deltalake(target.name, nothing, mode="overwrite")
    monkeypatch.setattr(store, "_open", lambda: stale)
    with pytest.raises(
        StorageError, match=r"was written by another at the same time\. Run the same command again"
    ):
        store.merge(stage(a="two"), NAMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/passages", "name a table, or a directory that is mounted here"),
        ("made.txt", "is a file"),
        ("a.b.c.d", "neither a path nor a table's name"),
    ],
)
def test_what_is_no_place_for_passages_is_told(
    text: str, said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.txt").touch()
    with pytest.raises(ConfigurationError, match=said):
        passages_place(text)


@pytest.mark.slow
def test_spark_understands_the_merge_that_it_is_given(spark: Any, tmp_path: Path) -> None:
    """Delta's Java packages are not here to run it: Spark's own parser reads it."""
    parse = spark._jsparkSession.sessionState().sqlParser().parsePlan
    for staged in (Place("c.s.rows", "table"), Place(str(tmp_path / "rows"), "parquet")):
        statement = merge_statement("main.docs.`my passages`", staged, ("chunk_id", "end char", "digest"))
        plan = parse(statement).toString()
        for part in ("MergeIntoTable", "deleteaction", "updateaction", "insertaction"):
            assert part in plan


@pytest.mark.slow
def test_a_table_by_name_needs_a_spark_with_delta(spark: Any) -> None:
    with pytest.raises(ConfigurationError, match="this Spark has no Delta, which Databricks has"):
        open_store(spark, passages_place("main.docs.passages"))

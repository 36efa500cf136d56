"""`citeqa index --engine spark` on a real local Spark: a local index's passages in a Delta table, kept in step."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from program.indexing import index_corpus
from program.settings import Settings
from program.spark.corpus import change
from program.spark.corpus.report import PipelineReport
from retrieval.errors import ConfigurationError, CorpusError, StorageError
from retrieval.local_index import LocalIndex

pytestmark = [pytest.mark.slow]

Index = Callable[..., PipelineReport]
Row = dict[str, Any]
E = "https://e.org/"


def rows(place: str = "passages") -> dict[str, Row]:
    return {row["chunk_id"]: row for row in DeltaTable(place).to_pyarrow_table().to_pylist()}


def changed(place: str = "passages") -> set[tuple[str, str]]:
    """Documents, and what the newest version of the table did to their passages."""
    table = DeltaTable(place)
    feed = table.load_cdf(starting_version=table.version(), ending_version=table.version())
    return {(row["doc_uri"], row["_change_type"]) for row in pa.table(feed.read_all()).to_pylist()}


def counts(report: PipelineReport) -> tuple[int, int, int, int, int]:
    return report.added, report.replaced, report.deleted, report.unchanged, report.refused_count


def age(folder: Path) -> None:
    """Make files older than what is too fresh to be trusted."""
    before = time.time() - 60
    for file in folder.rglob("*"):
        if time.time() - file.stat().st_mtime < 10:
            os.utime(file, (before, before))


def test_the_table_holds_the_passages_of_the_local_index_and_is_told_of_as_it_is(
    index: Index, settings_of: Callable[..., Settings], folder: Path
) -> None:
    report = index()
    local = index_corpus(settings_of())
    opened = LocalIndex.open(settings_of().retrieval.index)
    expected = [passage for uri in opened.doc_uris() for passage in opened.passages_of(uri)]
    found = rows()
    assert len(found) == len(expected) == report.passages == report.written == local.passages > 10
    for passage in expected:
        row = found[passage.chunk_id]
        assert (row["text"], row["doc_uri"], row["title"], row["lang"], row["url"]) == (
            passage.text,
            passage.doc_uri,
            passage.title,
            passage.lang,
            passage.url,
        )
        assert (row["start_char"], row["end_char"], tuple(row["headings"])) == (
            passage.start,
            passage.end,
            passage.headings,
        )
        assert json.loads(row["metadata"]) == dict(passage.metadata)
    assert counts(report) == (local.added, 0, 0, 0, 1) == (5, 0, 0, 0, 1)
    assert [one.reason for one in report.refused] == [one.reason for one in local.refused]
    assert (report.version, list(report.render_refusals())) == (0, [f"Refused: {local.refused[0].reason}"])
    assert sorted(path.name for path in Path("passages.run").iterdir()) == ["lock"], "what was staged is gone"


def test_only_what_changed_is_written_and_what_went_away_disappears(index: Index, folder: Path) -> None:
    (folder / "bad.md").unlink()
    age(folder)
    index()
    again = index()
    assert counts(again) == (0, 0, 0, 5, 0)
    assert (again.written, again.removed, again.passages, "reading" in again.stages) == (
        0,
        0,
        len(rows()),
        False,
    )
    before = rows()

    (folder / "plain.txt").write_text("Another line of text.")
    (folder / "new.md").write_text("# New\n\nA new document.")
    (folder / "page.html").unlink()
    (folder / "pump.md").write_text((folder / "pump.md").read_text().replace("lifts water", "lifts oil"))
    os.utime(folder / "front.md", (0, 0))
    report = index()
    assert counts(report) == (1, 2, 1, 2, 0)
    after = rows()
    assert changed() == {
        (f"{E}plain", "update_preimage"),
        (f"{E}plain", "update_postimage"),
        (f"{E}new", "insert"),
        (f"{E}page", "delete"),
        (f"{E}pump", "update_preimage"),
        (f"{E}pump", "update_postimage"),
    }
    untouched = [key for key in before if "front" in key or "deep" in key]
    assert [after[key] for key in untouched] == [before[key] for key in untouched]
    assert after[f"{E}plain#c0000"]["text"] == "Another line of text."
    age(folder)
    version = DeltaTable("passages").version()
    assert counts(index()) == (0, 0, 0, 5, 0)
    assert DeltaTable("passages").version() == version, "nothing is written for nothing"


def test_a_document_that_turned_bad_keeps_its_last_good_version_and_a_second_one_is_refused(
    index: Index, folder: Path
) -> None:
    index()
    before = rows()
    (folder / "plain.txt").write_bytes((folder / "bad.md").read_bytes())
    (folder / "zweite.md").write_text(f"---\ndoc_uri: {E}front\n---\nAnother.")
    report = index()
    assert counts(report) == (0, 0, 0, 5, 3)
    assert rows() == before
    told = {one.place: one for one in report.refused}
    assert (told["plain.txt"].is_kept, told["bad.md"].is_kept) == (True, False)
    assert told["zweite.md"].reason == (
        f"zweite.md: the doc_uri '{E}front' is already that of front.md. Give each document its own."
    )
    assert counts(index()) == (0, 0, 0, 5, 3), "what is refused is told each time"

    (folder / "front.md").unlink()
    report = index()
    assert counts(report) == (0, 1, 0, 4, 2), "the second is now the only one"
    assert rows()[f"{E}front#c0000"]["text"] == "Another."
    with pytest.raises(CorpusError, match=r"bad\.md: "):
        index(strict=True)


def test_lines_are_known_by_their_content_wherever_they_are_in_the_file(index: Index, tmp_path: Path) -> None:
    def write(*names: str) -> None:
        lines = [json.dumps({"_id": name, "text": f"The text of {name}."}) for name in names]
        (tmp_path / "c.jsonl").write_text("\n".join([*lines, "no json"]))

    write("a", "b", "c", "b")
    report = index("corpus.path=c.jsonl")
    assert counts(report) == (3, 0, 0, 0, 2)
    assert [one.place for one in report.refused] == ["c.jsonl:4", "c.jsonl:5"]
    write("new", "c", "b")
    report = index("corpus.path=c.jsonl")
    assert counts(report) == (1, 0, 1, 2, 1)
    assert changed() == {(f"{E}new", "insert"), (f"{E}a", "delete")}


def test_a_spark_table_is_read_row_by_row_with_metadata_in_columns(index: Index, spark: Any) -> None:
    def write(*table: tuple[Any, ...]) -> None:
        columns = "page string, body string, team string, year int, at date"
        spark.createDataFrame(list(table), columns).write.mode("overwrite").saveAsTable("pages")

    overrides = (
        "corpus.path=default.pages",
        "corpus.columns={doc_uri: page, text: body}",
        "pipeline.metadata_columns={team: string, year: bigint}",
    )
    write(
        (f"{E}1", "Water boils.", "red", 2024, None),
        (f"{E}2", "富士山の高さ。", None, 2023, None),
        (None, "x", "", 1, None),
    )
    report = index(*overrides)
    assert counts(report) == (2, 0, 0, 0, 1)
    assert report.refused[0].reason.startswith("default.pages:(no id): no doc_uri, _id or id.")
    found = rows()
    assert (found[f"{E}1#c0000"]["team"], found[f"{E}1#c0000"]["year"]) == ("red", 2024)
    assert (found[f"{E}2#c0000"]["team"], found[f"{E}2#c0000"]["lang"]) == (None, "ja")
    write((f"{E}1", "Water boils.", "red", 2024, None), (f"{E}2", "富士山の高さ。", "blue", 2023, None))
    report = index(*overrides)
    assert counts(report) == (0, 1, 0, 1, 0)
    assert rows()[f"{E}2#c0000"]["team"] == "blue"
    with pytest.raises(Exception, match="there is no column doc_uri or _id or id that tells rows apart"):
        index("corpus.path=default.pages")


def test_other_passages_or_columns_make_the_table_anew_and_so_does_rebuild(
    index: Index, folder: Path
) -> None:
    (folder / "bad.md").unlink()
    age(folder)
    first = index()
    report = index("chunking.max_tokens=200")
    assert counts(report) == (5, 0, 0, 0, 0)
    assert report.passages < first.passages
    assert len(rows()) == report.passages
    assert {kind for _, kind in changed()} == {"update_preimage", "update_postimage", "delete"}
    report = index("chunking.max_tokens=200", "pipeline.metadata_columns={team: string}")
    assert (len(rows()), rows()[f"{E}front#c0000"]["team"]) == (report.passages, "red")
    version = DeltaTable("passages").version()
    report = index("chunking.max_tokens=200", "pipeline.metadata_columns={team: string}", rebuild=True)
    assert (counts(report), report.written, report.removed) == ((5, 0, 0, 0, 0), 0, 0)
    assert DeltaTable("passages").version() == version, "every row was as it is"


def test_a_run_that_ended_anywhere_is_made_good_by_the_next(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    index("corpus.path=docs/deep")
    with monkeypatch.context() as patch:
        patch.setattr(change.registry, "next_registry", killed)
        with pytest.raises(KeyboardInterrupt):
            index()
    assert len({row["doc_uri"] for row in rows().values()}) == 5, "written before their sources are noted"
    report = index()
    assert report.documents == 5
    assert {row["doc_uri"] for row in rows().values()} == {
        f"{E}{name}" for name in ("pump", "front", "page", "plain", "deep/%E5%AF%8C%E5%A3%AB%E5%B1%B1")
    }


def test_what_is_wrong_is_told_and_nothing_is_changed(index: Index, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Where do the passages go"):
        index("pipeline.table=null")
    with pytest.raises(ConfigurationError, match="an index follows a table of Unity Catalog"):
        index("pipeline.index=main.docs.index")
    index()
    before, version = rows(), DeltaTable("passages").version()
    bad = (folder / "bad.md").read_bytes()
    for file in folder.rglob("*.*"):
        file.write_bytes(bad)
    with pytest.raises(CorpusError, match="None of 6 documents can be read"):
        index(f"pipeline.table={tmp_path / 'other'}")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "blank.md").write_text(" \n")
    with pytest.raises(CorpusError, match="None of the 1 documents holds any text"):
        index("corpus.path=empty")
    assert (rows(), DeltaTable("passages").version()) == (before, version)
    DeltaTable.create("foreign", DeltaTable("passages").schema())
    with pytest.raises(ConfigurationError, match="exists, and not as this command wrote it"):
        index(f"pipeline.table={tmp_path / 'foreign'}")


def test_two_runs_into_one_directory_at_once_are_one_too_many(index: Index, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "passages.run").mkdir()
    with (
        FileLock(tmp_path / "passages.run" / "lock"),
        pytest.raises(StorageError, match=r"Another run writes '.*passages' right now"),
    ):
        index()

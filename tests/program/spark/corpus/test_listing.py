"""What Spark is given to read is what is read without Spark."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from program.spark.corpus.listing import FileListing, RecordListing, TableListing, list_corpus
from program.spark.corpus.passages import PassageRows
from program.spark.corpus.reading import Recipe, read_files, read_records
from retrieval.chunking import ChunkingSettings
from retrieval.corpus import ReadingSettings, read_sources
from retrieval.errors import ConfigurationError, CorpusError

PLAIN = ReadingSettings(base_url="https://e.org/")
Row = dict[str, Any]


def age(folder: Path, seconds: float = 60) -> None:
    """Make files older than what is too fresh to be trusted."""
    before = time.time() - seconds
    for file in folder.rglob("*"):
        os.utime(file, (before, before))


def rows(batches: Iterator[pa.RecordBatch]) -> list[Row]:
    return [row for batch in batches for row in batch.to_pylist()]


def read(listing: FileListing, settings: ReadingSettings, known: dict[str, Row] | None = None) -> list[Row]:
    """The outcome of a folder, as one task has it."""
    found = []
    for row in listing.table.to_pylist():
        stated = (known or {}).get(row["place"], {})
        names = ("fingerprint", "size", "modified")
        found.append({**row, **{f"known_{name}": stated.get(name) for name in names}})
    types = {"known_fingerprint": pa.string(), "known_size": pa.int64(), "known_modified": pa.int64()}
    schema = pa.schema([*listing.table.schema, *types.items()])
    batch = pa.RecordBatch.from_pylist(found, schema)
    recipe = Recipe(settings, ChunkingSettings(60, 10), PassageRows({}))
    return rows(read_files(recipe, listing.folder, listing.files, [batch]))


def sources(outcome: list[Row]) -> dict[str, Row]:
    return {row["place"]: row for row in outcome if row["kind"] == "source"}


def in_git(folder: Path) -> None:
    for command in (["init", "-q"], ["add", "pump.md", "deep"], ["commit", "-q", "-m", "x"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@e.org"]
        subprocess.run(
            ["git", "-C", str(folder), *who, *command], check=True, env={**os.environ, "HOME": "/"}
        )


@pytest.mark.parametrize("layout", ["auto", "folder", "git"])
def test_the_files_of_a_folder_are_the_sources_that_are_read_without_spark(folder: Path, layout: Any) -> None:
    in_git(folder)
    (folder / "out.md").symlink_to("/etc/hostname")
    template = "https://git.org/{commit}/{path}" if layout == "git" else None
    settings = ReadingSettings(base_url="https://e.org/", layout=layout, url_template=template)
    listing = list_corpus(str(folder), settings)
    assert isinstance(listing, FileListing)
    outcome = sources(read(listing, settings))
    expected = {source.place: source.fingerprint for source in read_sources(folder, settings)}
    assert list(outcome) == list(expected), "in the same order"
    assert {place: row["fingerprint"] for place, row in outcome.items() if place != "out.md"} == {
        place: fingerprint for place, fingerprint in expected.items() if place != "out.md"
    }
    if layout != "git":
        assert outcome["bad.md"]["status"] == "bad"
        assert outcome["bad.md"]["reason"].startswith("bad.md: ")
        assert outcome["out.md"]["reason"].startswith("out.md: a link out of the folder")


def test_what_is_no_folder_of_files_is_read_as_records(tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    beir.mkdir()
    lines = [json.dumps({"_id": f"d{number}", "text": f"Text {number}."}) for number in range(5)]
    (beir / "corpus.jsonl").write_text("\n".join([*lines[:2], "", *lines[2:], "no json"]))
    (tmp_path / "one.md").write_text("# One\n\nText.")
    for path in (beir, beir / "corpus.jsonl", tmp_path / "one.md"):
        listing = list_corpus(str(path), PLAIN)
        assert isinstance(listing, RecordListing)
        expected = [(source.place, source.fingerprint) for source in read_sources(path, PLAIN)]
        found = listing.table.to_pylist()
        assert [(row["place"], row["fingerprint"]) for row in found] == expected


def test_records_are_read_by_their_number_and_what_changed_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"_id": str(n), "text": f"Text {n}."}) + "\n" for n in range(6)))
    listing = list_corpus(str(path), PLAIN)
    assert isinstance(listing, RecordListing)
    wanted = [row for row in listing.table.to_pylist() if row["ordinal"] in (1, 3, 5)]
    recipe = Recipe(PLAIN, ChunkingSettings(), PassageRows({}))
    batch = pa.RecordBatch.from_pylist(wanted, listing.table.schema)
    outcome = rows(read_records(recipe, path, [batch]))
    assert [row["doc_uri"] for row in outcome if row["kind"] == "passage"] == [
        f"https://e.org/{number}" for number in (1, 3, 5)
    ]
    path.write_text(
        json.dumps({"_id": "0", "text": "Other."}) + "\n" + json.dumps({"_id": "1", "text": "New."})
    )
    outcome = rows(read_records(recipe, path, [batch]))
    assert [row["reason"] for row in outcome] == [
        f"c.jsonl:{number}: changed while it was read. Run the same command again." for number in (2, 4, 6)
    ]
    path.unlink()
    assert rows(read_records(recipe, path, [])) == [], "a task without records opens nothing"


def listed(folder: Path) -> FileListing:
    listing = list_corpus(str(folder), PLAIN)
    assert isinstance(listing, FileListing)
    return listing


def test_a_file_of_known_size_and_time_is_not_opened_and_one_of_another_time_is_told_by_its_bytes(
    folder: Path,
) -> None:
    age(folder)
    known = {
        place: row for place, row in sources(read(listed(folder), PLAIN)).items() if row["status"] == "read"
    }
    (folder / "plain.txt").write_bytes(b"x" * (folder / "plain.txt").stat().st_size)
    age(folder, 60)
    os.utime(folder / "plain.txt", ns=(0, known["plain.txt"]["modified"]))
    again = sources(read(listed(folder), PLAIN, known))
    assert again["plain.txt"]["status"] == "same", "taken for unchanged, as rsync does"
    age(folder, 120)
    later = sources(read(listed(folder), PLAIN, known))
    assert {place: row["status"] for place, row in later.items()} == {
        "bad.md": "bad",
        "front.md": "same",
        "page.html": "same",
        "plain.txt": "read",
        "pump.md": "same",
        "deep/富士山.md": "same",
    }


def test_what_was_written_a_moment_ago_is_looked_at_again_as_it_may_change_within_the_same_tick(
    folder: Path,
) -> None:
    assert listed(folder).digest == ""
    known = sources(read(listed(folder), PLAIN))
    (folder / "plain.txt").write_text("Just a line of tixt.")
    again = sources(read(listed(folder), PLAIN, known))
    assert again["plain.txt"]["status"] == "read"
    age(folder)
    assert listed(folder).digest != ""


@pytest.mark.parametrize("change", ["content", "name", "gone", "setting"])
def test_the_digest_of_a_folder_changes_with_whatever_may_change_a_document(
    folder: Path, change: str
) -> None:
    age(folder)
    before, settings = list_corpus(str(folder), PLAIN), PLAIN
    assert before.digest == list_corpus(str(folder), PLAIN).digest != ""
    match change:
        case "content":
            (folder / "plain.txt").write_text("Another line, and a longer one.")
            age(folder)
        case "name":
            (folder / "plain.txt").rename(folder / "plein.txt")
        case "gone":
            (folder / "plain.txt").unlink()
        case "setting":
            settings = ReadingSettings(base_url="https://f.org/")
    assert list_corpus(str(folder), settings).digest != before.digest


def test_a_name_that_is_no_path_is_a_table_and_what_is_neither_is_told(tmp_path: Path) -> None:
    assert isinstance(list_corpus("main.docs.pages", PLAIN), TableListing)
    with pytest.raises(CorpusError, match="There is no corpus at '/nowhere/at/all'"):
        list_corpus("/nowhere/at/all", PLAIN)
    with pytest.raises(CorpusError, match="There is no document in"):
        list_corpus(str(tmp_path), PLAIN)
    with pytest.raises(ConfigurationError, match=r"Set corpus\.layout: git"):
        list_corpus(
            str(tmp_path), ReadingSettings(url_template="https://e.org/{commit}/{path}", layout="folder")
        )


def test_a_name_that_is_not_utf8_is_read_all_the_same(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.md")
    (folder / name).write_text("# Coffee\n\nIt is hot.")
    outcome = sources(read(listed(folder), PLAIN))
    assert outcome["caf\\xe9.md"]["status"] == "read"

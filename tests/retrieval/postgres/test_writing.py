from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from given_sources import source_of
from numpy.typing import NDArray

from retrieval.chunking import ChunkingSettings
from retrieval.errors import (
    ConfigurationError,
    CorpusError,
    EmbeddingError,
    IndexMissingError,
    IndexUnusableError,
    StorageError,
)
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.writing import write_corpus
from retrieval.sources import Source
from retrieval.types import Document

Write = Callable[..., Any]


def counts(report: Any) -> tuple[int, int, int, int]:
    return report.added, report.replaced, report.deleted, report.unchanged


def found(database: Database, query: str) -> list[str]:
    return [passage.doc_uri for passage in PostgresIndex.open(database, "passages").search(query, 10)]


def everything(database: Database) -> tuple[list[Any], list[Any]]:
    """What searches depend on, but for the order in which it was written."""
    passages = "SELECT chunk_id, terms::text, weights::text, text FROM passages ORDER BY chunk_id"
    terms = "SELECT term, passages FROM passages_terms ORDER BY term"
    return database.read_rows(passages), database.read_rows(terms)


CAT = Document("u/cat", "The cat sleeps on the mat.", "Cat", "en")
DOG = Document("u/dog", "The dog barks at night.", "Dog", "en")
FISH = Document("u/fish", "The fish swims in circles.", "Fish", "en")


def test_what_did_not_change_is_not_even_loaded(write: Write) -> None:
    write([CAT, DOG])

    def never() -> None:
        raise AssertionError("it was loaded")

    report = write([source_of(CAT, on_load=never), source_of(DOG, on_load=never)])

    assert counts(report) == (0, 0, 0, 2)
    assert (report.documents, report.passages) == (2, 2)


def test_documents_are_added_replaced_and_deleted(write: Write, database: Database) -> None:
    write([CAT, DOG])

    report = write([replace(CAT, text="The cat hunts mice."), FISH])

    assert counts(report) == (1, 1, 1, 0)
    assert sorted(found(database, "mice fish")) == ["u/cat", "u/fish"]
    assert found(database, "mat dog") == []
    assert PostgresIndex.open(database, "passages").doc_uris() == {"u/cat", "u/fish"}


def test_step_by_step_it_becomes_what_it_is_when_made_anew(write: Write, database: Database) -> None:
    texts = ["alpha beta gamma", "beta beta delta", "gamma 検索 モデル", "モデルの評価", "epsilon alpha"]
    documents = [Document(f"u/{n}", text, f"T{n}") for n, text in enumerate(texts)]
    for step in ([0, 1, 2, 3], [0, 2, 3], [0, 1, 2, 4], [4, 3, 2, 1, 0]):
        write([documents[n] for n in step])
    write([replace(documents[0], text="zeta eta"), *documents[1:]])
    stepwise = everything(database)
    hashes = [PostgresIndex.open(database, "passages").content_hash]

    write([replace(documents[0], text="zeta eta"), *documents[1:]], rebuild=True)
    hashes.append(PostgresIndex.open(database, "passages").content_hash)

    ours, theirs = stepwise, everything(database)
    assert ours[1] == theirs[1]
    assert [row[:2] for row in ours[0]] == [row[:2] for row in theirs[0]]


def test_a_corpus_that_grew_is_weighed_by_what_it_has_become(write: Write, database: Database) -> None:
    write([Document("u/0", "short")])
    grown = [Document(f"u/{n}", "a much longer text than the first was " * (n % 3 + 1)) for n in range(30)]
    write([Document("u/0", "short"), *grown[1:]])
    stepwise = everything(database)

    write([Document("u/0", "short"), *grown[1:]], rebuild=True)

    assert stepwise == everything(database)


def test_a_document_that_moved_costs_nothing_and_keeps_its_place(write: Write, database: Database) -> None:
    write([source_of(CAT, place="old.md")])

    report = write([source_of(CAT, place="new.md")])

    assert counts(report) == (0, 0, 0, 1)
    assert database.read_rows("SELECT place FROM passages_documents") == [("new.md",)]


def test_what_turned_bad_keeps_its_last_good_version(write: Write, database: Database) -> None:
    write([source_of(CAT, place="cat.md"), DOG])

    report = write([bad("cat.md"), DOG])

    assert counts(report) == (0, 0, 0, 2)
    assert [(one.place, one.is_kept) for one in report.refused] == [("cat.md", True)]
    assert found(database, "mat") == ["u/cat"]
    assert counts(write([source_of(replace(CAT, text="Better."), place="cat.md"), DOG])) == (0, 1, 0, 1)


def test_strict_makes_a_bad_document_an_error_and_changes_nothing(write: Write, database: Database) -> None:
    write([CAT])

    with pytest.raises(CorpusError, match="is broken"):
        write([FISH, bad("cat.md")], strict=True)

    assert found(database, "fish cat") == ["u/cat"]


def test_of_documents_with_one_address_the_first_has_it(write: Write, database: Database) -> None:
    report = write([source_of(CAT, place="a.md"), source_of(replace(DOG, doc_uri="u/cat"), place="b.md")])

    assert counts(report) == (1, 0, 0, 0)
    assert "already that of a.md" in report.refused[0].reason
    assert found(database, "dog") == []


def test_sources_of_several_documents_are_known_as_a_whole(write: Write, database: Database) -> None:
    write([source_of(CAT, DOG, place="both")])

    assert counts(write([source_of(CAT, DOG, place="both")])) == (0, 0, 0, 2)
    assert counts(write([source_of(CAT, FISH, place="both")])) == (1, 0, 1, 1)
    assert sorted(found(database, "cat dog fish")) == ["u/cat", "u/fish"]


def test_nothing_to_index_is_an_error_and_changes_nothing(write: Write, database: Database) -> None:
    write([CAT])

    with pytest.raises(CorpusError, match="no document to index"):
        write([])
    with pytest.raises(CorpusError, match="holds any text"):
        write([Document("u/empty", "  ")], rebuild=True)
    with pytest.raises(CorpusError, match="None of 1 documents can be read"):
        write([bad("x.md")], rebuild=True)

    assert found(database, "cat") == ["u/cat"]


def test_metadata_that_json_does_not_know_names_its_document(write: Write) -> None:
    with pytest.raises(CorpusError, match="u/cat: the metadata price = inf"):
        write([replace(CAT, metadata={"price": float("inf")})])


def test_until_all_is_written_searches_find_what_was_there(write: Write, database: Database) -> None:
    write([CAT])
    seen: list[list[str]] = []
    sources = [source_of(DOG, on_load=lambda: seen.append(found(database, "cat dog"))), source_of(FISH)]

    for rebuild in (False, True):
        write([CAT])
        seen.clear()
        write(sources, rebuild=rebuild)
        assert seen == [["u/cat"]]
        assert found(database, "cat dog") == ["u/dog"]


class Failing:
    """An embedding model that fails after so many texts."""

    name = fingerprint = "failing"
    dimension, truncated = 3, 0

    def __init__(self, bears: int) -> None:
        self.bears = bears

    def embed_passages(self, texts: Any) -> NDArray[np.float32]:
        self.bears -= len(texts)
        if self.bears < 0:
            raise EmbeddingError("the model went away")
        return np.tile(np.float32([1, 0, 0]), (len(texts), 1))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return np.float32([1, 0, 0])


def test_what_fails_half_way_leaves_what_was_there(write: Write, database: Database) -> None:
    many = [Document(f"u/{n}", f"Text of number {n}.") for n in range(5000)]
    write([CAT])

    with pytest.raises(EmbeddingError):
        write(many, embedder=Failing(4000))

    assert found(database, "cat number") == ["u/cat"]
    assert database.read_rows("SELECT count(*) FROM pg_tables WHERE tablename LIKE '%%_new%%'") == [(0,)]


@pytest.mark.parametrize(
    "how",
    [{"chunking": ChunkingSettings(50, 0)}, {"embedder": Failing(10)}],
    ids=["another chunking", "a model"],
)
def test_with_other_settings_it_is_made_anew(write: Write, how: dict[str, Any]) -> None:
    write([CAT, DOG])

    assert counts(write([CAT, DOG], **how)) == (2, 0, 0, 0)
    assert counts(write([CAT, DOG], **how)) == (0, 0, 0, 2)


def test_who_could_read_it_can_read_it_when_it_was_made_anew(write: Write, database: Database) -> None:
    write([CAT])
    with database.writing() as connection:
        connection.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader")
        connection.execute("GRANT SELECT ON passages, passages_terms, passages_corpus TO reader")

    write([DOG], rebuild=True)

    query = "SELECT has_table_privilege('reader', %s, 'SELECT')"
    assert [database.read_rows(query, [table])[0][0] for table in ("passages", "passages_terms")] == [
        True,
        True,
    ]
    with database.writing() as connection:
        connection.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_table_of_somebody_else_is_not_touched(write: Write, database: Database) -> None:
    with database.writing() as connection:
        connection.execute("CREATE TABLE passages (mine text)")

    for attempt in (lambda: write([CAT]), lambda: write([CAT], rebuild=True), lambda: found(database, "cat")):
        with pytest.raises(IndexUnusableError, match="not one that citeqa made"):
            attempt()
    assert database.read_rows("SELECT count(*) FROM passages") == [(0,)]


def test_a_corpus_of_another_format_is_refused_and_made_anew(write: Write, database: Database) -> None:
    write([CAT])
    with database.writing() as connection:
        connection.execute("UPDATE passages_corpus SET format = 99")

    with pytest.raises(IndexUnusableError, match=r"of format 99.*--rebuild"):
        found(database, "cat")
    assert counts(write([CAT])) == (1, 0, 0, 0)
    assert found(database, "cat") == ["u/cat"]


def test_where_there_is_no_corpus_it_says_how_to_make_one(database: Database) -> None:
    with pytest.raises(IndexMissingError, match="citeqa index"):
        found(database, "cat")


def test_the_second_of_two_writers_is_told(write: Write) -> None:
    def second() -> None:
        with pytest.raises(StorageError, match="Another process is writing"):
            write([DOG])

    assert counts(write([source_of(CAT, on_load=second)])) == (1, 0, 0, 0)


@pytest.mark.parametrize("name", ["Passages", "a b", "x;y", "a.b.c", "n" * 60, ""])
def test_a_name_that_is_no_table_is_refused(database: Database, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"retrieval\.pgvector\.table"):
        write_corpus(database, name, [source_of(CAT)], chunking=ChunkingSettings())


@pytest.mark.parametrize("name", ["order", "select.user"])
def test_a_word_of_sql_is_a_name_like_any(database: Database, name: str) -> None:
    for rebuild in (False, True):
        write_corpus(database, name, [source_of(CAT)], chunking=ChunkingSettings(), rebuild=rebuild)

    assert [p.doc_uri for p in PostgresIndex.open(database, name).search("cat", 1)] == ["u/cat"]


def test_documents_of_a_folder_are_kept_in_step(database: Database, tmp_path: Path) -> None:
    from retrieval.corpus import ReadingSettings, read_sources

    settings = ReadingSettings(base_url="https://e.org/")
    (tmp_path / "a.md").write_text("# A\n\nThe first page.")
    (tmp_path / "b.md").write_text("# B\n\nThe second page.")

    def bring() -> Any:
        return write_corpus(
            database, "passages", read_sources(tmp_path, settings), chunking=ChunkingSettings()
        )

    assert counts(bring()) == (2, 0, 0, 0)
    (tmp_path / "b.md").write_text("# B\n\nThe second page, mended.")
    (tmp_path / "a.md").unlink()
    assert counts(bring()) == (0, 1, 1, 0)
    assert found(database, "mended") == ["https://e.org/b"]


def bad(place: str) -> Source:
    def load() -> list[Document]:
        raise CorpusError(f"{place} is broken.")

    return Source(place, "f" * 32, load)

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tantivy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval import generations
from retrieval.chunking import ChunkingSettings
from retrieval.errors import CorpusError, IndexMissingError, IndexUnusableError, StorageError
from retrieval.indexing import hash_document
from retrieval.local_index import LocalIndex
from retrieval.types import Document


def document(name: str, text: str = "some text") -> Document:
    return Document(f"https://e.org/{name}", f"{text} about {name}", name, "en")


ABC = [document("a"), document("b"), document("c")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    LocalIndex.build(tmp_path / "index", ABC)
    return tmp_path / "index"


def names(path: Path) -> list[str]:
    index = LocalIndex.open(path)
    found = sorted(passage.title for passage in index.search("text", 100))
    assert sorted(uri[-1] for uri in index.doc_uris()) == found
    assert len(index) == len(found)
    return found


def directories(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir() if entry.is_dir()]


def broken_off(*documents: Document) -> Iterator[Document]:
    yield from documents
    raise KeyboardInterrupt


def test_a_build_reports_what_it_did_and_its_progress(tmp_path: Path) -> None:
    counts: list[int] = []
    report = LocalIndex.build(tmp_path / "deep" / "index", iter(ABC), on_progress=counts.append)
    assert replace(report, seconds=0) == replace(report, added=3, documents=3, passages=3, seconds=0)
    assert (report.replaced, report.deleted, report.unchanged) == (0, 0, 0)
    assert report.seconds > 0
    assert counts == [1, 2, 3]


def test_a_build_replaces_what_was_there(path: Path) -> None:
    LocalIndex.build(path, [document("d")])
    assert names(path) == ["d"]
    assert len(directories(path)) == 1


def test_sync_writes_only_the_difference(path: Path) -> None:
    report = LocalIndex.sync(path, [document("a"), document("b", "other text"), document("d")])
    assert (report.added, report.replaced, report.deleted, report.unchanged) == (1, 1, 1, 1)
    assert (report.documents, report.passages) == (3, 3)
    assert names(path) == ["a", "b", "d"]
    assert [p.title for p in LocalIndex.open(path).search("other", 5)] == ["b"]


def test_sync_without_a_difference_writes_nothing(path: Path) -> None:
    before = (path / "manifest.json").read_bytes()
    report = LocalIndex.sync(path, reversed(ABC))
    assert (report.unchanged, report.documents, report.passages) == (3, 3, 3)
    assert (path / "manifest.json").read_bytes() == before


def test_sync_does_not_chunk_what_is_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunked: list[str] = []
    real = sys.modules["retrieval.indexing"].chunk
    monkeypatch.setattr("retrieval.indexing.chunk", lambda d, s: (chunked.append(d.title), real(d, s))[1])
    LocalIndex.sync(path, [*ABC, document("d")])
    assert chunked == ["d"]


def test_sync_builds_where_nothing_can_be_kept(tmp_path: Path, path: Path) -> None:
    assert LocalIndex.sync(tmp_path / "new", ABC).added == 3
    assert LocalIndex.sync(path, ABC, chunking=ChunkingSettings(100, 10)).added == 3
    assert LocalIndex.open(path).manifest.chunking == ChunkingSettings(100, 10)
    next(path.glob("generation-*/*.store")).unlink()
    assert LocalIndex.sync(path, ABC, chunking=ChunkingSettings(100, 10)).added == 3
    assert names(path) == ["a", "b", "c"]


def test_update_replaces_adds_and_deletes_by_identity(path: Path) -> None:
    report = LocalIndex.update(
        path,
        add_or_replace=[document("b", "new text"), document("d")],
        delete=["https://e.org/a", "https://e.org/unknown"],
    )
    assert (report.added, report.replaced, report.deleted, report.documents) == (1, 1, 1, 3)
    assert names(path) == ["b", "c", "d"]


def test_the_last_document_can_be_deleted(path: Path) -> None:
    LocalIndex.update(path, delete=[d.doc_uri for d in ABC])
    assert names(path) == []
    LocalIndex.update(path, add_or_replace=[document("z")])
    assert names(path) == ["z"]


def test_the_content_hash_depends_on_content_and_settings_alone(tmp_path: Path, path: Path) -> None:
    before = LocalIndex.open(path).content_hash
    LocalIndex.build(tmp_path / "other", reversed(ABC))
    assert LocalIndex.open(tmp_path / "other").content_hash == before
    LocalIndex.update(path, add_or_replace=[document("d")])
    assert LocalIndex.open(path).content_hash != before
    LocalIndex.update(path, delete=["https://e.org/d"])
    assert LocalIndex.open(path).content_hash == before
    LocalIndex.build(path, ABC, chunking=ChunkingSettings(100, 10))
    assert LocalIndex.open(path).content_hash != before


@pytest.mark.parametrize(
    "changed", [{"text": "x"}, {"title": "x"}, {"lang": "ja"}, {"metadata": {"year": 1}}, {"doc_uri": "x"}]
)
def test_every_part_of_a_document_counts_for_its_hash(changed: dict[str, object]) -> None:
    assert hash_document(replace(ABC[0], **changed)) != hash_document(ABC[0])  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["one text", "two text"]), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_any_sequence_of_syncs_ends_where_a_build_would(tmp_path: Path, states: list[dict[str, str]]) -> None:
    for state in states:
        LocalIndex.sync(tmp_path / "synced", [document(name, text) for name, text in state.items()])
    LocalIndex.build(tmp_path / "built", [document(name, text) for name, text in states[-1].items()])
    synced, built = LocalIndex.open(tmp_path / "synced"), LocalIndex.open(tmp_path / "built")
    assert synced.content_hash == built.content_hash
    assert synced.doc_uris() == built.doc_uris()
    assert all(synced.passages_of(uri) == built.passages_of(uri) for uri in built.doc_uris())


def test_an_open_index_is_a_snapshot(path: Path) -> None:
    index = LocalIndex.open(path)
    LocalIndex.build(path, [document("z")])
    assert [p.title for p in index.search("text", 9)] == ["a", "b", "c"]
    assert len(index.doc_uris()) == 3
    assert len(index.passages_of("https://e.org/a")) == 1
    assert names(path) == ["z"]


def test_an_index_that_is_replaced_while_it_is_opened_is_opened_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = generations.read_manifest(path)
    LocalIndex.build(path, [document("z")])
    real, answers = generations.read_manifest, [stale]
    monkeypatch.setattr(generations, "read_manifest", lambda p: answers.pop() if answers else real(p))
    assert [p.title for p in LocalIndex.open(path).search("text", 9)] == ["z"]


def test_an_index_that_is_removed_file_by_file_while_it_is_opened_is_opened_anew(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = path / generations.read_manifest(path).generation
    opening = tantivy.Index.open

    def open_half_removed(directory: str) -> tantivy.Index:
        # tantivy takes a segment without this file for one without positions, and fails at the search.
        monkeypatch.setattr(tantivy.Index, "open", opening)
        for file in generation.glob("*.pos"):
            file.unlink()
        LocalIndex.build(tmp_path / "next", [document("z")])
        (tmp_path / "next" / "generation-000001").rename(path / "generation-000002")
        manifest = replace(generations.read_manifest(tmp_path / "next"), generation="generation-000002")
        generations.publish(path, manifest)
        return opening(directory)

    monkeypatch.setattr(tantivy.Index, "open", open_half_removed)
    assert [p.title for p in LocalIndex.open(path).search("text", 9)] == ["z"]


def test_readers_see_a_whole_index_while_it_is_written(path: Path) -> None:
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set() or not count:
            versions = {passage.text for passage in LocalIndex.open(path).search("version", 9)}
            assert len(versions) <= 1
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(12):
            one_text = Document("x", f"version {number}"), Document("y", f"version {number}")
            LocalIndex.update(path, add_or_replace=one_text)
        done.set()
        assert all(reader.result() for reader in readers)


def test_many_updates_do_not_pile_up_files(path: Path) -> None:
    for number in range(25):
        LocalIndex.update(path, add_or_replace=[document("d", f"version {number} text")])
    assert names(path) == ["a", "b", "c", "d"]
    assert len(directories(path)) == 1
    assert len(LocalIndex.open(path).manifest.files) < 100


@pytest.mark.parametrize("write", [LocalIndex.build, LocalIndex.sync])
def test_a_broken_off_write_leaves_the_old_index(path: Path, write: type) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(path, broken_off(document("x"), document("y")))
    assert names(path) == ["a", "b", "c"]
    assert len(directories(path)) == 1


@pytest.mark.parametrize("step", ["new_generation", "file_sizes", "publish"])
def test_a_crash_at_any_step_leaves_the_old_index_and_the_next_write_cleans_up(path: Path, step: str) -> None:
    script = f"""
        import os, sys
        from retrieval import generations
        from retrieval.local_index import LocalIndex
        from retrieval.types import Document
        real = generations.{step}
        def die(*arguments, **keywords):
            {"real(*arguments, **keywords)" if step != "publish" else "pass"}
            os._exit(9)
        generations.{step} = die
        LocalIndex.sync(sys.argv[1], [Document("https://e.org/x", "text")])
    """
    assert (
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=False).returncode
        == 9
    )
    assert names(path) == ["a", "b", "c"]
    assert len(directories(path)) == 2
    LocalIndex.sync(path, [*ABC, document("d")])
    assert names(path) == ["a", "b", "c", "d"]
    assert len(directories(path)) == 1


def test_a_crash_of_the_first_build_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / "index" / "generation-000001").mkdir(parents=True)
    (tmp_path / "index" / "write.lock").touch()
    with pytest.raises(IndexMissingError):
        LocalIndex.open(tmp_path / "index")
    LocalIndex.build(tmp_path / "index", ABC)
    assert names(tmp_path / "index") == ["a", "b", "c"]


def test_a_second_writer_is_told(path: Path) -> None:
    with generations.writing(path), pytest.raises(StorageError, match="Another process is writing"):
        LocalIndex.update(path, delete=["https://e.org/a"])
    LocalIndex.update(path, delete=["https://e.org/a"])
    assert names(path) == ["b", "c"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no document to index"),
        ([Document("a", " ")], "None of the 1 documents holds any text"),
        ([*ABC, document("b")], "Two documents have the doc_uri 'https://e.org/b'"),
    ],
)
def test_a_corpus_that_cannot_be_an_index_leaves_the_old_one(
    path: Path, documents: list[Document], message: str
) -> None:
    for write in (LocalIndex.build, LocalIndex.sync):
        with pytest.raises(CorpusError, match=message):
            write(path, documents)
    assert names(path) == ["a", "b", "c"]


def test_a_missing_index_says_how_to_build_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(IndexMissingError, match=r"No index at '.*'\. Build it: citeqa index"):
            LocalIndex.open(path)
        with pytest.raises(IndexMissingError):
            LocalIndex.update(path, delete=["x"])
    assert not (tmp_path / "none").exists()


def test_a_directory_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "generation-000001").mkdir()
    (tmp_path / "generation-000001" / "data").write_text("mine")
    for attempt in (LocalIndex.open, lambda p: LocalIndex.build(p, ABC), lambda p: LocalIndex.sync(p, ABC)):
        with pytest.raises(IndexUnusableError, match=r"not a citeqa index: it holds 'notes\.txt'"):
            attempt(tmp_path)  # type: ignore[operator]
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["data", "generation-000001", "notes.txt"]


@pytest.mark.parametrize("content", ['{"kind": "another program"}', "{", "[]", '{"version": 3}'])
def test_a_manifest_of_something_else_is_never_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    for attempt in (LocalIndex.open, lambda p: LocalIndex.build(p, ABC)):
        with pytest.raises(IndexUnusableError, match=r"holds a manifest\.json of something else"):
            attempt(tmp_path)  # type: ignore[operator]
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexUnusableError, match="it is a file"):
        LocalIndex.build(tmp_path / "file", ABC)
    assert (tmp_path / "file").read_text() == "x"


def test_other_files_beside_an_index_stay(path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    LocalIndex.build(path, ABC)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 99, "built by a newer citeqa .format version 99, this one reads 3.*Upgrade"),
        ("format_version", 0, "built by an older citeqa .*Rebuild it: citeqa index"),
        ("analyzer_version", 0, "analyzer version 0"),
        ("format_version", "x", "Cannot read"),
        ("chunking", {"max_tokens": 0}, "Cannot read .*max_tokens must be at least 1"),
        ("surprise", 1, "Cannot read"),
    ],
)
def test_another_version_is_named_and_can_be_rebuilt(
    path: Path, field: str, value: object, message: str
) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(IndexUnusableError, match=message):
        LocalIndex.open(path)
    LocalIndex.sync(path, ABC)
    assert names(path) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", ["store", "idx", "term", "fieldnorm", "json", "zip"])
def test_a_truncated_or_missing_file_is_named(path: Path, suffix: str) -> None:
    file = next(path.glob(f"generation-*/*.{suffix}"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IndexUnusableError, match=rf"damaged \(.*{file.name} has .* bytes of .*Rebuild it"):
        LocalIndex.open(path)
    file.unlink()
    with pytest.raises(IndexUnusableError, match=f"lacks its file .*{file.name}"):
        LocalIndex.open(path)


def test_an_overwritten_file_of_the_right_length_is_an_error_too(path: Path) -> None:
    file = next(path.glob("generation-*/meta.json"))
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(IndexUnusableError, match="damaged"):
        LocalIndex.open(path)


@pytest.mark.parametrize("step", ["mkdir", "replace", "open"])
def test_a_disk_that_refuses_leaves_the_old_index(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, refuse)
        with pytest.raises(StorageError, match=r"Cannot write the index at .*Read-only file system"):
            LocalIndex.build(path, [document("z")])
    assert names(path) == ["a", "b", "c"]


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files through the operating system")
def test_a_disk_that_fills_up_in_the_middle_is_a_storage_error(path: Path) -> None:
    script = """
        import resource, sys
        from retrieval.errors import StorageError
        from retrieval.local_index import LocalIndex
        from retrieval.types import Document
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        texts = (" ".join(f"w{n}x{m}" for m in range(200)) for n in range(3000))
        try:
            LocalIndex.build(sys.argv[1], (Document(f"u{n}", text) for n, text in enumerate(texts)))
        except StorageError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith(f"Cannot write the index at '{path}'")
    assert names(path) == ["a", "b", "c"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_directory_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        LocalIndex.build(tmp_path / "index", ABC)


def test_links_are_replaced_by_copies_where_the_file_system_has_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    LocalIndex.update(path, add_or_replace=[document("d")])
    assert names(path) == ["a", "b", "c", "d"]


def test_a_document_that_is_deleted_and_given_again_is_there(path: Path) -> None:
    LocalIndex.update(path, add_or_replace=[document("a")], delete=[document("a").doc_uri])
    assert names(path) == ["a", "b", "c"]

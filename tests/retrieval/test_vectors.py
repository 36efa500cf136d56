from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval import vectors
from retrieval.chunking import ChunkingSettings
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.embedders.embedder import Vectors
from retrieval.errors import ConfigurationError, EmbeddingError, FilterError, IndexUnusableError
from retrieval.lexical import indexed_text
from retrieval.local_index import Hit, LocalIndex
from retrieval.types import Document

WORDS = ["car", "physician", "ocean", "fee", "fault", "erase", "自動車", "料金", "quick", "begin", "x", "y"]


def document(number: int) -> Document:
    words = np.random.default_rng(number).choice(WORDS, 1 + number % 6)
    return Document(f"https://e.org/{number:04d}", " ".join(words), lang="en" if number % 3 else "ja")


DOCUMENTS = [document(number) for number in range(60)]


@pytest.fixture(scope="module")
def embedder(tiny_embedding_model: Path) -> Embedder:
    return open_embedder(EmbedderConfig(str(tiny_embedding_model), threads=1))


@pytest.fixture(scope="module")
def index(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    path = tmp_path_factory.mktemp("vectors") / "index"
    LocalIndex.build(path, DOCUMENTS, embedder=embedder)
    return LocalIndex.open(path)


class Noting:
    """The embedder of a test, which notes what it is asked, and may fail or have another fingerprint."""

    def __init__(self, embedder: Embedder, fingerprint: str = "") -> None:
        self._embedder = embedder
        self.fingerprint = fingerprint or embedder.fingerprint
        self.name, self.dimension, self.truncated = "noting", embedder.dimension, 0
        self.asked: list[str] = []
        self.fails_at = ""

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self.fails_at and any(self.fails_at in text for text in texts):
            raise EmbeddingError("out of reach")
        self.asked += texts
        return self._embedder.embed_passages(texts)

    def embed_query(self, text: str) -> Vectors:
        return self._embedder.embed_query(text)


def exact(index: LocalIndex, embedder: Embedder, query: str) -> list[float]:
    """The cosines of all passages, compared one by one, best first."""
    passages = [passage for uri in sorted(index.doc_uris()) for passage in index.passages_of(uri)]
    cosines = embedder.embed_passages([indexed_text(one) for one in passages]) @ embedder.embed_query(query)
    return sorted(cosines.tolist(), reverse=True)


def dense(
    index: LocalIndex, embedder: Embedder, query: str, n: int = 100, **filters: object
) -> list[tuple[str, float]]:
    hits = index.dense_hits(embedder.embed_query(query), n, filters)  # type: ignore[arg-type]
    return [(passage.doc_uri, passage.score) for passage in index.passages(hits)]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty vectors are as many as would otherwise be found by their signs."""
    monkeypatch.setattr(vectors, "EXACT_MOST", 20)


def test_what_means_the_same_is_found_in_both_languages(index: LocalIndex, embedder: Embedder) -> None:
    found = index.passages(index.dense_hits(embedder.embed_query("automobile"), 5))
    assert all("car" in passage.text or "自動車" in passage.text for passage in found)
    assert index.lexical_hits("automobile", 5) == []


@pytest.mark.parametrize("query", ["car", "sea fee", "x", "physician begin", "料金"])
def test_hits_are_the_nearest_of_all_in_a_stable_order(
    index: LocalIndex, embedder: Embedder, query: str
) -> None:
    expected = exact(index, embedder, query)
    for n in (1, 2, 7, 59, 60, 61):
        found = dense(index, embedder, query, n)
        assert [score for _, score in found] == pytest.approx(expected[:n], abs=1e-3)
        assert found == sorted(found, key=lambda one: (-one[1], one[0]))
        assert len(found) == min(n, len(index))


@settings(max_examples=20)
@given(st.sampled_from(["car", "sea fee", "x"]), st.integers(1, 70))
def test_filters_leave_what_a_search_without_them_would_leave(
    index: LocalIndex, embedder: Embedder, query: str, n: int
) -> None:
    japanese = {document.doc_uri for document in DOCUMENTS if document.lang == "ja"}
    everything = dense(index, embedder, query)
    assert (
        dense(index, embedder, query, n, lang="ja") == [one for one in everything if one[0] in japanese][:n]
    )
    assert dense(index, embedder, query, n, lang="xx") == []
    some = [DOCUMENTS[3].doc_uri, DOCUMENTS[4].doc_uri]
    assert dense(index, embedder, query, n, doc_uri=some) == [one for one in everything if one[0] in some][:n]


def test_signs_find_what_comparing_all_finds(
    many: None, index: LocalIndex, embedder: Embedder, tmp_path: Path
) -> None:
    documents = [document(number) for number in range(600)]
    LocalIndex.build(tmp_path / "i", documents, embedder=embedder)
    signed = LocalIndex.open(tmp_path / "i")
    assert (tmp_path / "i" / signed.manifest.generation / vectors.SIGNS).exists()
    assert not (index.path / index.manifest.generation / vectors.SIGNS).exists()
    for query in ("car", "sea fee", "quick begin x"):
        expected = exact(signed, embedder, query)[:10]
        assert [score for _, score in dense(signed, embedder, query, 10)] == pytest.approx(expected, abs=1e-3)
        ja = dense(signed, embedder, query, 50, lang="ja")
        assert len(ja) == 50
        assert ja == [one for one in dense(signed, embedder, query, 600) if one in ja]


def equal_vectors_have(path: Path, embedder: Embedder) -> LocalIndex:
    documents = [Document(f"https://e.org/{number:02d}", "the same car") for number in range(40)]
    LocalIndex.build(path, reversed(documents[20:]), embedder=embedder)
    LocalIndex.sync(path, reversed(documents), embedder=embedder)
    return LocalIndex.open(path)


@pytest.mark.parametrize("most", [20, 20_000])
def test_ties_are_ordered_by_identity_however_the_index_came_about(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(vectors, "EXACT_MOST", most)
    index = equal_vectors_have(tmp_path / "i", embedder)
    assert [uri[-2:] for uri, _ in dense(index, embedder, "car", 7)] == [f"{n:02d}" for n in range(7)]


def test_vectors_of_hits_are_those_of_their_passages(index: LocalIndex, embedder: Embedder) -> None:
    hits = index.dense_hits(embedder.embed_query("car"), 9) + index.lexical_hits("ocean", 5)
    expected = embedder.embed_passages([indexed_text(one) for one in index.passages(hits)])
    assert index.vectors_of(hits) == pytest.approx(expected, abs=1e-3)
    assert index.vectors_of([]).shape == (0, 32)


changes = st.lists(
    st.tuples(st.sampled_from(["put", "replace", "delete"]), st.integers(0, 29)), min_size=1, max_size=12
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(changes, min_size=1, max_size=3), st.sampled_from([5, 20_000]))
def test_an_index_that_was_brought_up_to_date_finds_what_a_new_one_finds(
    embedder: Embedder,
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[list[tuple[str, int]]],
    most: int,
) -> None:
    path = tmp_path_factory.mktemp("steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "EXACT_MOST", most)
        now = {number: document(number) for number in range(0, 30, 2)}
        LocalIndex.build(path / "old", now.values(), embedder=embedder)
        for steps in rounds:
            puts: dict[int, Document] = {}
            deletes = set()
            for what, number in steps:
                if what == "delete" and number not in puts:
                    deletes.add(number)
                    now.pop(number, None)
                elif what != "delete":
                    text = document(number).text + (" quick car" if what == "replace" else "")
                    puts[number] = now[number] = Document(f"https://e.org/{number:04d}", text, lang="en")
            LocalIndex.update(
                path / "old",
                add_or_replace=puts.values(),
                delete=[f"https://e.org/{number:04d}" for number in deletes],
                embedder=embedder,
            )
        if not now:
            return
        LocalIndex.build(path / "new", now.values(), embedder=embedder)
        old, new = LocalIndex.open(path / "old"), LocalIndex.open(path / "new")
        assert old.content_hash == new.content_hash
        for query in ("car", "sea fee"):
            assert dense(old, embedder, query) == dense(new, embedder, query)
            assert dense(old, embedder, query, 5, lang="en") == dense(new, embedder, query, 5, lang="en")
        assert {uri for uri, _ in dense(old, embedder, "car")} == {one.doc_uri for one in now.values()}


def test_sync_embeds_only_what_differs(embedder: Embedder, tmp_path: Path) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS[:20], embedder=embedder)
    noting = Noting(embedder)
    report = LocalIndex.sync(tmp_path / "i", DOCUMENTS[2:22], embedder=noting)
    assert (report.added, report.deleted, report.unchanged) == (2, 2, 18)
    assert noting.asked == [one.text for one in DOCUMENTS[20:22]]
    again = LocalIndex.sync(tmp_path / "i", DOCUMENTS[2:22], embedder=noting)
    assert again.unchanged == 20
    assert len(noting.asked) == 2


def test_another_model_or_none_makes_the_index_anew_and_a_cache_spares_the_model(
    embedder: Embedder, tiny_embedding_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "i"
    LocalIndex.build(path, DOCUMENTS)
    assert not LocalIndex.open(path).has_vectors
    assert LocalIndex.open(path).embedder_fingerprint == ""
    LocalIndex.sync(path, DOCUMENTS, embedder=embedder)
    index = LocalIndex.open(path)
    assert (index.has_vectors, index.embedder_fingerprint) == (True, embedder.fingerprint)
    assert index.embedder_name == "tiny-embedder"
    with_vectors = index.content_hash
    LocalIndex.sync(path, DOCUMENTS)
    assert not LocalIndex.open(path).has_vectors
    assert LocalIndex.open(path).content_hash != with_vectors
    other = Noting(embedder, "another")
    LocalIndex.sync(path, DOCUMENTS, embedder=other)
    assert LocalIndex.open(path).embedder_fingerprint == "another"
    assert len(other.asked) == len(DOCUMENTS)


@pytest.mark.parametrize("given", ["none", "another"])
def test_an_update_with_another_model_is_refused_with_both_names(
    embedder: Embedder, tmp_path: Path, given: str
) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS, embedder=embedder)
    other = Noting(embedder, "another") if given == "another" else None
    message = "tiny-embedder.*" + ("noting" if other else "without a model")
    with pytest.raises(IndexUnusableError, match=message):
        LocalIndex.update(tmp_path / "i", delete=[DOCUMENTS[0].doc_uri], embedder=other)
    LocalIndex.build(tmp_path / "i", DOCUMENTS)
    with pytest.raises(IndexUnusableError, match=r"without vectors.*tiny-embedder"):
        LocalIndex.update(tmp_path / "i", delete=[DOCUMENTS[0].doc_uri], embedder=embedder)


def test_an_index_without_vectors_says_so(embedder: Embedder, tmp_path: Path) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS)
    index = LocalIndex.open(tmp_path / "i")
    with pytest.raises(IndexUnusableError, match="has no vectors"):
        index.dense_hits(embedder.embed_query("car"), 5)
    with pytest.raises(IndexUnusableError, match="has no vectors"):
        index.vectors_of([Hit(0, 1.0)])


def test_what_a_search_needs_is_checked(index: LocalIndex, embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        index.dense_hits(embedder.embed_query("car"), 0)
    with pytest.raises(ValueError, match=r"have the shape \(32,\), not \(3,\)"):
        index.dense_hits(np.ones(3, np.float32), 1)
    with pytest.raises(FilterError, match="unknown operator"):
        index.dense_hits(embedder.embed_query("car"), 1, {"lang ~": "x"})


def test_a_model_that_fails_leaves_the_index_that_there_was(embedder: Embedder, tmp_path: Path) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS[:9], embedder=embedder)
    noting = Noting(embedder)
    noting.fails_at = "ocean"
    with pytest.raises(EmbeddingError):
        LocalIndex.sync(tmp_path / "i", DOCUMENTS, embedder=noting)
    index = LocalIndex.open(tmp_path / "i")
    assert len(dense(index, embedder, "car")) == 9
    assert len([entry for entry in (tmp_path / "i").iterdir() if entry.is_dir()]) == 1


def test_a_killed_writer_leaves_the_index_that_there_was(
    embedder: Embedder, tiny_embedding_model: Path, tmp_path: Path
) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS[:9], embedder=embedder)
    program = (
        "import os, signal, sys\n"
        "from retrieval import generations\n"
        "from retrieval.embedders import EmbedderConfig, open_embedder\n"
        "from retrieval.local_index import LocalIndex\n"
        "from retrieval.types import Document\n"
        "generations.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "LocalIndex.sync(sys.argv[1], [Document('u', 'car')], embedder=open_embedder(EmbedderConfig(sys.argv[2])))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "i"), str(tiny_embedding_model)], env=dict(os.environ)
    )
    index = LocalIndex.open(tmp_path / "i")
    assert len(dense(index, embedder, "car")) == 9
    LocalIndex.sync(tmp_path / "i", DOCUMENTS[:5], embedder=embedder)
    assert len(dense(LocalIndex.open(tmp_path / "i"), embedder, "car")) == 5


def test_an_open_index_goes_on_when_its_files_are_replaced(embedder: Embedder, tmp_path: Path) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS, embedder=embedder)
    index = LocalIndex.open(tmp_path / "i")
    before = dense(index, embedder, "car", 9, lang="en")
    LocalIndex.build(tmp_path / "i", DOCUMENTS[:2], embedder=embedder)
    assert dense(index, embedder, "car", 9, lang="en") == before


@pytest.mark.parametrize("file", [vectors.VECTORS, vectors.PLACES])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_vectors_are_said_and_mended_by_a_sync(
    embedder: Embedder, tmp_path: Path, file: str, damage: str
) -> None:
    LocalIndex.build(tmp_path / "i", DOCUMENTS, embedder=embedder)
    found = tmp_path / "i" / LocalIndex.open(tmp_path / "i").manifest.generation / file
    content = found.read_bytes()
    found.unlink()
    if damage != "missing":
        found.write_bytes(content[:-9] if damage == "cut" else bytes(len(content)))
    with pytest.raises(IndexUnusableError, match="Rebuild it"):
        LocalIndex.open(tmp_path / "i")
    LocalIndex.build(tmp_path / "i", DOCUMENTS, embedder=embedder)
    assert len(dense(LocalIndex.open(tmp_path / "i"), embedder, "car")) == len(DOCUMENTS)


def test_without_the_extra_words_are_searched_and_vectors_name_it(
    index: LocalIndex, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    again = LocalIndex.open(index.path)
    assert again.search("car", 3) == index.search("car", 3)
    with pytest.raises(ConfigurationError, match=r"'faiss' is not installed.*pip install 'citeqa\[dense\]'"):
        again.dense_hits(embedder.embed_query("car"), 1)
    with pytest.raises(ConfigurationError, match=r"pip install 'citeqa\[dense\]'"):
        LocalIndex.sync(index.path, DOCUMENTS[:3], embedder=embedder)
    assert len(LocalIndex.open(index.path)) == len(index)


def test_passages_of_long_documents_have_a_vector_each(embedder: Embedder, tmp_path: Path) -> None:
    text = "\n\n".join(f"## Part {number}\n\n" + "A car. " * 60 for number in range(30))
    chunking = ChunkingSettings(max_tokens=20, overlap_tokens=0)
    LocalIndex.build(tmp_path / "i", [Document("u", text), *DOCUMENTS], embedder=embedder, chunking=chunking)
    index = LocalIndex.open(tmp_path / "i")
    assert len(index) > 200
    assert len(index.dense_hits(embedder.embed_query("car"), 10_000)) == len(index)
    hits = index.lexical_hits("car", 1000)
    assert len(hits) > 100
    assert index.vectors_of(hits).shape == (len(hits), 32)

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer

from retrieval.analysis import analyze
from retrieval.chunking import ChunkingSettings, chunk
from retrieval.corpus import read_documents, read_sources
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.errors import FilterError, IndexUnusableError
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever, RankingSettings
from retrieval.postgres import index as postgres_index
from retrieval.postgres import schema
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.retriever import PostgresRetriever
from retrieval.postgres.writing import write_corpus
from retrieval.types import CorpusRetriever, Document, Filters, Passage

SAMPLE = Path("datasets/agent_docs")

DOCUMENTS = [
    Document(
        "https://e.org/tracing", "# Tracing\n\nA span records inputs. Use mlflow.start_span.", "Tracing", "en"
    ),
    Document("https://e.org/serving", "# Serving\n\nThe endpoint scales to zero when idle.", "Serving", "en"),
    Document(
        "https://e.org/optimizers",
        "# 最適化\n\nオプティマイザーは指示文を改善します。",
        "最適化",
        "ja",
        {"year": 2024},
    ),
    Document("https://e.org/empty", "  \n", "Empty", "en"),
]

Make = Callable[..., PostgresIndex]


@pytest.fixture(scope="module")
def sample(postgres_server: PostgresServer) -> Iterator[PostgresIndex]:
    """The sample corpus in a table of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", postgres_server.password)
        database = Database(Address(postgres_server.make_database()))
        write_corpus(database, "docs.passages", read_sources(SAMPLE / "docs"), chunking=ChunkingSettings())
        yield PostgresIndex.open(database, "docs.passages")
        database.close()


@pytest.fixture(scope="module")
def local_sample(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    path = tmp_path_factory.mktemp("sample") / "index"
    LocalIndex.build(path, read_documents(SAMPLE / "docs"))
    return LocalIndex.open(path)


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    lines = (SAMPLE / "ground_truth.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def embedder(tiny_embedding_model: Path) -> Embedder:
    return open_embedder(EmbedderConfig(str(tiny_embedding_model)))


def gold_of(context: Any) -> set[str]:
    if isinstance(context, list):
        return {uri for one in context for uri in gold_of(one)}
    return {context["doc_uri"]}


def uris(passages: list[Passage]) -> list[str]:
    return [passage.doc_uri.rpartition("/")[2] for passage in passages]


def test_the_best_passage_comes_first_in_english_and_japanese(index: Make) -> None:
    found = index(DOCUMENTS)

    asked = {
        "how do I record a span": "tracing",
        "MLFLOW.START_SPAN": "tracing",
        "scaling endpoints": "serving",
        "オプティマイザー": "optimizers",
        "指示文の改善": "optimizers",
        "ｓｐａｎ": "tracing",
    }
    assert {query: uris(found.search(query, 3))[0] for query in asked} == asked


def test_a_retriever_over_postgres_is_a_retriever_over_a_corpus(index: Make) -> None:
    assert isinstance(PostgresRetriever(index(DOCUMENTS)), CorpusRetriever)


def test_a_passage_comes_back_as_it_was_chunked(index: Make) -> None:
    long = Document(
        "https://e.org/long",
        "# One\n\n## Two\n\nWords of ours. 言葉。\n",
        "Title",
        "en",
        {"v": 1.5, "live": True},
    )

    (found,) = index([long]).passages_of("https://e.org/long")

    assert found == chunk(long, ChunkingSettings())[0]


def test_what_no_postgres_text_holds_is_replaced_and_offsets_stay(index: Make) -> None:
    (found,) = index([Document("https://e.org/a", "before\x00after \ud83d end")]).search("after", 1)

    assert found.text == "before\ufffdafter \ufffd end"
    assert (found.start, found.end) == (0, len(found.text))


def test_what_is_not_there_is_not_found(index: Make) -> None:
    found = index(DOCUMENTS)

    assert found.search("zeppelin", 5) == []
    assert found.search("", 5) == []
    assert found.search("?!", 5) == []
    assert found.passages_of("https://e.org/nowhere") == []


@settings(max_examples=60)
@given(query=st.text(max_size=40))
def test_any_text_is_a_query(sample: PostgresIndex, query: str) -> None:
    assert len(sample.search(query, 3)) <= 3


@pytest.mark.parametrize("query", ["a' | 'b", "a & !b", "\\", "';DROP TABLE passages;--", "%s", "{1:2}/3"])
def test_nothing_in_a_query_is_an_operator(index: Make, query: str) -> None:
    found = index(DOCUMENTS)

    found.search(f"span {query}", 3)

    assert uris(found.search("span", 1)) == ["tracing"]


def test_it_finds_the_documents_that_the_embedded_index_finds(
    sample: PostgresIndex, local_sample: LocalIndex, questions: list[dict[str, Any]]
) -> None:
    recalls = {"here": 0.0, "there": 0.0}
    same_first = 0
    asked = questions[::3]
    for question in asked:
        gold = gold_of(question["expectations"].get("expected_retrieved_context", []))
        here = sample.search(question["inputs"]["question"], 5)
        there = local_sample.search(question["inputs"]["question"], 5)
        same_first += [p.chunk_id for p in here[:1]] == [p.chunk_id for p in there[:1]]
        for name, passages in (("here", here), ("there", there)):
            recalls[name] += len(gold & {p.doc_uri for p in passages}) / max(len(gold), 1)

    assert same_first >= 0.95 * len(asked)
    assert abs(recalls["here"] - recalls["there"]) <= 0.01 * len(asked)


def test_looking_for_rare_terms_first_changes_nothing(
    sample: PostgresIndex, questions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [question["inputs"]["question"] for question in questions[::9]]
    at_once = [sample.search(question, 5) for question in asked]
    monkeypatch.setattr(postgres_index, "_ALWAYS_ALL", 0)
    monkeypatch.setattr(postgres_index, "_PER_HIT", 1)

    assert [sample.search(question, 5) for question in asked] == at_once


def test_a_smaller_k_gives_the_beginning_of_a_larger_one(
    sample: PostgresIndex, questions: list[dict[str, Any]]
) -> None:
    for question in questions[::20]:
        longest = sample.search(question["inputs"]["question"], 20)
        assert all(sample.search(question["inputs"]["question"], k) == longest[:k] for k in (1, 3, 10))


def test_terms_weigh_as_in_the_embedded_index(sample: PostgresIndex, local_sample: LocalIndex) -> None:
    terms = analyze("What is the メモリ of an agent's mlflow.start_span?")

    assert sample.idf(terms) == pytest.approx(local_sample.idf(terms), rel=1e-6)


def test_it_tells_what_it_holds(sample: PostgresIndex, local_sample: LocalIndex) -> None:
    assert sample.facts() == local_sample.facts()
    assert sample.doc_uris() == local_sample.doc_uris()
    assert len(sample) == len(local_sample)


VALUES = st.one_of(
    st.sampled_from(["a", "b", "1", ""]), st.integers(-2, 2), st.sampled_from([0.5, 1.0]), st.booleans()
)
FIELDS = st.sampled_from(["kind", "year", "lang", "title", "doc_uri"])
FILTERS = st.dictionaries(
    st.one_of(FIELDS, st.builds("{} NOT".format, FIELDS)),
    st.one_of(VALUES, st.lists(VALUES, min_size=1, max_size=3)),
)
COMPARISONS = st.dictionaries(
    st.builds("{} {}".format, FIELDS, st.sampled_from([">", ">=", "<", "<="])),
    st.one_of(st.integers(-2, 2), st.floats(-2, 2), st.sampled_from([float("inf"), float("-inf")])),
    max_size=1,
)
FILTERED = [
    Document("a", "word", "a", "", {"kind": "a", "year": 1}),
    Document("b", "word", "", "a", {"kind": 1, "year": 0.5, "title": "b"}),
    Document("1", "word", "1", "b", {"kind": True, "year": -2, "lang": "a"}),
    Document("d", "word", "", "", {"kind": "1", "title": 1, "lang": True}),
    Document("e", "word", "b", "en", {"year": "1"}),
]


@pytest.fixture(scope="module")
def filtered(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from given_sources import source_of

    path = tmp_path_factory.mktemp("filtered") / "index"
    LocalIndex.build(path, FILTERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", postgres_server.password)
        database = Database(Address(postgres_server.make_database()))
        write_corpus(database, "few", [source_of(one) for one in FILTERED], chunking=ChunkingSettings())
        yield PostgresIndex.open(database, "few"), LocalIndex.open(path)
        database.close()


@settings(max_examples=80)
@given(filters=FILTERS, comparisons=COMPARISONS)
def test_filters_hold_for_the_documents_for_which_they_hold_in_the_embedded_index(
    filtered: tuple[PostgresIndex, LocalIndex], filters: Filters, comparisons: Filters
) -> None:
    here, there = filtered
    conditions = {**filters, **comparisons}

    assert sorted(uris(here.search("word", 9, conditions))) == sorted(
        uris(there.search("word", 9, conditions))
    )


def test_a_filter_that_is_none_is_refused(index: Make) -> None:
    with pytest.raises(FilterError, match="unknown operator"):
        index(DOCUMENTS).search("span", 3, {"year ~": 1})


def test_many_threads_search_at_once(sample: PostgresIndex, questions: list[dict[str, Any]]) -> None:
    retriever = PostgresRetriever(sample)
    asked = [question["inputs"]["question"] for question in questions[:32]]
    alone = [retriever.search(question, 5) for question in asked]

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(lambda question: retriever.search(question, 5), asked)) == alone


def test_pickled_it_opens_again(index: Make) -> None:
    found = index(DOCUMENTS)

    for searched in (found, PostgresRetriever(found)):
        assert uris(pickle.loads(pickle.dumps(searched)).search("span", 1)) == ["tracing"]


def documents_of(count: int) -> list[Document]:
    words = ["car", "doctor", "fast", "price", "error", "delete", "begin", "sea"]
    return [
        Document(f"d{n}", f"The {words[n % 8]} and the {words[n * 7 % 5]} of number {n}.", "", "en", {"n": n})
        for n in range(count)
    ]


def test_the_nearest_vectors_are_found_exactly_with_and_without_filters(
    index: Make, embedder: Embedder
) -> None:
    documents = documents_of(60)
    found = index(documents, embedder=embedder)
    vector = embedder.embed_query("automobile")
    texts = [
        "\n".join(filter(None, (p.title, p.text))) for d in documents for p in chunk(d, ChunkingSettings())
    ]
    cosines = embedder.embed_passages(texts) @ vector

    hits = found.dense_hits(vector, 10)
    few = found.dense_hits(vector, 10, {"n <": 7})

    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True)[:10], abs=1e-5)
    assert [hit.score for hit in few] == pytest.approx(sorted(cosines[:7], reverse=True), abs=1e-5)


def test_of_many_vectors_an_index_finds_nearly_all_of_the_nearest(
    index: Make, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    documents = documents_of(600)
    vector = embedder.embed_query("automobile number 17")
    exact = index(documents, embedder=embedder).dense_hits(vector, 50)
    for module in (schema, postgres_index):
        monkeypatch.setattr(module, "MOST_EXACT", 100)

    found = index(documents, embedder=embedder, rebuild=True)
    near = found.dense_hits(vector, 50)
    filtered = found.dense_hits(vector, 5, {"n <": 50})

    indexes = database.read_rows("SELECT indexdef FROM pg_indexes WHERE tablename = 'passages'")
    assert any("hnsw" in row[0] for row in indexes)
    assert np.mean([hit.score for hit in near]) >= np.mean([hit.score for hit in exact]) - 0.01
    assert [hit.score for hit in near] == sorted((hit.score for hit in near), reverse=True)
    # So few are left that all of them are compared.
    assert {passage.doc_uri for passage in found.passages(filtered)} <= {f"d{n}" for n in range(50)}


@pytest.mark.parametrize(
    "ranking",
    [
        RankingSettings(),
        RankingSettings(mode="dense", letters_weight=0),
        RankingSettings(fusion="rrf", max_per_document=1),
        RankingSettings(diversity=0.5, expand="neighbours"),
    ],
)
def test_every_way_of_ranking_works_as_over_the_embedded_index(
    index: Make, embedder: Embedder, tmp_path: Path, ranking: RankingSettings
) -> None:
    documents = documents_of(40)
    LocalIndex.build(tmp_path / "index", documents, embedder=embedder)
    here = PostgresRetriever(index(documents, embedder=embedder), ranking, embedder=embedder)
    there = LocalRetriever(LocalIndex.open(tmp_path / "index"), ranking, embedder=embedder)

    for query in ("automobile cost", "physician number 9", "エラー"):
        ours, theirs = here.search(query, 8), there.search(query, 8)
        # tantivy knows lengths by a byte: close scores may change places.
        assert len({p.chunk_id for p in ours} & {p.chunk_id for p in theirs}) >= 6
        assert [p.score for p in ours] == sorted((p.score for p in ours), reverse=True)
        assert [one.passage for one in here.explain(query, 8)] == ours


def test_vectors_of_another_model_are_refused_before_and_after_the_corpus_was_made_anew(
    index: Make,
    embedder: Embedder,
    make_embedding_model: Callable[..., Path],
    tmp_path: Path,
    write: Callable[..., Any],
) -> None:
    other = open_embedder(EmbedderConfig(str(make_embedding_model(tmp_path / "other", seed=1))))
    found = index(documents_of(5), embedder=embedder)
    with pytest.raises(IndexUnusableError, match="another embedding model"):
        PostgresRetriever(found, embedder=other)

    retriever = PostgresRetriever(found, embedder=embedder)
    write(documents_of(5), embedder=other)
    with pytest.raises(IndexUnusableError, match="another embedding model"):
        retriever.search("automobile", 3)


class Counting:
    """An embedding model that counts the questions that it is asked."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self.questions: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_query(self, text: str) -> Any:
        self.questions.append(text)
        return self._model.embed_query(text)


def test_a_question_is_embedded_once_whatever_the_database_does(
    index: Make, embedder: Embedder, postgres_server: PostgresServer
) -> None:
    model: Any = Counting(embedder)
    retriever = PostgresRetriever(index(documents_of(5), embedder=embedder), embedder=model)
    postgres_server.break_connections()

    assert retriever.search("automobile", 3)
    assert model.questions == ["automobile"]


def test_without_vectors_it_says_how_to_get_some(index: Make, embedder: Embedder) -> None:
    with pytest.raises(IndexUnusableError, match="has no vectors"):
        PostgresRetriever(index(DOCUMENTS), RankingSettings(mode="dense"), embedder=embedder)

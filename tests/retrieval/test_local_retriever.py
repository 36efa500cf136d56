"""The retriever over an embedded index: its options one by one, and that a smaller k begins a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunking import ChunkingSettings
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.errors import IndexUnusableError
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever, RankingSettings
from retrieval.ranking.feedback import Feedback
from retrieval.types import Document, Passage

TEXTS = {
    "water": "# Water\n\nWater boils at one hundred degrees. Ice melts at zero degrees.\n\n"
    "## Mountains\n\nOn mountains water boils earlier. The air there is thin. Everest is such a place. "
    "Climbers cook with pressure.\n\n## Sea\n\nSea water boils later. Salt is why. The difference is small.",
    "iron": "# Iron\n\nIron melts at many degrees. Steel is iron with carbon. Steel boils as well.\n\n"
    "## Rust\n\nRust is iron with oxygen and water. Paint stops water. Salt water is worst.",
    "tea": "# Tea\n\nTea needs water that boils. Green tea needs water below the boiling point of water.",
    "fuji": "# 富士山\n\n富士山の高さは3776メートルです。山頂では水が約88度で沸騰します。",
}
QUERIES = [
    "when does water boil",
    "iron and steel",
    "salt water",
    "水が沸騰する温度",
    "boiling tea on mountains",
]


class CountingReranker:
    """Prefers short texts, whatever is asked."""

    fingerprint = "short"

    def __init__(self) -> None:
        self.read: list[int] = []

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        self.read.append(len(texts))
        return [1 / (1 + len(text)) for text in texts]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    path = tmp_path_factory.mktemp("index") / "index"
    documents = [Document(f"https://e.org/{name}", text, name) for name, text in TEXTS.items()]
    LocalIndex.build(path, documents, chunking=ChunkingSettings(max_tokens=20, overlap_tokens=0))
    return LocalIndex.open(path)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"letters_weight": 0.0},
    "letters": {"letters_weight": 0.4},
    "feedback": {"feedback": Feedback(passages=2, terms=3, weight=0.4)},
    "diversity": {"diversity": 0.5, "candidates": 6},
    "cap": {"max_per_document": 1},
    "neighbours": {"expand": "neighbours"},
    "section": {"expand": "section", "expand_tokens": 60},
    "rerank": {"rerank": 3},
    "all": {
        "feedback": Feedback(passages=2),
        "diversity": 0.3,
        "candidates": 5,
        "max_per_document": 2,
        "expand": "section",
        "rerank": 4,
        "letters_weight": 0.4,
    },
}


PLAIN = OPTIONS["plain"]


def retriever(index: LocalIndex, name: str) -> LocalRetriever:
    reranker = CountingReranker() if name in ("rerank", "all") else None
    return LocalRetriever(index, RankingSettings(**{**PLAIN, **OPTIONS[name]}), reranker=reranker)


def ids(passages: Sequence[Passage]) -> list[str]:
    return [passage.chunk_id for passage in passages]


@pytest.mark.parametrize("name", OPTIONS)
@given(
    queries=st.lists(st.sampled_from(QUERIES), min_size=1, max_size=2, unique=True),
    k=st.integers(1, 8),
    deeper=st.integers(1, 12),
)
def test_a_smaller_k_is_the_beginning_of_a_larger_one(
    index: LocalIndex, name: str, queries: list[str], k: int, deeper: int
) -> None:
    one = retriever(index, name)
    assert one.search_many(queries, k) == one.search_many(queries, k + deeper)[:k]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("query", QUERIES)
def test_nothing_comes_twice_scores_never_rise_and_each_stands_in_its_document(
    index: LocalIndex, name: str, query: str
) -> None:
    found = retriever(index, name).search(query, 12)
    assert found
    assert len(set(ids(found))) == len(found)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    for passage in found:
        text = TEXTS[passage.doc_uri.rpartition("/")[2]]
        assert text[passage.start : passage.end].split() == passage.text.split()
        assert passage.end - passage.start == len(passage.text)


@pytest.mark.parametrize("name", OPTIONS)
def test_filters_hold_with_every_option(index: LocalIndex, name: str) -> None:
    found = retriever(index, name).search("water boils", 10, {"doc_uri": "https://e.org/iron"})
    assert {passage.doc_uri for passage in found} == {"https://e.org/iron"}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_query_without_terms_finds_nothing(index: LocalIndex, name: str) -> None:
    assert retriever(index, name).search("?!", 5) == []


def test_without_options_it_finds_what_the_index_finds(index: LocalIndex) -> None:
    for query in QUERIES:
        assert retriever(index, "plain").search(query, 7) == index.search(query, 7)


def test_letters_put_likeness_above_equal_words_and_leave_the_scale_as_it_was(index: LocalIndex) -> None:
    plain = retriever(index, "plain").search("mountain boiling", 5)
    found = retriever(index, "letters").search("mountain boiling", 5)
    assert set(ids(found)) == set(ids(plain))
    assert found[0].score <= plain[0].score
    assert found[-1].score >= plain[-1].score


def test_feedback_finds_what_shares_no_word_with_the_query(index: LocalIndex) -> None:
    query = "carbon"
    plain = retriever(index, "plain").search(query, 10)
    told = LocalRetriever(index, RankingSettings(letters_weight=0, feedback=Feedback(2, 8, 0.5))).search(
        query, 10
    )
    assert ids(told)[0] == ids(plain)[0]
    assert len(told) > len(plain)


def test_each_document_comes_as_often_as_it_may_and_others_take_the_places(index: LocalIndex) -> None:
    found = retriever(index, "cap").search("water boils", 3)
    assert len({passage.doc_uri for passage in found}) == 3


def test_a_reranker_reads_as_many_as_it_may_whatever_k_is(index: LocalIndex) -> None:
    one = retriever(index, "rerank")
    assert len(one.search("water boils", 1)) == 1
    found = one.search("water boils", 7)
    assert one.reranker.read == [3, 3]  # type: ignore[union-attr]
    assert found[2].score > found[3].score


def test_a_section_is_read_whole_and_its_passages_do_not_come_again(index: LocalIndex) -> None:
    found = LocalRetriever(index, RankingSettings(expand="section")).search(
        "water boils earlier mountains", 3
    )
    best = found[0]
    assert best.headings == ("Water", "Mountains")
    assert best.text.startswith("## Mountains") or "On mountains water boils earlier." in best.text
    assert "Climbers cook with pressure." in best.text
    assert sum("Climbers" in passage.text for passage in found) == 1


def test_a_section_is_no_longer_than_it_may_be_but_a_passage_is_never_cut(index: LocalIndex) -> None:
    settings = RankingSettings(expand="section", expand_tokens=16)
    plain = {p.chunk_id: p for p in LocalRetriever(index).search("water boils", 10)}
    for passage in LocalRetriever(index, settings).search("water boils", 10):
        assert len(passage.text) <= max(4 * 16, len(plain[passage.chunk_id].text))


def test_several_queries_find_what_either_finds(index: LocalIndex) -> None:
    one = LocalRetriever(index)
    first, second = "steel carbon", "富士山の高さ"
    both = one.search_many([first, second], 2)
    assert {p.doc_uri for p in both} == {"https://e.org/iron", "https://e.org/fuji"}


def test_an_explanation_tells_ranks_scores_and_matched_terms(index: LocalIndex) -> None:
    first = retriever(index, "rerank").explain("salt water", 2)[0]
    assert first.lexical is not None
    assert first.reranked is not None
    assert first.dense is None
    assert first.reranked.rank == 1
    assert set(first.terms) <= {"salt", "water"}
    assert list(first.terms.values()) == sorted(first.terms.values(), reverse=True)


def test_dense_search_of_an_index_without_vectors_says_what_to_do(index: LocalIndex) -> None:
    with pytest.raises(IndexUnusableError, match=r"no vectors.*citeqa index"):
        LocalRetriever(index, RankingSettings(mode="dense"))


def test_what_changes_a_search_changes_its_identity_and_nothing_else_does(index: LocalIndex) -> None:
    plain = LocalRetriever(index).identity
    without_effect = [{"lexical_weight": 0.9}, {"rerank": 7}, {"expand_tokens": 99}, {"mode": "lexical"}]
    for settings in without_effect:
        assert LocalRetriever(index, RankingSettings(**settings)).identity == plain  # type: ignore[arg-type]
    for name in OPTIONS:
        if name != "plain":
            assert retriever(index, name).identity != plain, name


@pytest.mark.parametrize(
    "wrong",
    [{"lexical_weight": 1.5}, {"diversity": -0.1}, {"candidates": 0}, {"rerank": 0}, {"max_per_document": 0}],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RankingSettings(**wrong)


def test_a_search_for_no_passage_or_for_no_query_is_a_mistake(index: LocalIndex) -> None:
    with pytest.raises(ValueError, match="k must be"):
        LocalRetriever(index).search("water", 0)
    with pytest.raises(ValueError, match="no query"):
        LocalRetriever(index).search_many([], 3)


def test_copies_of_a_retriever_are_itself(index: LocalIndex) -> None:
    from copy import deepcopy

    one = LocalRetriever(index)
    assert deepcopy(one) is one
    assert replace(one.settings) == one.settings


def test_the_path_of_the_index_is_in_how_it_shows_itself(index: LocalIndex, tmp_path: Path) -> None:
    assert str(index.path) in repr(LocalRetriever(index))


@pytest.fixture(scope="module")
def embedder(tiny_embedding_model: Path) -> Embedder:
    return open_embedder(EmbedderConfig(str(tiny_embedding_model)))


@pytest.fixture(scope="module")
def with_vectors(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> LocalIndex:
    path = tmp_path_factory.mktemp("vectors") / "index"
    documents = [Document(f"https://e.org/{name}", text, name) for name, text in TEXTS.items()]
    documents.append(Document("https://e.org/car", "The automobile is fast.", "car"))
    chunking = ChunkingSettings(max_tokens=20, overlap_tokens=0)
    LocalIndex.build(path, documents, chunking=chunking, embedder=embedder)
    return LocalIndex.open(path)


VECTOR_OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "hybrid": {"mode": "hybrid"},
    "ranks": {"mode": "hybrid", "fusion": "rrf"},
    "in blocks": {"mode": "hybrid", "candidates": 3},
    "all": {**OPTIONS["all"], "mode": "hybrid"},
}


@pytest.mark.parametrize("name", VECTOR_OPTIONS)
@pytest.mark.parametrize("query", QUERIES)
def test_with_vectors_a_smaller_k_is_the_beginning_of_a_larger_one(
    with_vectors: LocalIndex, embedder: Embedder, name: str, query: str
) -> None:
    one = LocalRetriever(with_vectors, RankingSettings(**VECTOR_OPTIONS[name]), embedder=embedder)
    longest = one.search(query, 12)
    assert len(set(ids(longest))) == len(longest)
    assert [p.score for p in longest] == sorted((p.score for p in longest), reverse=True)
    assert all(one.search(query, k) == longest[:k] for k in (1, 2, 4, 7))


@pytest.mark.parametrize("name", VECTOR_OPTIONS)
def test_with_vectors_too_a_query_without_terms_finds_nothing(
    with_vectors: LocalIndex, embedder: Embedder, name: str
) -> None:
    one = LocalRetriever(with_vectors, RankingSettings(**VECTOR_OPTIONS[name]), embedder=embedder)
    assert one.search("?!", 5) == []


def test_hybrid_is_the_default_with_vectors_and_finds_what_shares_no_word(
    with_vectors: LocalIndex, embedder: Embedder
) -> None:
    one = LocalRetriever(with_vectors, embedder=embedder)
    assert one.mode == "hybrid"
    first = one.explain("自動車", 1)[0]
    assert first.passage.doc_uri == "https://e.org/car"
    assert first.lexical is None
    assert first.dense is not None
    assert first.dense.rank == 1
    assert one.identity["embedder"] == embedder.fingerprint
    assert one.identity != LocalRetriever(with_vectors).identity


def test_an_index_is_not_searched_by_another_model_than_its_own(with_vectors: LocalIndex) -> None:
    class Other:
        fingerprint = "other"

    with pytest.raises(IndexUnusableError, match=r"another embedding model.*citeqa index"):
        LocalRetriever(with_vectors, embedder=Other())  # type: ignore[arg-type]
    with pytest.raises(IndexUnusableError, match=r"no embedding model is configured"):
        LocalRetriever(with_vectors, RankingSettings(mode="dense"))

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunking import ChunkingSettings, chunk
from retrieval.errors import RetrievalError
from retrieval.local_index import LocalIndex
from retrieval.types import Document, Passage, Retriever

DOCUMENTS = [
    Document(
        "https://e.org/tracing",
        "# Tracing\n\nA span records inputs. Use mlflow.start_span for one.",
        "Tracing",
        "en",
    ),
    Document(
        "https://e.org/serving", "# Serving\n\nThe endpoint scales to zero when nobody asks.", "Serving", "en"
    ),
    Document(
        "https://e.org/optimizers",
        "# 最適化\n\nオプティマイザーは指示文を改善します。",
        "最適化",
        "ja",
        {"year": 2024},
    ),
    Document("https://e.org/empty", "  \n", "Empty", "en"),
    Document(
        "https://e.org/long",
        "\n\n".join(f"## Part {n}\n\n{'Filler words stand here. ' * 30}" for n in range(4)),
    ),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    path = tmp_path_factory.mktemp("search") / "index"
    LocalIndex.build(path, DOCUMENTS)
    return LocalIndex.open(path)


def uris(passages: list[Passage]) -> list[str]:
    return [passage.doc_uri.rpartition("/")[2] for passage in passages]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("how do I record a span", "tracing"),
        ("MLFLOW.START_SPAN", "tracing"),
        ("scaling endpoints", "serving"),
        ("オプティマイザー", "optimizers"),
        ("指示文の改善", "optimizers"),
        ("ｓｐａｎ", "tracing"),
        ("which document is about serving?", "serving"),
    ],
)
def test_the_best_passage_comes_first(index: LocalIndex, query: str, first: str) -> None:
    assert uris(index.search(query, 3))[0] == first


def test_a_local_index_is_a_retriever(index: LocalIndex) -> None:
    assert isinstance(index, Retriever)


def test_a_title_counts_where_the_text_lacks_the_word(tmp_path: Path) -> None:
    LocalIndex.build(
        tmp_path / "i", [Document("a", "Text.", "Observability"), Document("b", "Text.", "Other")]
    )
    assert uris(LocalIndex.open(tmp_path / "i").search("observability", 5)) == ["a"]


def test_a_passage_comes_back_as_it_was_chunked(index: LocalIndex) -> None:
    (found,) = index.search("オプティマイザー", 1)
    (chunked,) = chunk(DOCUMENTS[2], index.manifest.chunking)
    assert found.score > 0
    assert Passage(**{**{name: getattr(found, name) for name in Passage.__slots__}, "score": 0.0}) == chunked


def test_the_passages_of_a_document_come_in_its_order(index: LocalIndex) -> None:
    assert index.passages_of("https://e.org/long") == chunk(DOCUMENTS[4], index.manifest.chunking)
    assert len(index.passages_of("https://e.org/long")) > 3
    assert index.passages_of("https://e.org/unknown") == index.passages_of("https://e.org/empty") == []


def test_all_documents_are_known_also_those_without_text(index: LocalIndex) -> None:
    assert index.doc_uris() == {document.doc_uri for document in DOCUMENTS}
    assert index.has_document("https://e.org/tracing")
    assert not index.has_document("https://e.org/trac")


def test_k_limits_from_above_only(index: LocalIndex) -> None:
    assert len(index.search("filler", 2)) == 2
    assert len(index.search("filler", 10**12)) == len(index.passages_of("https://e.org/long"))


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(index: LocalIndex, k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        index.search("span", k)


@pytest.mark.parametrize("query", ["", "  \n", "?!", "😀", "zebra quagga", "\0", "の"])
def test_nothing_in_common_finds_nothing(index: LocalIndex, query: str) -> None:
    assert index.search(query, 5) == []


@pytest.mark.parametrize(
    "query",
    [
        'span AND (NOT "open',
        "title:span^3 +a -b ~2 [x TO y] {",
        "span:* OR *:*",
        "span\0span 😀 \ud800 \u202e",
        "it's a <b>span</b>; DROP TABLE spans; --",
        "\\ \" ' ` /span/ span* sp?n",
    ],
)
def test_operators_quotes_and_odd_characters_are_only_text(index: LocalIndex, query: str) -> None:
    assert uris(index.search(query, 1)) == ["tracing"]


def test_a_query_of_100_kilobytes_is_answered_at_once_and_by_its_rare_terms(index: LocalIndex) -> None:
    query = " ".join(f"word{number}" for number in range(12_000)) + " endpoint scales"
    started = time.process_time()
    assert uris(index.search(query, 1)) == ["serving"]
    assert index.search("日本" * 50_000, 1) == []
    assert time.process_time() - started < 2


def test_a_term_that_is_asked_twice_weighs_twice(index: LocalIndex) -> None:
    (once,) = index.search("endpoint", 1)
    (twice,) = index.search("endpoint endpoint", 1)
    assert twice.score == pytest.approx(2 * once.score, rel=1e-3)


def test_ties_are_ordered_by_identity_however_the_index_came_about(tmp_path: Path) -> None:
    documents = [Document(f"https://e.org/{number:02d}", "the same text") for number in range(40)]
    LocalIndex.build(tmp_path / "one", documents)
    LocalIndex.build(tmp_path / "two", reversed(documents[20:]))
    LocalIndex.sync(tmp_path / "two", reversed(documents))
    for path in (tmp_path / "one", tmp_path / "two"):
        found = LocalIndex.open(path).search("same text", 7)
        assert uris(found) == [f"{number:02d}" for number in range(7)]
        assert len({passage.score for passage in found}) == 1


def test_the_weight_of_a_term_grows_with_its_rarity_and_is_nought_for_function_words(
    index: LocalIndex,
) -> None:
    rare, common, unknown, function = index.idf(["span", "filler", "zebra", "the"])
    assert unknown > rare > common > function == 0.0
    assert index.idf(["the"]) > [0.0]
    assert index.idf([]) == []


@given(
    st.sampled_from(["span", "filler words", "the", "zebra", "オプティマイザー endpoint"]), st.integers(1, 9)
)
def test_hits_are_what_a_search_finds(index: LocalIndex, query: str, n: int) -> None:
    for filters in ({}, {"lang": "en"}):
        hits = index.lexical_hits(query, n, filters)
        assert index.passages(hits) == index.search(query, n, filters)
        assert len({hit.address for hit in hits}) == len(hits)


def test_hits_of_weighted_terms_are_those_of_a_query_that_repeats_them(index: LocalIndex) -> None:
    repeated = index.lexical_hits("span span span endpoint オプ", 5)
    weighted = index.lexical_hits_of({"span": 3.0, "endpoint": 1.0, "オプ": 1, "filler": 0.0}, 5)
    assert [hit.address for hit in weighted] == [hit.address for hit in repeated]
    assert [hit.score for hit in weighted] == pytest.approx([hit.score for hit in repeated], rel=1e-3)
    assert index.lexical_hits_of({}, 5) == index.lexical_hits_of({"span": 0.0}, 5) == []
    assert len(index.lexical_hits_of({"span": 1.0}, 5, {"lang": "ja"})) == 0


def test_an_index_is_pickled_as_its_path(index: LocalIndex) -> None:
    again = pickle.loads(pickle.dumps(index))
    assert again.content_hash == index.content_hash
    assert again.search("span", 3) == index.search("span", 3)


def test_many_threads_search_one_index(index: LocalIndex) -> None:
    queries = ["span", "endpoint", "オプティマイザー", "filler words"] * 50
    expected = [index.search(query, 5) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: index.search(query, 5), queries)) == expected


def test_an_index_says_what_it_is(index: LocalIndex) -> None:
    assert (index.manifest.documents, index.manifest.passages, len(index)) == (
        5,
        len(index),
        index.manifest.passages,
    )
    assert index.manifest.chunking == ChunkingSettings()
    assert repr(index).endswith(f"5 documents, {len(index)} passages)")


@given(st.text(alphabet=st.characters(exclude_categories=())), st.integers(1, 20))
def test_any_text_is_a_safe_query_with_ordered_scores(index: LocalIndex, query: str, k: int) -> None:
    found = index.search(query, k)
    scores = [passage.score for passage in found]
    assert len(found) <= k
    assert scores == sorted(scores, reverse=True)
    assert all(score >= 0 for score in scores)


def test_a_retrieval_error_is_what_a_caller_catches(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError):
        LocalIndex.open(tmp_path / "none")


def test_an_index_knows_the_languages_of_its_documents(index: LocalIndex) -> None:
    assert index.languages() == ["en", "ja"]

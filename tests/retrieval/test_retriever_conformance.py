"""What every retriever over a corpus keeps to, whatever it searches: the laws of `CorpusRetriever`.

A retriever joins by a line in RETRIEVERS: what makes it over the passages of DOCUMENTS.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_workspace import FakeWorkspace
from fake_workspace.search import ranking
from given_sources import source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Span
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from postgres_server import running_postgres

from program.trace_capture import CapturingProcessor, StandIn, pop_trace
from retrieval.ai_search.columns import Columns
from retrieval.ai_search.index import RemoteIndex
from retrieval.ai_search.plan import SearchSettings
from retrieval.chunking import ChunkingSettings
from retrieval.errors import FilterError
from retrieval.late_fusion import search_many
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever
from retrieval.postgres.address import Address
from retrieval.postgres.database import Database
from retrieval.postgres.index import PostgresIndex
from retrieval.postgres.retriever import PostgresRetriever
from retrieval.postgres.writing import write_corpus
from retrieval.resilience import Resilience
from retrieval.tracing import traced_search
from retrieval.types import CorpusRetriever, Document, Passage
from retrieval.vector_search import VectorSearchRetriever
from retrieval.workspace import open_workspace

DOCUMENTS = [
    Document(
        "https://e.org/tracing",
        "# Tracing\n\nA span records the inputs of a step.\n\n## Threads\n\nA pool of threads loses the span.",
        "Tracing",
        "en",
        {"year": 2023, "public": True},
    ),
    Document(
        "https://e.org/serving",
        "# Serving\n\nThe endpoint scales to zero when nobody asks for a while.",
        "It's O'Brien's",
        "en",
        {"year": 2024, "public": False},
    ),
    Document(
        "https://e.org/最適化",
        "# 最適化\n\nオプティマイザーは指示文を改善します。",
        "最適化",
        "ja",
        {"year": 2025, "public": True},
    ),
    Document("https://e.org/prices", "# Prices\n\nA unit costs a fixed sum for each hour.", "Prices", "en"),
]
YEARS = {"tracing": 2023, "serving": 2024, "最適化": 2025}


class WordEmbedder:
    """An embedder by words and letters."""

    name = "words"
    fingerprint = "words-1"
    dimension = int(ranking.embed(["x"]).shape[1])
    truncated = 0

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return ranking.embed(texts)

    def embed_query(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return ranking.embed([text])[0]


Maker = Callable[[Sequence[Passage], Path], AbstractContextManager[CorpusRetriever]]


@contextmanager
def local(passages: Sequence[Passage], path: Path) -> Iterator[CorpusRetriever]:
    yield LocalRetriever(LocalIndex.open(_built(path)))


def vector_search(kind: str = "STANDARD", vectors: str = "managed", **how: Any) -> Maker:
    """A retriever over an index of a fake workspace; `vectors`: managed, ours, none, or direct (access)."""

    @contextmanager
    def make(passages: Sequence[Passage], path: Path) -> Iterator[CorpusRetriever]:
        with pytest.MonkeyPatch.context() as patch, FakeWorkspace() as fake:
            patch.setenv("DATABRICKS_CONFIG_FILE", str(path / "none"))
            patch.setenv("DATABRICKS_HOST", fake.url)
            patch.setenv("DATABRICKS_TOKEN", fake.identity.add_token("ann@example.com"))
            embedder = WordEmbedder() if vectors in ("ours", "direct") else None
            rows = [row_of(passage, embedder) for passage in passages]
            dimension = ("embedding", WordEmbedder.dimension)
            if vectors == "direct":
                _write_directly(fake, rows, dimension)
            else:
                fake.vector_search.add_index(
                    "main.docs.passages_index",
                    rows,
                    text="text" if vectors == "managed" else None,
                    vector=dimension if vectors == "ours" else None,
                    kind=kind,
                )
            index = RemoteIndex("main.docs.passages_index", open_workspace(), Resilience("The index"))
            chosen = SearchSettings(columns=Columns(others=("year", "public")), **how)
            yield VectorSearchRetriever(index, chosen, embedder=embedder)
            assert fake.unknown == []

    return make


def row_of(passage: Passage, embedder: WordEmbedder | None = None) -> dict[str, Any]:
    """A row as the corpus pipeline writes it."""
    row: dict[str, Any] = {
        "chunk_id": passage.chunk_id,
        "doc_uri": passage.doc_uri,
        "text": passage.text,
        "title": passage.title,
        "lang": passage.lang,
        "url": passage.url,
        "headings": list(passage.headings),
        "start_char": passage.start,
        "end_char": passage.end,
        "year": passage.metadata.get("year"),
        "public": passage.metadata.get("public"),
    }
    if embedder is not None:
        row["embedding"] = [float(number) for number in embedder.embed_query(passage.text)]
    return row


def _write_directly(fake: FakeWorkspace, rows: list[dict[str, Any]], vector: tuple[str, int]) -> None:
    from databricks.ai_search.client import AISearchClient

    fake.vector_search.add_endpoint("vs")
    client = AISearchClient(fake.url, fake.identity.add_token("writer@example.com"), disable_notice=True)
    kinds = {"headings": "array<string>", "start_char": "long", "end_char": "long", "year": "long"}
    kinds |= {"public": "boolean", "embedding": "array<float>"}
    schema = {name: kinds.get(name, "string") for name in rows[0]}
    index = client.create_direct_access_index(
        "vs", "main.docs.passages_index", "chunk_id", vector[1], vector[0], schema
    )
    index.upsert(rows)


def postgres(embedder: WordEmbedder | None = None) -> Maker:
    """A retriever over a table of a real PostgreSQL."""

    @contextmanager
    def make(passages: Sequence[Passage], path: Path) -> Iterator[CorpusRetriever]:
        with pytest.MonkeyPatch.context() as patch, running_postgres() as server:
            patch.setenv("PGPASSWORD", server.password)
            database = Database(Address(server.dsn))
            chunking = ChunkingSettings(max_tokens=16, overlap_tokens=0)
            sources = [source_of(document) for document in DOCUMENTS]
            write_corpus(database, "passages", sources, chunking=chunking, embedder=embedder)
            yield PostgresRetriever(PostgresIndex.open(database, "passages"), embedder=embedder)
            database.close()

    return make


def _built(path: Path) -> Path:
    if not (path / "index").exists():
        LocalIndex.build(
            path / "index", DOCUMENTS, chunking=ChunkingSettings(max_tokens=16, overlap_tokens=0)
        )
    return path / "index"


RETRIEVERS: dict[str, Maker] = {
    "local": local,
    "vector_search_managed": vector_search(),
    "vector_search_ann": vector_search(query_type="ann"),
    "vector_search_ours": vector_search(vectors="ours"),
    "vector_search_storage_optimized": vector_search("STORAGE_OPTIMIZED"),
    "vector_search_full_text": vector_search("STORAGE_OPTIMIZED", vectors="none"),
    "vector_search_direct": vector_search(vectors="direct"),
    "pgvector_words": postgres(),
    "pgvector_hybrid": postgres(WordEmbedder()),
}


@pytest.fixture(scope="module")
def passages(tmp_path_factory: pytest.TempPathFactory) -> list[Passage]:
    index = LocalIndex.open(_built(tmp_path_factory.mktemp("conformance")))
    found = [passage for document in DOCUMENTS for passage in index.passages_of(document.doc_uri)]
    assert len(found) > len(DOCUMENTS)
    return found


@pytest.fixture(scope="module", params=RETRIEVERS)
def retriever(
    request: pytest.FixtureRequest, passages: list[Passage], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CorpusRetriever]:
    with RETRIEVERS[request.param](passages, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def names(passages: Sequence[Passage]) -> set[str]:
    return {passage.doc_uri.rpartition("/")[2] for passage in passages}


def test_it_is_a_retriever_over_a_corpus(retriever: CorpusRetriever) -> None:
    assert isinstance(retriever, CorpusRetriever)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("What does a span record?", "tracing"),
        ("does the endpoint scale to zero", "serving"),
        ("オプティマイザーの指示文", "最適化"),
        ("what is the price of a unit for an hour", "prices"),
    ],
)
def test_what_says_it_is_first(retriever: CorpusRetriever, query: str, first: str) -> None:
    assert names(retriever.search(query, 3)[:1]) == {first}


def test_a_passage_comes_whole(retriever: CorpusRetriever, passages: list[Passage]) -> None:
    found = retriever.search("a pool of threads loses the span", 1)[0]
    stated = next(passage for passage in passages if passage.chunk_id == found.chunk_id)
    assert replace(found, score=0.0, metadata={}) == replace(stated, score=0.0, metadata={})
    assert dict(found.metadata) == {"year": 2023, "public": True}
    assert "Threads" in found.headings
    text = next(document.text for document in DOCUMENTS if document.doc_uri == found.doc_uri)
    assert text[found.start : found.end] == found.text


@pytest.mark.parametrize("k", [1, 2, 50])
def test_at_most_k_passages_come_best_first_and_each_once(retriever: CorpusRetriever, k: int) -> None:
    found = retriever.search("span endpoint unit", k)
    assert 0 < len(found) <= k
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    assert len({passage.chunk_id for passage in found}) == len(found)


def test_several_ways_to_ask_are_one_search(retriever: CorpusRetriever) -> None:
    found = search_many(retriever, ["what does a span record", "does the endpoint scale to zero"], 3)
    assert len(found) == 3
    assert {"tracing", "serving"} <= names(found)
    assert [passage.score for passage in found] == sorted((p.score for p in found), reverse=True)
    with pytest.raises(ValueError, match="no query"):
        search_many(retriever, [], 3)


def test_the_same_question_finds_the_same(retriever: CorpusRetriever) -> None:
    assert retriever.search("span", 5) == retriever.search("span", 5)


@pytest.mark.parametrize("query", ["", "   ", "?!", "\n", "…"])
def test_a_query_without_terms_finds_nothing(retriever: CorpusRetriever, query: str) -> None:
    assert retriever.search(query, 3) == []


def test_k_below_one_is_a_programming_error(retriever: CorpusRetriever) -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        retriever.search("span", 0)


@pytest.mark.parametrize(
    ("filters", "fulfil"),
    [
        ({"lang": "ja"}, {"最適化"}),
        ({"lang": ["ja", "en"]}, {"tracing", "serving", "最適化", "prices"}),
        ({"lang NOT": "ja"}, {"tracing", "serving", "prices"}),
        ({"lang NOT": ["ja", "en"]}, set()),
        ({"doc_uri": "https://e.org/serving"}, {"serving"}),
        ({"doc_uri": ["https://e.org/最適化", "https://e.org/prices"]}, {"最適化", "prices"}),
        ({"title": "It's O'Brien's"}, {"serving"}),
        ({"title NOT": ["It's O'Brien's", "Prices"]}, {"tracing", "最適化"}),
        ({"title": "x' OR '1'='1"}, set()),
        ({"year": 2024}, {"serving"}),
        ({"year": 2024.0}, {"serving"}),
        ({"year >=": 2024}, {"serving", "最適化"}),
        ({"year >": 2024}, {"最適化"}),
        ({"year <": 2024}, {"tracing"}),
        ({"year <=": 2023.5}, {"tracing"}),
        ({"year NOT": 2024}, {"tracing", "最適化", "prices"}),
        ({"public": True}, {"tracing", "最適化"}),
        ({"public NOT": True}, {"serving", "prices"}),
        ({"year >=": 2023, "year <": 2025, "lang": "en", "public": True}, {"tracing"}),
        ({"year": [2023, 2025]}, {"tracing", "最適化"}),
    ],
    # A set has no order that each of xdist's processes would see.
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_filters_leave_what_fulfils_them_all(
    retriever: CorpusRetriever, filters: dict[str, Any], fulfil: set[str]
) -> None:
    every_word = "span endpoint zero オプティマイザー 指示文 unit hour threads inputs tracing serving prices"
    found = names(retriever.search(every_word, 50, filters))
    assert found == fulfil


@pytest.mark.parametrize(
    "filters",
    [{"lang LIKE": "j"}, {"lang": []}, {"": "x"}, {"year >": "x"}, {"year": float("nan")}, {"lang": None}],
    ids=str,
)
def test_a_malformed_filter_is_refused_before_anything_is_searched(
    retriever: CorpusRetriever, filters: dict[str, Any]
) -> None:
    with pytest.raises(FilterError, match="ilter"):
        retriever.search("span", 3, filters)


def test_the_passages_of_a_document_stand_in_its_order(
    retriever: CorpusRetriever, passages: list[Passage]
) -> None:
    for document in DOCUMENTS:
        stated = [passage.chunk_id for passage in passages if passage.doc_uri == document.doc_uri]
        found = retriever.passages_of(document.doc_uri)
        assert [passage.chunk_id for passage in found] == stated
        assert [passage.start for passage in found] == sorted(passage.start for passage in found)
    assert retriever.passages_of("https://e.org/nowhere") == []
    assert retriever.passages_of("it's not a' uri") == []


def test_the_documents_are_listed_or_unknown(retriever: CorpusRetriever) -> None:
    found = retriever.doc_uris()
    assert found is None or set(found) == {document.doc_uri for document in DOCUMENTS}


def test_terms_have_weights(retriever: CorpusRetriever) -> None:
    weights = retriever.idf(["span", "endpoint", "nowhere"])
    assert len(weights) == 3
    assert all(weight > 0 for weight in weights)
    assert retriever.idf([]) == []


def test_it_tells_how_much_there_is_as_far_as_it_knows(
    retriever: CorpusRetriever, passages: list[Passage]
) -> None:
    facts = retriever.facts()
    assert facts.trouble == ""
    assert facts.passages in (None, len(passages))
    assert facts.documents in (None, len(DOCUMENTS))


def test_its_identity_is_for_caches_and_names_how_it_searches(retriever: CorpusRetriever) -> None:
    identity = retriever.identity
    assert identity["mode"] in ("lexical", "dense", "hybrid")
    assert json.loads(json.dumps(identity)) == json.loads(json.dumps(retriever.identity))
    assert retriever.content_hash == retriever.content_hash != ""


def test_copies_of_programs_share_it(retriever: CorpusRetriever) -> None:
    assert copy.deepcopy({"retriever": retriever})["retriever"] is retriever


def test_many_threads_find_what_one_finds(retriever: CorpusRetriever) -> None:
    queries = ["span", "endpoint", "オプティマイザー", "unit"] * 8
    alone = [retriever.search(query, 3) for query in queries[:4]] * 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: retriever.search(query, 3), queries)) == alone


@given(query=st.text(max_size=40))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_safe_to_search_for(retriever: CorpusRetriever, query: str) -> None:
    assert len(retriever.search(query, 2)) <= 2


@pytest.fixture
def spans() -> Iterator[Callable[[], list[Span]]]:
    """The spans that have ended so far, of the trace that ended last, without a store to write them to."""
    exporter = InMemorySpanExporter()
    stand_in = StandIn(CapturingProcessor(exporter))

    def ended() -> list[Span]:
        trace = pop_trace(exporter.get_finished_spans()[-1].context.trace_id)
        return trace.data.spans if trace else []

    yield ended
    stand_in.give_back()


def test_a_search_is_one_span_of_one_shape(
    retriever: CorpusRetriever, spans: Callable[[], list[Span]]
) -> None:
    traced_search(retriever, "span", 2, {"lang": "en"})
    (span,) = spans()
    assert span.span_type == "RETRIEVER"
    assert span.inputs == {"query": "span", "k": 2, "filters": {"lang": "en"}}
    document = span.outputs[0]
    assert set(document) == {"page_content", "metadata", "id"}
    told = {"doc_uri", "chunk_id", "title", "score", "start", "end", "lang", "year", "public"}
    assert told <= set(document["metadata"])
    assert document["metadata"]["doc_uri"] == "https://e.org/tracing"

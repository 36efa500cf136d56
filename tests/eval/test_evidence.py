"""Which documents a trace proves were retrieved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import mlflow
import pandas as pd
import pytest
from mlflow.entities import Document, SpanType, Trace

from eval.evidence import ANY_SPAN, SCHEMAS_TAG, RetrieverMapping, retrieved_documents, retriever_spans
from eval.observations import RetrievedDocument
from eval.traces import collect_traces
from retrieval.errors import DataError
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

# mlflow's own, when parts of it are first imported.


def row(doc: str, chunk: str | None = None, **metadata: Any) -> dict[str, Any]:
    return {"page_content": "text", "metadata": {"doc_uri": doc, **metadata}, "id": chunk}


def search(outputs: Any, *inside: Any, name: str = "retrieve") -> None:
    """A RETRIEVER span with these outputs around others."""
    with mlflow.start_span(name, span_type=SpanType.RETRIEVER) as span:
        for inner in inside:
            inner()
        span.set_outputs(outputs)


def trace_of(*searches: Any, schemas: list[dict[str, Any]] | None = None) -> Trace:
    def program() -> None:
        with mlflow.start_span("program", span_type=SpanType.AGENT):
            if schemas is not None:
                mlflow.update_current_trace(tags={SCHEMAS_TAG: json.dumps(schemas)})
            for run in searches:
                run()

    with collect_traces() as collector:
        call = collector.call(program)
    call.value()
    return call.traces[0]


def uris(trace: Trace, mapping: RetrieverMapping | None = None) -> list[str]:
    return [document.doc_uri for document in retrieved_documents(trace, mapping=mapping)]


class TwoPassages:
    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return [Passage("c2", "d1", "x", score=0.5), Passage("c1", "d1", "y", score=0.25)]


def test_our_own_searches_are_read_in_order_with_their_scores() -> None:
    trace = trace_of(lambda: traced_search(TwoPassages(), "q", 2))
    assert retrieved_documents(trace) == [
        RetrievedDocument("d1", "c2", 0.5),
        RetrievedDocument("d1", "c1", 0.25),
    ]


def test_mlflow_documents_and_json_text_are_read_like_rows() -> None:
    documents = [Document(page_content="x", metadata={"doc_uri": "a"}, id="1")]
    assert retrieved_documents(trace_of(lambda: search(documents))) == [RetrievedDocument("a", "1")]
    assert uris(trace_of(lambda: search(json.dumps([row("b")])))) == ["b"]


def test_several_searches_are_joined_and_a_passage_counts_once_at_its_first_place() -> None:
    trace = trace_of(
        lambda: search([row("a", "1"), row("a", "2")]),
        lambda: search([row("b", "1"), row("a", "2"), row("c", "9")]),
    )
    found = [(document.doc_uri, document.chunk_id) for document in retrieved_documents(trace)]
    assert found == [("a", "1"), ("a", "2"), ("b", "1"), ("c", "9")]


def test_rows_without_a_passage_id_all_stay() -> None:
    assert uris(trace_of(lambda: search([row("a"), row("a"), row("b")]))) == ["a", "a", "b"]


def test_the_traces_of_one_question_are_joined_by_start_time() -> None:
    first, second = trace_of(lambda: search([row("a")])), trace_of(lambda: search([row("b")]))
    assert [document.doc_uri for document in retrieved_documents(second, first)] == ["a", "b"]


def test_of_nested_searches_the_outermost_decides() -> None:
    lexical, dense = lambda: search([row("lexical")]), lambda: search([row("dense")])
    assert uris(trace_of(lambda: search([row("fused")], lexical, dense))) == ["fused"]
    assert uris(trace_of(lambda: search([], lexical, dense))) == []


def test_an_outer_span_without_documents_leaves_it_to_those_inside() -> None:
    assert uris(trace_of(lambda: search("Prediction(passages=…)", lambda: search([row("inner")])))) == [
        "inner"
    ]


def test_a_failed_search_retrieved_nothing_whatever_happened_inside() -> None:
    def fail() -> None:
        with mlflow.start_span("retrieve", span_type=SpanType.RETRIEVER):
            search([row("inner")])
            raise TimeoutError

    def try_it() -> None:
        with pytest.raises(TimeoutError):
            fail()

    trace = trace_of(try_it)
    assert retrieved_documents(trace) == []
    assert len(retriever_spans(trace)) == 1


def test_no_search_at_all_is_told_from_an_empty_result() -> None:
    without, empty = trace_of(), trace_of(lambda: search([]))
    assert retrieved_documents(without) == retrieved_documents(empty) == []
    assert [len(retriever_spans(trace)) for trace in (without, empty)] == [0, 1]


def test_flat_rows_are_read_by_the_mapping_that_is_given() -> None:
    trace = trace_of(lambda: search([{"url": "a", "pk": 7, "body": "text", "score": 1}]))
    mapping = RetrieverMapping(primary_key="pk", doc_uri="url")
    assert retrieved_documents(trace, mapping=mapping) == [RetrievedDocument("a", "7", 1.0)]


def test_flat_rows_are_read_by_the_schema_that_the_trace_declares() -> None:
    schema = {"name": "any", "primary_key": "pk", "text_column": "body", "doc_uri": "url"}
    trace = trace_of(lambda: search([{"url": "a", "pk": 7}]), schemas=[schema])
    assert retrieved_documents(trace) == [RetrievedDocument("a", "7")]


def test_of_several_schemas_the_one_with_the_name_of_the_span_counts() -> None:
    schemas = [
        {"name": "web", "primary_key": "pk", "text_column": "t", "doc_uri": "url"},
        {"name": "files", "primary_key": "pk", "text_column": "t", "doc_uri": "path"},
    ]
    trace = trace_of(
        lambda: search([{"url": "u", "path": "p"}], name="files"),
        lambda: search([row("default")], name="other"),
        schemas=schemas,
    )
    assert uris(trace) == ["p", "default"]


def test_a_schema_without_a_document_column_falls_back_to_doc_uri() -> None:
    schema = {"name": "any", "primary_key": "pk", "text_column": "t", "doc_uri": None}
    assert uris(trace_of(lambda: search([row("a")]), schemas=[schema])) == ["a"]


def test_a_row_without_a_document_is_an_error_that_names_its_fields() -> None:
    trace = trace_of(lambda: search([{"page_content": "x", "metadata": {"author": "a"}}]))
    with pytest.raises(DataError, match=r"'doc_uri'.*page_content, metadata, metadata\.author"):
        retrieved_documents(trace)


@pytest.mark.parametrize("outputs", ["plain text", {"total": 3}, {"passages": ["a", "b"]}, ["a", "b"], None])
def test_a_search_whose_result_cannot_be_read_is_an_error_not_a_miss(outputs: Any) -> None:
    with pytest.raises(DataError, match=r"'retrieve'.*no list of documents"):
        retrieved_documents(trace_of(lambda: search(outputs)))


def test_a_trace_read_back_from_json_gives_the_same() -> None:
    trace = trace_of(lambda: traced_search(TwoPassages(), "q", 2), lambda: search([row("é", "日", score=2)]))
    again = Trace.from_json(trace.to_json())
    assert retrieved_documents(again) == retrieved_documents(trace)
    assert len(retrieved_documents(again)) == 3


def traces_of(program: Any) -> tuple[Trace, ...]:
    """The traces of a program, which needs no root of its own."""
    with collect_traces() as collector:
        call = collector.call(program)
    call.value()
    return call.traces


@pytest.fixture
def dspy_autolog() -> Iterator[None]:
    mlflow.dspy.autolog()
    yield
    mlflow.dspy.autolog(disable=True)


class Searched:
    """What Databricks' SDK answers to a search, of which `DatabricksRM` asks nothing but `as_dict`."""

    def __init__(self, *rows: list[Any], columns: tuple[str, ...] = ("id", "text", "url", "score")) -> None:
        self._body = {
            "manifest": {"column_count": len(columns), "columns": [{"name": name} for name in columns]},
            "result": {"row_count": len(rows), "data_array": list(rows)} if rows else {"row_count": 0},
        }

    @property
    def vector_search_indexes(self) -> Searched:
        return self

    def query_index(self, **_: Any) -> Searched:
        return self

    def as_dict(self) -> dict[str, Any]:
        return self._body


VECTOR_SEARCH_ROWS = (["7", "x", "https://a", 0.5], ["8", "y", "https://b", 0.25])


def databricks_retriever() -> Any:
    return pytest.importorskip(
        "databricks_dspy.retrievers", reason="pip install 'citeqa[databricks]'"
    ).DatabricksRM


@pytest.mark.usefixtures("dspy_autolog")
@pytest.mark.parametrize("for_agents", [False, True])
def test_databricks_retriever_for_dspy_is_read_as_it_is_autologged(for_agents: bool) -> None:
    retriever = databricks_retriever()(
        databricks_index_name="i",
        docs_id_column_name="id",
        docs_uri_column_name="url",
        text_column_name="text",
        columns=["url"],
        workspace_client=Searched(*VECTOR_SEARCH_ROWS),
    )
    # Its constructor would declare a schema with MLflow's deprecated function; the shape is the same.
    retriever.use_with_databricks_agent_framework = for_agents
    found = retrieved_documents(*traces_of(lambda: retriever("q")))
    assert [document.doc_uri for document in found] == ["https://a", "https://b"]
    if not for_agents:
        assert found[0] == RetrievedDocument("https://a", "7", 0.5)


@pytest.mark.usefixtures("dspy_autolog")
def test_a_databricks_retriever_without_a_uri_column_is_read_by_the_extra_one_that_is_named() -> None:
    retriever = databricks_retriever()(
        databricks_index_name="i", columns=["url"], workspace_client=Searched(*VECTOR_SEARCH_ROWS)
    )
    traces = traces_of(lambda: retriever("q"))
    with pytest.raises(
        DataError, match=r"with the fields docs, doc_ids, doc_uris, extra_columns.*retriever_schema"
    ):
        retrieved_documents(*traces)
    found = retrieved_documents(*traces, mapping=RetrieverMapping(doc_uri="url"))
    assert [(document.doc_uri, document.chunk_id) for document in found] == [
        ("https://a", "7"),
        ("https://b", "8"),
    ]


@pytest.mark.usefixtures("dspy_autolog")
def test_a_dspy_retriever_that_holds_texts_leaves_it_to_the_search_inside() -> None:
    class Texts(dspy.Retrieve):
        def forward(self, query: str, k: int | None = None) -> dspy.Prediction:
            found = traced_search(TwoPassages(), query, 2)
            return dspy.Prediction(passages=[passage.text for passage in found])

    traces = traces_of(lambda: Texts()("q"))
    assert len(traces[0].search_spans(span_type=SpanType.RETRIEVER)) == 2
    assert [document.chunk_id for document in retrieved_documents(*traces)] == ["c2", "c1"]


@pytest.mark.usefixtures("dspy_autolog")
def test_a_dspy_retriever_that_holds_texts_alone_is_an_error_not_a_miss() -> None:
    def rm(query: str, k: int) -> list[dspy.Prediction]:
        return [dspy.Prediction(long_text="only a text")]

    def program() -> None:
        with dspy.context(rm=rm):
            dspy.Retrieve(k=1)("q")

    with pytest.raises(DataError, match=r"'Retrieve\.forward'.*dict with the fields passages\."):
        retrieved_documents(*traces_of(program))


def test_a_raw_answer_of_databricks_vector_search_is_read_by_its_columns() -> None:
    traced = mlflow.trace(lambda: Searched(*VECTOR_SEARCH_ROWS).as_dict(), span_type=SpanType.RETRIEVER)
    found = retrieved_documents(*traces_of(traced), mapping=RetrieverMapping("id", "url"))
    assert found == [RetrievedDocument("https://a", "7", 0.5), RetrievedDocument("https://b", "8", 0.25)]
    nothing = mlflow.trace(lambda: Searched().as_dict(), span_type=SpanType.RETRIEVER)
    assert retrieved_documents(*traces_of(nothing)) == []


def test_langchain_documents_are_known_by_their_source_unless_a_schema_says_otherwise() -> None:
    class LangChainDocument:
        page_content, metadata, id = "x", {"source": "https://a", "url": "https://b"}, "9"

    documents = [Document.from_langchain_document(LangChainDocument())]
    trace = trace_of(lambda: search(documents))
    assert retrieved_documents(trace) == [RetrievedDocument("https://a", "9")]
    assert uris(trace, RetrieverMapping(doc_uri="url")) == ["https://b"]
    with pytest.raises(DataError, match="has no 'link'"):
        uris(trace, RetrieverMapping(doc_uri="link"))
    assert uris(trace_of(lambda: search([{**row("c"), "source": "s"}]))) == ["c"]


def test_llama_index_nodes_are_read_as_mlflow_converts_them_and_as_they_are() -> None:
    class Node:
        """What MLflow asks a `NodeWithScore` for."""

        metadata, node_id = {"file_path": "guide.md"}, "n1"

        def get_score(self) -> float:
            return 0.5

        def get_content(self) -> str:
            return "x"

    mapping = RetrieverMapping(doc_uri="file_path")
    converted = trace_of(lambda: search([Document.from_llama_index_node_with_score(Node())]))
    as_they_are = trace_of(
        lambda: search(
            [{"node": {"id_": "n1", "metadata": {"file_path": "guide.md"}, "text": "x"}, "score": 0.5}]
        )
    )
    for trace in (converted, as_they_are):
        assert retrieved_documents(trace, mapping=mapping) == [RetrievedDocument("guide.md", "n1", 0.5)]


def test_haystack_documents_are_read_inside_their_component_by_their_meta() -> None:
    document = {"id": "h1", "content": "x", "meta": {"doc_uri": "https://a"}, "score": 0.5}
    trace = trace_of(lambda: search({"documents": [document]}))
    assert retrieved_documents(trace) == [RetrievedDocument("https://a", "h1", 0.5)]
    assert retrieved_documents(trace_of(lambda: search({"documents": []}))) == []


def test_a_table_is_read_as_records_lists_or_split_and_is_an_error_as_text() -> None:
    table = pd.DataFrame([{"doc_uri": "a", "score": 1.0}, {"doc_uri": "富", "score": 0.5}])
    for outputs in (
        table.to_dict("records"),
        table.to_dict("list"),
        table.to_dict("split"),
        table.to_json(orient="records"),
        [json.dumps(record) for record in table.to_dict("records")],
    ):
        found = retrieved_documents(trace_of(lambda outputs=outputs: search(outputs)))
        assert found == [RetrievedDocument("a", None, 1.0), RetrievedDocument("富", None, 0.5)]
    with pytest.raises(DataError, match="no list of documents but str"):
        retrieved_documents(trace_of(lambda: search(table)))


def test_mappings_by_the_name_of_a_span_come_before_those_for_any_and_what_the_trace_declares() -> None:
    schema = {"name": "any", "primary_key": "pk", "text_column": "t", "doc_uri": "declared"}
    fields = {"declared": "d", "web": "w", "rest": "r"}
    trace = trace_of(
        lambda: search([fields], name="web"), lambda: search([fields], name="files"), schemas=[schema]
    )
    web, rest = RetrieverMapping(doc_uri="web"), RetrieverMapping(doc_uri="rest")

    def found(mappings: dict[str, RetrieverMapping]) -> list[str]:
        return [document.doc_uri for document in retrieved_documents(trace, mapping=mappings)]

    assert found({}) == ["d", "d"]
    assert found({"web": web}) == ["w", "d"]
    assert found({"web": web, ANY_SPAN: rest}) == ["w", "r"]


def test_a_name_with_dots_leads_into_nested_fields_where_no_field_has_the_whole_name() -> None:
    nested = trace_of(lambda: search([{"source": {"url": "a"}, "metadata": {"id": {"chunk": 3}}}]))
    mapping = RetrieverMapping(primary_key="id.chunk", doc_uri="source.url")
    assert retrieved_documents(nested, mapping=mapping) == [RetrievedDocument("a", "3")]
    assert uris(trace_of(lambda: search([{"source.url": "b", "source": {"url": "c"}}])), mapping) == ["b"]

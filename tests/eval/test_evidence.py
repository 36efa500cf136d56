"""Which documents a trace proves were retrieved."""

import json
from typing import Any

import mlflow
import pytest
from mlflow.entities import Document, SpanType, Trace

from eval.evidence import SCHEMAS_TAG, RetrieverMapping, retrieved_documents, retriever_spans
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

"""Make a search visible to MLflow: one RETRIEVER span each, in the shape that MLflow's own readers parse.

The only module of this package that knows MLflow.
"""

from __future__ import annotations

import contextvars
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import mlflow
from mlflow.entities import SpanType

from retrieval.late_fusion import search_many
from retrieval.types import Filters, Passage, Retriever

T = TypeVar("T")

SPAN_NAME = "retrieve"

RETRIEVERS_TAG = "retrievers"
"""The tag with the retriever schema: MLflow puts it on traces of a loaded model, whoever serves otherwise must."""


def traced_search(
    retriever: Retriever,
    query: str | Sequence[str],
    k: int,
    filters: Filters | None = None,
    *,
    name: str = SPAN_NAME,
) -> list[Passage]:
    """`retriever.search(...)` inside exactly one RETRIEVER span, a child of whatever span is active.

    The span's inputs are `query`, `k` and `filters`; its outputs are the passages as `to_span_document`
    gives them, best first. An error of the search is recorded on the span and raised on.

    Several queries are one search (`search_many`): the span has the first as `query`, and all as `queries`.
    """
    queries = [query] if isinstance(query, str) else list(query)
    more = {"queries": queries} if len(queries) > 1 else {}
    with mlflow.start_span(name=name, span_type=SpanType.RETRIEVER) as span:
        span.set_inputs({"query": queries[0], **more, "k": k, "filters": dict(filters or {})})
        passages = search_many(retriever, queries, k, filters)
        span.set_outputs([to_span_document(passage) for passage in passages])
    return passages


def to_span_document(passage: Passage) -> dict[str, Any]:
    """A passage in MLflow's default retriever schema: `page_content`, `metadata` with `doc_uri`, `id`."""
    metadata = {
        **passage.metadata,
        "doc_uri": passage.doc_uri,
        "chunk_id": passage.chunk_id,
        "title": passage.title,
        "score": passage.score,
        "start": passage.start,
        "end": passage.end,
    }
    if passage.url != passage.doc_uri:
        metadata["url"] = passage.url
    if passage.lang:
        metadata["lang"] = passage.lang
    return {"page_content": passage.text, "metadata": metadata, "id": passage.chunk_id}


def declare_retriever_schema() -> None:
    """Tell MLflow and Databricks which fields of our RETRIEVER spans are the text, its key and its source.

    The default shape needs no declaration in MLflow's own readers; Databricks' Playground and Review App
    read the declaration, so both are given. MLflow marks the call as deprecated and has no successor that
    those readers know: exactly that warning is silenced, here and nowhere else.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*set_retriever_schema.*", category=FutureWarning)
        mlflow.models.set_retriever_schema(**retriever_schema())


def retriever_schema() -> dict[str, Any]:
    """Which fields of our RETRIEVER spans are what; a trace's `RETRIEVERS_TAG` holds a JSON list of such."""
    return {
        "name": SPAN_NAME,
        "primary_key": "chunk_id",
        "text_column": "page_content",
        "doc_uri": "doc_uri",
        "other_columns": ["title", "score"],
    }


def in_current_trace(function: Callable[..., T]) -> Callable[..., T]:
    """`function`, to be run in another thread with its spans still children of the span that is active now.

    Threads start with an empty context, so that a span opened in a pool would begin a trace of its own.
    Each call runs in its own copy of the caller's context, so one wrapper serves many calls at once.
    """
    context = contextvars.copy_context()

    def run(*args: Any, **kwargs: Any) -> T:
        return context.copy().run(function, *args, **kwargs)

    return run

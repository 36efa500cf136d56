"""What a trace proves was retrieved: the documents of its RETRIEVER spans.

Which spans count: of nested RETRIEVER spans the outermost that holds documents, as in MLflow's and
Databricks' own readers; several beside one another are joined. What their rows mean, the first that applies:

    1. the mapping that is configured for spans of that name, or else for any
    2. the schema that the trace declares (`set_retriever_schema`)
    3. MLflow's default shape, `{page_content, metadata: {doc_uri, chunk_id, …}, id}`, and flat rows with
       the same names; a LangChain document without `doc_uri` is known by its `metadata.source`

`eval.retriever_rows` finds the rows in what libraries put on a span.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from mlflow.entities import Span, SpanStatusCode, SpanType, Trace

from eval.observations import RetrievedDocument
from eval.retriever_rows import Row, field_names, parse_json_text, read_field, read_rows
from retrieval.errors import DataError

SCHEMAS_TAG = "retrievers"
"""The trace tag in which MLflow keeps what `mlflow.models.set_retriever_schema` declared."""

ANY_SPAN = "*"
"""In a mapping by span name: the spans that are not named."""


@dataclass(frozen=True, slots=True)
class RetrieverMapping:
    """Which fields of a retrieved row hold its key and its document.

    A field is looked for in the row itself and then in the row's `metadata` (Haystack: `meta`), so that the
    default value reads MLflow's default shape and flat rows whose fields have the same names. A name with
    dots, as `source.url`, leads into nested objects where no field has the whole of it as its name.
    """

    primary_key: str = "chunk_id"
    doc_uri: str = "doc_uri"


RetrieverMappings: TypeAlias = Mapping[str, RetrieverMapping]
"""Mappings by the name of the span whose rows they read; `ANY_SPAN` reads those of all others."""

DEFAULT_MAPPING = RetrieverMapping()
_MAPPED = frozenset(field.name for field in fields(RetrieverMapping))
_LANGCHAIN_SOURCE = "source"
_KEYS_OF_LIBRARIES = ("id", "id_")


def retrieved_documents(
    *traces: Trace, mapping: RetrieverMapping | RetrieverMappings | None = None
) -> list[RetrievedDocument]:
    """What the program retrieved in the traces of one question, in the order in which it was retrieved.

    Of nested RETRIEVER spans the outermost decides: it is what the program's retrieval step returned, while
    the inner ones are its ingredients (the two lists of a hybrid search, the candidates of a reranker).
    Where an outer span holds no list of documents, as one of `dspy.Retrieve` that holds only texts, the
    spans inside it are read instead. Several spans are joined by start time, and a passage found again
    counts at its first place only. A search that failed retrieved nothing.

    An empty list means that nothing was retrieved, by an empty result or by no search at all:
    `retriever_spans` tells the two apart.

    Raises:
        DataError: if a RETRIEVER span holds no documents that can be read, or one without a document URI.
    """
    found = [
        (span, _mapping_of(span, trace, mapping))
        for trace in traces
        for span in retriever_spans(trace, mapping)
    ]
    found.sort(key=lambda pair: pair[0].start_time_ns)
    rows = ((row, span, declared) for span, declared in found for row in _rows(span, declared) or ())
    return without_repeats(_read_row(*row) for row in rows)


def retriever_spans(trace: Trace, mapping: RetrieverMapping | RetrieverMappings | None = None) -> list[Span]:
    """The RETRIEVER spans that decide, as `retrieved_documents` defines them, in the trace's order.

    Raises:
        DataError: if a RETRIEVER span, and every one inside it, holds no list of documents.
    """
    children: dict[str | None, list[Span]] = {}
    for span in trace.data.spans:
        children.setdefault(span.parent_id, []).append(span)
    known = {span.span_id for span in trace.data.spans}
    tops = [span for span in trace.data.spans if span.parent_id not in known]

    def deciding(top: Span) -> list[Span]:
        is_search = top.span_type == SpanType.RETRIEVER
        if is_search and _rows(top, _mapping_of(top, trace, mapping)) is not None:
            return [top]
        inside = [found for child in children.get(top.span_id, ()) for found in deciding(child)]
        if is_search and not inside:
            raise DataError(_unreadable(top))
        return inside

    return [found for top in tops for found in deciding(top)]


def _unreadable(span: Span) -> str:
    held = span.outputs
    fields_there = (
        f" with the fields {', '.join(map(str, held))}" if isinstance(held, Mapping) and held else ""
    )
    return (
        f"The RETRIEVER span {span.name!r} of trace {span.trace_id} holds no list of documents but "
        f"{type(held).__name__}{fields_there}. Let it return a list of "
        "{'page_content', 'metadata': {'doc_uri', 'chunk_id'}, 'id'}, or say which field names the document "
        "with evaluation.retriever_schema."
    )


def _rows(span: Span, mapping: RetrieverMapping) -> list[Row] | None:
    """The rows of a RETRIEVER span; none if it failed; None if what it holds is no list of documents."""
    if span.status.status_code == SpanStatusCode.ERROR:
        return []
    return read_rows(span.outputs, mapping.doc_uri)


def _mapping_of(
    span: Span, trace: Trace, mapping: RetrieverMapping | RetrieverMappings | None
) -> RetrieverMapping:
    if isinstance(mapping, RetrieverMapping):
        return mapping
    configured = (mapping or {}).get(span.name) or (mapping or {}).get(ANY_SPAN)
    return configured or _declared_mapping(span, trace)


def _declared_mapping(span: Span, trace: Trace) -> RetrieverMapping:
    schemas = parse_json_text(trace.info.tags.get(SCHEMAS_TAG, "[]"))
    # Schemas are named after spans where a program has several retrievers; a single one need not be.
    named = [schema for schema in schemas if len(schemas) == 1 or schema.get("name") == span.name]
    declared = {name: value for name, value in named[0].items() if name in _MAPPED and value} if named else {}
    return replace(DEFAULT_MAPPING, **declared)


def _read_row(row: Row, span: Span, mapping: RetrieverMapping) -> RetrievedDocument:
    doc_uri = read_field(row, mapping.doc_uri) or read_field(row, DEFAULT_MAPPING.doc_uri)
    if not doc_uri and mapping.doc_uri == DEFAULT_MAPPING.doc_uri and "page_content" in row:
        doc_uri = read_field(row, _LANGCHAIN_SOURCE)
    if not doc_uri:
        raise DataError(
            f"A row of the RETRIEVER span {span.name!r} of trace {span.trace_id} has no "
            f"{mapping.doc_uri!r}. Its fields are {', '.join(field_names(row))}: name the one with the "
            "document's URI, as in --set evaluation.retriever_schema.doc_uri=url."
        )
    keys = (mapping.primary_key, *_KEYS_OF_LIBRARIES)
    chunk_id = next((key for name in keys if (key := read_field(row, name)) is not None), None)
    return RetrievedDocument(str(doc_uri), None if chunk_id is None else str(chunk_id), _score(row))


def _score(row: Row) -> float | None:
    score = read_field(row, "score")
    return float(score) if isinstance(score, int | float) else None


def without_repeats(documents: Iterable[RetrievedDocument]) -> list[RetrievedDocument]:
    """Each passage once, at its first place and with its first score. Rows without a passage id all stay: they cannot
    be told apart.
    """
    kept: dict[Any, RetrievedDocument] = {}
    for place, document in enumerate(documents):
        passage = place if document.chunk_id is None else (document.doc_uri, document.chunk_id)
        kept.setdefault(passage, document)
    return list(kept.values())

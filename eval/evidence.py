"""What a trace proves was retrieved: the documents of its RETRIEVER spans."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mlflow.entities import Span, SpanStatusCode, SpanType, Trace

from eval.observations import RetrievedDocument
from retrieval.errors import DataError

SCHEMAS_TAG = "retrievers"
"""The trace tag in which MLflow keeps what `mlflow.models.set_retriever_schema` declared."""


@dataclass(frozen=True, slots=True)
class RetrieverMapping:
    """Which fields of a retrieved row hold its key and its document.

    A field is looked for in the row itself and then in the row's `metadata`, so that the default value
    reads MLflow's default shape, `{page_content, metadata: {doc_uri, chunk_id, …}, id}`, and flat rows
    whose fields have the same names.
    """

    primary_key: str = "chunk_id"
    doc_uri: str = "doc_uri"


DEFAULT_MAPPING = RetrieverMapping()
_MAPPED = frozenset(field.name for field in fields(RetrieverMapping))


def retrieved_documents(*traces: Trace, mapping: RetrieverMapping | None = None) -> list[RetrievedDocument]:
    """What the program retrieved in the traces of one question, in the order in which it was retrieved.

    Of nested RETRIEVER spans the outermost decides, as in MLflow's and Databricks' own readers: it is what
    the program's retrieval step returned, while the inner ones are its ingredients (the two lists of a
    hybrid search, the candidates of a reranker). Where an outer span holds no list of documents, as a
    traced function that returns a DSPy `Prediction`, the spans inside it are read instead. Several spans
    are joined by start time, and a passage found again counts at its first place only. A search that
    failed retrieved nothing.

    Without `mapping`, the schema that the trace declares for a span (`set_retriever_schema`) is used, or
    else MLflow's default shape. An empty list means that nothing was retrieved, by an empty result or by
    no search at all: `retriever_spans` tells the two apart.

    Raises:
        DataError: if a RETRIEVER span holds no documents that can be read, or one without a document URI.
    """
    found = [
        (span, mapping or _declared_mapping(span, trace))
        for trace in traces
        for span in retriever_spans(trace)
    ]
    found.sort(key=lambda pair: pair[0].start_time_ns)
    rows = ((row, span, declared) for span, declared in found for row in _rows(span) or ())
    return _without_repeats(_read_row(*row) for row in rows)


def retriever_spans(trace: Trace) -> list[Span]:
    """The RETRIEVER spans that decide, as `retrieved_documents` defines them, in the trace's order.

    Raises:
        DataError: if a RETRIEVER span, and every one inside it, holds no list of documents.
    """
    children: dict[str | None, list[Span]] = {}
    for span in trace.data.spans:
        children.setdefault(span.parent_id, []).append(span)
    known = {span.span_id for span in trace.data.spans}
    tops = [span for span in trace.data.spans if span.parent_id not in known]
    return [found for top in tops for found in _deciding_spans(top, children)]


def _deciding_spans(top: Span, children: Mapping[str | None, list[Span]]) -> list[Span]:
    if top.span_type == SpanType.RETRIEVER and _rows(top) is not None:
        return [top]
    inside = [found for child in children.get(top.span_id, ()) for found in _deciding_spans(child, children)]
    if top.span_type == SpanType.RETRIEVER and not inside:
        raise DataError(
            f"The RETRIEVER span {top.name!r} of trace {top.trace_id} holds no list of documents but "
            f"{type(top.outputs).__name__}. Let it return a list of "
            "{'page_content', 'metadata': {'doc_uri', 'chunk_id'}, 'id'}."
        )
    return inside


def _rows(span: Span) -> list[Any] | None:
    """The rows of a RETRIEVER span; none if it failed; None if what it holds is no list of documents."""
    if span.status.status_code == SpanStatusCode.ERROR:
        return []
    outputs = _parsed(span.outputs)
    if isinstance(outputs, list) and all(isinstance(row, Mapping) for row in outputs):
        return outputs
    return None


def _parsed(outputs: Any) -> Any:
    # A retriever tool of an agent returns its documents as JSON text.
    if not isinstance(outputs, str):
        return outputs
    try:
        return json.loads(outputs)
    except ValueError:
        return outputs


def _declared_mapping(span: Span, trace: Trace) -> RetrieverMapping:
    schemas = _parsed(trace.info.tags.get(SCHEMAS_TAG, "[]"))
    # Schemas are named after spans where a program has several retrievers; a single one need not be.
    named = [schema for schema in schemas if len(schemas) == 1 or schema.get("name") == span.name]
    declared = {name: value for name, value in named[0].items() if name in _MAPPED and value} if named else {}
    return replace(DEFAULT_MAPPING, **declared)


def _read_row(row: Mapping[str, Any], span: Span, mapping: RetrieverMapping) -> RetrievedDocument:
    doc_uri = _field(row, mapping.doc_uri) or _field(row, DEFAULT_MAPPING.doc_uri)
    if not doc_uri:
        raise DataError(
            f"A row of the RETRIEVER span {span.name!r} of trace {span.trace_id} has no "
            f"{mapping.doc_uri!r}. Its fields are {', '.join(_field_names(row))}: name the one with the "
            "document's URI in a RetrieverMapping."
        )
    key = _field(row, mapping.primary_key)
    chunk_id = row.get("id") if key is None else key
    return RetrievedDocument(str(doc_uri), None if chunk_id is None else str(chunk_id), _score(row))


def _field(row: Mapping[str, Any], name: str) -> Any:
    return row[name] if name in row else _metadata(row).get(name)


def _metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = row.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _field_names(row: Mapping[str, Any]) -> list[str]:
    return [*row, *(f"metadata.{name}" for name in _metadata(row))]


def _score(row: Mapping[str, Any]) -> float | None:
    score = _field(row, "score")
    return float(score) if isinstance(score, int | float) else None


def _without_repeats(documents: Iterable[RetrievedDocument]) -> list[RetrievedDocument]:
    """Each passage once, at its first place. Rows without a passage id cannot be told apart: all stay."""
    kept: dict[Any, RetrievedDocument] = {}
    for place, document in enumerate(documents):
        passage = place if document.chunk_id is None else (document.doc_uri, document.chunk_id)
        kept.setdefault(passage, document)
    return list(kept.values())

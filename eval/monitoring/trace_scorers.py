"""What can be told of an answer without gold, as MLflow scorers that carry their own source.

A scheduled scorer runs where nothing of ours is installed: MLflow keeps the text of the function and runs that.
So each of them stands alone: what it needs, it imports inside. It reads outputs as a ResponsesAgent gives them, ours
or another's, and has no value where an answer does not say.
"""

from __future__ import annotations

from typing import Any

from mlflow.genai.scorers import scorer

PREFIX = "citeqa_"


@scorer(name="citeqa_cited", description="Whether the answer cites a source with its address.")  # type: ignore[untyped-decorator, unused-ignore]
def cited(outputs: Any) -> Any:
    """Whether there is a `url_citation`; no value for an answer that abstains."""
    said = outputs if isinstance(outputs, dict) else {}
    if (said.get("custom_outputs") or {}).get("abstained"):
        return None
    notes = [
        note
        for item in said.get("output") or []
        for part in (item.get("content") or [] if isinstance(item, dict) else [])
        for note in (part.get("annotations") or [] if isinstance(part, dict) else [])
    ]
    return any(isinstance(note, dict) and note.get("type") == "url_citation" for note in notes)


@scorer(
    name="citeqa_abstained", description="Whether the agent said that its documents do not hold the answer."
)  # type: ignore[untyped-decorator, unused-ignore]
def abstained(outputs: Any) -> Any:
    """As `custom_outputs.abstained` says; no value where it does not."""
    said = outputs if isinstance(outputs, dict) else {}
    return (said.get("custom_outputs") or {}).get("abstained")


@scorer(name="citeqa_dropped_markers", description="How many citations of the model pointed at no passage.")  # type: ignore[untyped-decorator, unused-ignore]
def dropped_markers(outputs: Any) -> Any:
    """As `custom_outputs.dropped_markers` says; no value where it does not."""
    said = outputs if isinstance(outputs, dict) else {}
    return (said.get("custom_outputs") or {}).get("dropped_markers")


@scorer(
    name="citeqa_fell_back",
    description="Whether the language model failed and the extractive reader answered.",
)  # type: ignore[untyped-decorator, unused-ignore]
def fell_back(outputs: Any) -> Any:
    """Whether `custom_outputs.fallback_reason` tells of a failure; no value for agents that tell nothing."""
    said = outputs if isinstance(outputs, dict) else {}
    custom = said.get("custom_outputs") or {}
    return bool(custom.get("fallback_reason")) if custom else None


@scorer(name="citeqa_documents_found", description="How many different documents the searches found.")  # type: ignore[untyped-decorator, unused-ignore]
def documents_found(trace: Any) -> Any:
    """Of all RETRIEVER spans together; no value where nothing was searched for."""
    spans = [span for span in trace.data.spans if span.span_type == "RETRIEVER"]
    if not spans:
        return None
    rows = [row for span in spans for row in (span.outputs if isinstance(span.outputs, list) else [])]
    metadata = [row.get("metadata") or {} for row in rows if isinstance(row, dict)]
    return len({one["doc_uri"] for one in metadata if one.get("doc_uri")})


TRACE_SCORERS = {
    scorer.name.removeprefix(PREFIX): scorer
    for scorer in (cited, abstained, dropped_markers, fell_back, documents_found)
}
"""By what a person calls them."""

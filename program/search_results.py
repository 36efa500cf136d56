"""What a search found, and why, as a person or a machine reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from program.text_layout import columns, table, visible
from retrieval.local_retriever import Explanation, Place, RankedRetriever
from retrieval.ranking.feedback import query_weights
from retrieval.types import CorpusRetriever, Filters

_NAME_COLUMNS = 44
_SNIPPET_COLUMNS = 100
_STAGES = ("lexical", "dense", "fused", "letters", "reranked")
_STAGE_NAMES = {"lexical": "words", "dense": "vectors"}


def render_results(found: Sequence[Explanation]) -> str:
    """Each passage with its place, its source and how it begins."""
    if not found:
        return "Nothing was found."
    return "\n\n".join(_result(number, one) for number, one in enumerate(found, start=1))


def render_explanation(
    retriever: RankedRetriever, query: str, filters: Filters | None, found: Sequence[Explanation]
) -> str:
    """How it was searched, and a table of the rank and score that each passage had in each stage."""
    lines = [_how(retriever), _terms("searched for", query_terms(retriever, query))]
    if filters:
        lines.append(f"only where    {', '.join(f'{key} = {value}' for key, value in filters.items())}")
    if not found:
        return "\n".join([*lines, "", "Nothing was found."])
    stages = [stage for stage in _STAGES if any(getattr(one, stage) for one in found)]
    header = ["passage", "score", *(_STAGE_NAMES.get(stage, stage) for stage in stages)]
    rows = [
        [_name(number, one), f"{one.passage.score:.4f}", *(_place(getattr(one, stage)) for stage in stages)]
        for number, one in enumerate(found, start=1)
    ]
    details = [
        f"{number:>2}  {one.passage.url}\n    {_terms('has', one.terms)}"
        for number, one in enumerate(found, start=1)
    ]
    return "\n".join([*lines, "", table(header, rows), "", *details])


def render_json(
    mode: str,
    query: str,
    filters: Filters | None,
    found: Sequence[Explanation],
    terms: Mapping[str, float] | None = None,
) -> str:
    """One JSON object; with the `terms` of the query, they and the stages of each result."""
    whole: dict[str, Any] = {"query": query, "mode": mode, "filters": dict(filters or {})}
    if terms is not None:
        whole["terms"] = dict(terms)
    whole["results"] = [_to_json(number, one, terms is not None) for number, one in enumerate(found, start=1)]
    return json.dumps(whole, ensure_ascii=False, indent=1)


def _to_json(number: int, one: Explanation, explain: bool) -> dict[str, Any]:
    passage = one.passage
    result: dict[str, Any] = {
        "rank": number,
        "score": passage.score,
        "doc_uri": passage.doc_uri,
        "url": passage.url,
        "chunk_id": passage.chunk_id,
        "title": passage.title,
        "headings": list(passage.headings),
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
    }
    if explain:
        places = {stage: getattr(one, stage) for stage in _STAGES}
        result["stages"] = {
            stage: {"rank": place.rank, "score": place.score} if place else None
            for stage, place in places.items()
        }
        result["terms"] = dict(one.terms)
    return result


def query_terms(retriever: CorpusRetriever, query: str) -> dict[str, float]:
    """The terms that a query searches for, the weightiest first, and their weights."""
    weights = query_weights(query)
    told = zip(weights, retriever.idf(list(weights)), strict=True)
    return dict(sorted(((t, round(weights[t] * idf, 3)) for t, idf in told), key=lambda pair: -pair[1]))


def _how(retriever: RankedRetriever) -> str:
    settings = retriever.settings
    parts = {
        "lexical": "by words",
        "dense": "by vectors",
        "hybrid": f"by words ({settings.lexical_weight:g}) and vectors ({1 - settings.lexical_weight:g}), "
        f"fused by {'ranks' if settings.fusion == 'rrf' else 'normalized scores'}",
    }
    how = [parts[retriever.mode]]
    if settings.feedback is not None:
        how.append(f"feedback of {settings.feedback.passages} passages")
    if settings.letters_weight:
        how.append(f"letters ({settings.letters_weight:g})")
    if retriever.reranker is not None:
        how.append(f"the first {settings.rerank} reranked")
    if settings.diversity:
        how.append(f"diversity ({settings.diversity:g})")
    if settings.max_per_document is not None:
        how.append(f"at most {settings.max_per_document} of a document")
    if settings.expand is not None:
        how.append(f"with their {settings.expand}")
    return f"searched      {', '.join(how)}; {len(retriever.index):,} passages"


def _result(number: int, one: Explanation) -> str:
    passage = one.passage
    snippet = _fit(" ".join(passage.text.split()), _SNIPPET_COLUMNS)
    return f"{number:>2}  {_heading(one)}\n    {passage.url}  ({passage.score:.4f})\n    {snippet}"


def _name(number: int, one: Explanation) -> str:
    return _fit(f"{number:>2}  {_heading(one)}", _NAME_COLUMNS)


def _heading(one: Explanation) -> str:
    passage = one.passage
    names = dict.fromkeys(filter(None, (passage.title, *passage.headings)))
    return visible(" > ".join(names) or passage.doc_uri).replace("\n", " ")


def _place(place: Place | None) -> str:
    return "–" if place is None else f"{place.rank} ({place.score:.3f})"


def _terms(name: str, terms: Mapping[str, float]) -> str:
    listed = ", ".join(f"{visible(term)} {weight:.2f}" for term, weight in terms.items())
    return (
        f"{name:<13} {listed or 'no term'}"
        if name == "searched for"
        else f"{name} {listed or 'no term of it'}"
    )


def _fit(text: str, width: int) -> str:
    """`text` in so many columns of a terminal, with … where something is left out."""
    text = visible(text)
    if columns(text) <= width:
        return text
    kept = ""
    for character in text:
        if columns(kept + character) > width - 1:
            break
        kept += character
    return f"{kept.rstrip()}…"

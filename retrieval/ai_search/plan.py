"""How an index can be searched: what it offers, against what was configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from retrieval.ai_search.columns import Columns
from retrieval.ai_search.description import Description
from retrieval.errors import ConfigurationError, FilterError, IndexUnusableError

if TYPE_CHECKING:
    from retrieval.embedders import Embedder

QueryType: TypeAlias = Literal["ann", "hybrid", "full_text"]
EndpointKind: TypeAlias = Literal["standard", "storage_optimized"]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How an index is searched.

    Attributes:
        query_type: `auto` is hybrid where the query can be embedded, else full_text.
        endpoint_kind: what filters are written for; `auto`: as the endpoint says.
        score_threshold: what is below is not found; None: nothing is.
        rerank_columns: what Databricks' reranker reads of the first 50; none: it is off.
    """

    columns: Columns = field(default_factory=Columns)
    query_type: Literal["auto", "ann", "hybrid", "full_text"] = "auto"
    endpoint_kind: Literal["auto", "standard", "storage_optimized"] = "auto"
    score_threshold: float | None = None
    rerank_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How an index, as it was found, is searched. With `sends_vector`, queries are embedded here."""

    index: Description
    columns: Columns
    query_type: QueryType
    endpoint_kind: EndpointKind
    sends_vector: bool

    def column(self, name: str) -> str:
        """The column that a filter's field is.

        Raises:
            FilterError: if there is none.
        """
        own = {"doc_uri": self.columns.doc_uri, "title": self.columns.title, "lang": self.columns.lang}
        column = own.get(name) or name
        if self.index.columns is not None and column not in self.index.columns:
            raise FilterError(
                f"Filter '{name}': the index '{self.index.name}' has no such column. "
                f"It has: {', '.join(self.index.columns)}."
            )
        return column


def make_plan(index: Description, settings: SearchSettings, embedder: Embedder | None) -> Plan:
    """How to search the index as the settings say.

    Raises:
        IndexUnusableError: if it is not ready, lacks a column, or has vectors of another dimension.
        ConfigurationError: if the query needs an embedder and there is none.
    """
    if index.trouble:
        raise IndexUnusableError(index.trouble)
    columns = settings.columns.filled_in(index.primary_key, index.text_column, index.columns)
    _check_columns(columns, settings.rerank_columns, index)
    query_type = _query_type(settings.query_type, index, embedder)
    sends_vector = query_type != "full_text" and not index.embeds
    if sends_vector:
        _check_embedder(query_type, index, embedder)
    kind = settings.endpoint_kind
    if kind == "auto":
        kind = "storage_optimized" if index.storage_optimized else "standard"
    return Plan(index, columns, query_type, kind, sends_vector)


def _check_columns(columns: Columns, rerank_columns: Sequence[str], index: Description) -> None:
    if index.columns is None:
        return
    named = {**columns.names(), **{f"rerank_columns.{name}": name for name in rerank_columns}}
    missing = [
        f"'{column}' ({'' if setting.startswith('rerank') else 'columns.'}{setting})"
        for setting, column in named.items()
        if column not in index.columns
    ]
    if missing:
        raise IndexUnusableError(
            f"The index '{index.name}' lacks {'the column' if len(missing) == 1 else 'the columns'} "
            f"{', '.join(missing)} of retrieval.vector_search. It has: {', '.join(index.columns)}."
        )


def _query_type(
    wanted: Literal["auto", "ann", "hybrid", "full_text"], index: Description, embedder: Embedder | None
) -> QueryType:
    if wanted != "auto":
        if index.full_text_only and wanted != "full_text":
            raise ConfigurationError(
                f"retrieval.vector_search.query_type is {wanted}, and the index '{index.name}' has no vectors: "
                "set it to full_text or auto."
            )
        return wanted
    return "hybrid" if not index.full_text_only and (index.embeds or embedder) else "full_text"


def _check_embedder(query_type: str, index: Description, embedder: Embedder | None) -> None:
    if embedder is None:
        raise ConfigurationError(
            f"The index '{index.name}' holds vectors that were made elsewhere, so that a query of the kind "
            f"{query_type} needs the same model: name it with embedder.model, or set "
            "retrieval.vector_search.query_type to full_text."
        )
    if index.dimension is not None and embedder.dimension != index.dimension:
        raise IndexUnusableError(
            f"The index '{index.name}' holds vectors of {index.dimension} numbers, and {embedder.name} makes "
            f"{embedder.dimension}: embedder.model must be the model that made them."
        )

"""Settings become a retriever over a Databricks Vector Search index."""

from __future__ import annotations

from program.embedding import open_configured_embedder
from program.settings import RetrievalSettings, Settings
from retrieval.ai_search.columns import Columns
from retrieval.ai_search.index import RemoteIndex
from retrieval.ai_search.plan import SearchSettings
from retrieval.errors import ConfigurationError
from retrieval.resilience import Limits, Resilience
from retrieval.vector_search import VectorSearchRetriever
from retrieval.workspace import open_workspace

_LOCAL_ONLY = (
    "mode",
    "fusion",
    "lexical_weight",
    "letters_weight",
    "candidates",
    "rerank",
    "feedback",
    "diversity",
    "max_per_document",
    "expand",
    "expand_tokens",
)
"""Settings of the ranking of an index of our own: the workspace ranks by itself."""


def open_vector_search(settings: Settings) -> VectorSearchRetriever:
    """The retriever over the index that the settings name.

    Raises:
        ConfigurationError: if it names none or what does not fit, or Databricks' client is not installed.
        IndexMissingError, IndexUnusableError: if there is no such index, or it cannot be searched so.
        RetrievalError: if it cannot be reached, or one may not see it.
    """
    section = settings.retrieval.vector_search
    if section.index is None:
        raise ConfigurationError(
            "retrieval.backend is vector_search and no index is named: set retrieval.vector_search.index to its "
            "catalog.schema.index."
        )
    refuse_local_settings(settings.retrieval)
    limits = Limits(**section.resilience.model_dump())
    resilience = Resilience(
        f"The index '{section.index}'", limits, settings="retrieval.vector_search.resilience"
    )
    index = RemoteIndex(
        section.index,
        open_workspace(),
        resilience,
        endpoint=section.endpoint,
        as_user=section.user_credentials,
        direct=section.direct,
    )
    return VectorSearchRetriever(
        index,
        SearchSettings(
            columns=Columns(**section.columns.model_dump()),
            query_type=section.query_type,
            endpoint_kind=section.endpoint_kind,
            score_threshold=section.score_threshold,
            rerank_columns=section.rerank_columns,
        ),
        embedder=open_configured_embedder(settings.embedder),
        as_user=section.user_credentials,
    )


def refuse_local_settings(retrieval: RetrievalSettings) -> None:
    """Say which settings would be without effect, rather than leave them so.

    Raises:
        ConfigurationError: if one of them is set.
    """
    usual = RetrievalSettings()
    changed = [name for name in _LOCAL_ONLY if getattr(retrieval, name) != getattr(usual, name)]
    if changed:
        names = " and ".join(f"retrieval.{name}" for name in changed)
        raise ConfigurationError(
            f"{names} would be without effect: retrieval.backend is {retrieval.backend}, which ranks by itself. "
            "Leave it out, or set it back to its default."
        )

"""Settings become a retriever."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from program.embedding import open_configured_embedder
from program.settings import RetrievalSettings, Settings
from retrieval.errors import ConfigurationError
from retrieval.generations import read_manifest
from retrieval.live_retriever import Compose, LiveRetriever
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever, RankingSettings
from retrieval.ranking.feedback import Feedback
from retrieval.types import CorpusRetriever

if TYPE_CHECKING:
    from retrieval.embedders import Embedder
    from retrieval.ranking.cross_encoder import Reranker


def open_retriever(settings: Settings) -> CorpusRetriever:
    """The retriever that the settings describe, over the index that they name.

    Models are read where the settings need them: searching by words alone reads none.

    Raises:
        ConfigurationError: if a model is named that is not there, or what runs it is not installed.
        IndexMissingError, IndexUnusableError: if the index cannot be opened, or lacks what the mode needs.
        RetrievalError: if it is elsewhere, and cannot be reached.
    """
    match settings.retrieval.backend:
        case "local":
            return _composer(settings)(LocalIndex.open(settings.retrieval.index))
        case "vector_search":
            from program.vector_search import open_vector_search

            return open_vector_search(settings)
        case "pgvector":
            from program.postgres import open_postgres

            return open_postgres(settings)


def follow_index(settings: Settings) -> CorpusRetriever:
    """As `open_retriever`, for a process that lives long: it searches a local index as it is written anew.

    Raises:
        ConfigurationError, IndexMissingError, IndexUnusableError: as `open_retriever`.
    """
    if settings.retrieval.backend != "local":
        return open_retriever(settings)  # what is elsewhere is always searched as it is
    return LiveRetriever(settings.retrieval.index, _composer(settings))


def corpus_hash(settings: Settings) -> str:
    """What is searched, in one word: `CorpusRetriever.content_hash`, without opening more than must be.

    Raises:
        ConfigurationError, RetrievalError: as `open_retriever`.
    """
    if settings.retrieval.backend != "local":
        return open_retriever(settings).content_hash
    return read_manifest(Path(settings.retrieval.index)).content_hash


def known_documents(settings: Settings) -> Collection[str] | None:
    """The identities of the documents that can be found; None where they cannot be listed.

    Raises:
        ConfigurationError, RetrievalError: as `open_retriever`.
    """
    if settings.retrieval.backend != "local":
        return open_retriever(settings).doc_uris()
    return LocalIndex.open(settings.retrieval.index).doc_uris()


def open_own_index(settings: Settings, purpose: str) -> LocalIndex:
    """The embedded index, for what only such a one tells.

    Raises:
        ConfigurationError: if the settings name another backend.
        IndexMissingError, IndexUnusableError: if it cannot be opened.
    """
    if settings.retrieval.backend != "local":
        raise ConfigurationError(
            f"{purpose} is for an index of our own, and retrieval.backend is {settings.retrieval.backend}."
        )
    return LocalIndex.open(settings.retrieval.index)


def _composer(settings: Settings) -> Compose:
    """What makes the retriever over an index; models are opened once, whichever index it is."""
    embedder, reranker = open_models(settings)
    ranking = ranking_settings(settings.retrieval)
    return lambda index: LocalRetriever(index, ranking, embedder=embedder, reranker=reranker)


def open_models(settings: Settings) -> tuple[Embedder | None, Reranker | None]:
    """The embedding model and the reranker that a search needs; None where it needs none.

    Raises:
        ConfigurationError: as `open_retriever`.
    """
    retrieval = settings.retrieval
    reranker = None
    if retrieval.rerank.model is not None:
        from retrieval.ranking.cross_encoder import open_reranker

        reranker = open_reranker(retrieval.rerank.model)
    embedder = None if retrieval.mode == "lexical" else open_configured_embedder(settings.embedder)
    return embedder, reranker


def ranking_settings(retrieval: RetrievalSettings) -> RankingSettings:
    """The ranking's part of the settings."""
    feedback = retrieval.feedback
    return RankingSettings(
        mode=retrieval.mode,
        fusion=retrieval.fusion,
        lexical_weight=retrieval.lexical_weight,
        letters_weight=retrieval.letters_weight,
        candidates=retrieval.candidates,
        feedback=Feedback(feedback.passages, feedback.terms, feedback.weight) if feedback.passages else None,
        rerank=retrieval.rerank.candidates,
        diversity=retrieval.diversity,
        max_per_document=retrieval.max_per_document,
        expand=None if retrieval.expand == "none" else retrieval.expand,
        expand_tokens=retrieval.expand_tokens,
    )

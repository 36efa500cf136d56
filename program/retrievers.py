"""Settings become a retriever."""

from __future__ import annotations

from program.embedding import open_configured_embedder
from program.settings import RetrievalSettings, Settings
from retrieval.live_retriever import Compose, LiveRetriever
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever, RankingSettings
from retrieval.ranking.feedback import Feedback


def open_retriever(settings: Settings) -> LocalRetriever:
    """The retriever that the settings describe, over the index that they name.

    Models are read where the settings need them: searching by words alone reads none.

    Raises:
        ConfigurationError: if a model is named that is not there, or what runs it is not installed.
        IndexMissingError, IndexUnusableError: if the index cannot be opened, or lacks what the mode needs.
    """
    return _composer(settings)(LocalIndex.open(settings.retrieval.index))


def follow_index(settings: Settings) -> LiveRetriever:
    """As `open_retriever`, for a process that lives long: it searches the index as it is written anew.

    Raises:
        ConfigurationError, IndexMissingError, IndexUnusableError: as `open_retriever`.
    """
    return LiveRetriever(settings.retrieval.index, _composer(settings))


def _composer(settings: Settings) -> Compose:
    """What makes the retriever over an index; models are opened once, whichever index it is."""
    retrieval = settings.retrieval
    reranker = None
    if retrieval.rerank.model is not None:
        from retrieval.ranking.cross_encoder import open_reranker

        reranker = open_reranker(retrieval.rerank.model)
    embedder = None if retrieval.mode == "lexical" else open_configured_embedder(settings.embedder)
    ranking = ranking_settings(retrieval)
    return lambda index: LocalRetriever(index, ranking, embedder=embedder, reranker=reranker)


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

"""Embedding models: texts become vectors whose inner product says how near their meanings are."""

from retrieval.embedders.embedder import Embedder, EmbedderConfig
from retrieval.embedders.opening import open_embedder

__all__ = ["Embedder", "EmbedderConfig", "open_embedder"]

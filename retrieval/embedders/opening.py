"""From configuration to an embedder, with the libraries that it needs loaded only then."""

from __future__ import annotations

from pathlib import Path

from retrieval.embedders.embedder import Embedder, EmbedderConfig
from retrieval.embedders.providers import PROVIDERS


def open_embedder(config: EmbedderConfig) -> Embedder:
    """The embedder that is described, with its cache where one is named.

    Raises:
        ConfigurationError: if there is no such model, or a package that it needs is not installed.
        StorageError: if the cache cannot be used.
    """
    embedder = _open_model(config)
    if config.cache is None:
        return embedder
    from retrieval.embedders.vector_cache import CachedEmbedder, VectorCache

    return CachedEmbedder(embedder, VectorCache(config.cache))


def _open_model(config: EmbedderConfig) -> Embedder:
    if kind_of(config) == "endpoint":
        from retrieval.embedders.endpoint import EndpointEmbedder

        return EndpointEmbedder(config)
    from retrieval.embedders.onnx_embedder import OnnxEmbedder

    return OnnxEmbedder(config)


def kind_of(config: EmbedderConfig) -> str:
    """`onnx` or `endpoint`: what is on disk is the former; what has an address or a provider's name the latter."""
    if config.kind != "auto":
        return config.kind
    if Path(config.model).expanduser().exists():
        return "onnx"
    provider, slash, _ = config.model.partition("/")
    return "endpoint" if config.api_base or (slash and provider in PROVIDERS) else "onnx"

"""The `embedder` section of the settings as the model that it names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from program.settings import EmbedderSettings
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder


def open_configured_embedder(settings: EmbedderSettings) -> Embedder | None:
    """The embedding model that the settings name, opened once for all who ask; None where they name none.

    Raises:
        ConfigurationError: if there is no such model, or a package that it needs is not installed.
        StorageError: if the cache of vectors cannot be used.
    """
    return None if settings.model is None else _open_once(embedder_config(settings, settings.model))


def embedder_config(settings: EmbedderSettings, model: str) -> EmbedderConfig:
    """The settings as retrieval takes them."""
    values = settings.model_dump(exclude={"model", "cache"})
    return EmbedderConfig(model=model, cache=Path(settings.cache) if settings.cache else None, **values)


_open_once = lru_cache(maxsize=4)(open_embedder)

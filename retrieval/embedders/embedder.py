"""What an embedding model does, and what is to be known to open one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""Of shape (texts, dimension), or (dimension,) for one text; of unit length."""

Kind: TypeAlias = Literal["auto", "onnx", "endpoint"]
Pooling: TypeAlias = Literal["auto", "mean", "cls", "last", "none"]


class Embedder(Protocol):
    """Makes vectors of texts. Implementations are safe to call from several threads at once.

    Embedders of equal `fingerprint` give equal vectors; `name` is what people call the model. `truncated`
    counts the passages of which the model has read only the beginning, since it was opened.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def dimension(self) -> int: ...  # noqa: D102

    @property
    def truncated(self) -> int: ...  # noqa: D102

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, in their order.

        Raises:
            EmbeddingError: if the model cannot be reached or does not answer usably.
        """
        ...

    def embed_query(self, text: str) -> Vectors:
        """The vector of what somebody looks for. Raises as `embed_passages`."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """Which model embeds, and how. What is None is as the model's own files say.

    `model` is a directory with an ONNX model, the name of one on the Hugging Face hub, or a provider's
    (`openai/…`, `databricks/<endpoint>`, …); `kind` decides where `auto` cannot tell.
    """

    model: str
    kind: Kind = "auto"
    pooling: Pooling = "auto"
    max_tokens: int | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    batch_size: int | None = None
    threads: int | None = None
    api_base: str | None = None
    dimensions: int | None = None
    timeout_s: float = 60.0
    num_retries: int = 4
    cache: Path | None = None

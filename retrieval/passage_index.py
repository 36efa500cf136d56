"""What a ranking needs of the index that it ranks, wherever that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.types import CorpusFacts, Filters, Passage


class Hit(NamedTuple):
    """A passage that a search found: `address` tells it from all others of the same snapshot.

    Hits are what `retrieval.fusion` merges as they are: a thing, and its score.
    """

    address: int
    score: float


class PassageIndex(Protocol):
    """Passages that are found by words and by vectors. Safe to use from several threads at once.

    `path` is what people call it. The other members are as those of `LocalIndex`.
    """

    @property
    def path(self) -> object: ...  # noqa: D102

    def __len__(self) -> int: ...

    @property
    def content_hash(self) -> str: ...  # noqa: D102

    @property
    def has_vectors(self) -> bool: ...  # noqa: D102

    @property
    def embedder_fingerprint(self) -> str: ...  # noqa: D102

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]: ...  # noqa: D102

    def lexical_hits(self, query: str, n: int, filters: Filters | None = None) -> list[Hit]: ...  # noqa: D102

    def lexical_hits_of(  # noqa: D102
        self, weights: Mapping[str, float], n: int, filters: Filters | None = None
    ) -> list[Hit]: ...

    def dense_hits(  # noqa: D102
        self, vector: NDArray[np.float32], n: int, filters: Filters | None = None
    ) -> list[Hit]: ...

    def vectors_of(self, hits: Sequence[Hit]) -> NDArray[np.float32]: ...  # noqa: D102

    def passages(self, hits: Sequence[Hit]) -> list[Passage]: ...  # noqa: D102

    def idf(self, terms: Sequence[str]) -> list[float]: ...  # noqa: D102

    def passages_of(self, doc_uri: str) -> list[Passage]: ...  # noqa: D102

    def doc_uris(self) -> Collection[str]: ...  # noqa: D102

    def facts(self) -> CorpusFacts: ...  # noqa: D102

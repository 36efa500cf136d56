"""What is known of one answered question: what was retrieved, cited and said, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrievedDocument:
    """One retrieved passage, by the document it belongs to. `score` is for display: the order decides."""

    doc_uri: str
    chunk_id: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What the program did with one question.

    `retrieved` is in retrieval order, best first, duplicates and all. `abstained` says that the program
    declined to answer; `answer` then holds how it said so. `usd` and `tokens` are what it took of language models
    when it was first answered: 0 where none was asked, None where that is not known.
    """

    retrieved: Sequence[RetrievedDocument] = ()
    cited_uris: Sequence[str] = ()
    answer: str = ""
    abstained: bool = False
    dropped_markers: int = 0
    latency_ms: float = 0.0
    usd: float | None = None
    tokens: int | None = None

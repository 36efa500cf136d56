"""What an index holds, how large it is, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from retrieval.chunking import count_tokens
from retrieval.indexing import DOCUMENTS
from retrieval.local_index import LocalIndex

_SAMPLE = 20_000
_UNSTATED = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number is spread over passages."""

    smallest: int
    median: int
    percentile_95: int
    largest: int


@dataclass(frozen=True, slots=True)
class IndexStats:
    """`citeqa index stats`.

    Attributes:
        languages: the passages in each language that documents say they are in; "" is none.
        tokens, characters: of `sampled` passages, evenly spread over the index; None where there is none.
        bytes: on disk; `bytes_of` says for what.
        embedder: the model of the vectors; None where there are none.
        age_s: since this version of the index was written.
    """

    path: str
    documents: int
    passages: int
    languages: Mapping[str, int]
    tokens: Spread | None
    characters: Spread | None
    sampled: int
    bytes: int
    bytes_of: Mapping[str, int]
    has_vectors: bool
    embedder: str | None
    chunking: Mapping[str, Any]
    generation: str
    created: str
    age_s: float
    content_hash: str
    format_version: int
    tantivy_version: str


def describe_index(index: LocalIndex, now: datetime | None = None) -> IndexStats:
    """Measure an index. `now` is the time to tell its age by."""
    manifest = index.manifest
    sample = index.sample(_SAMPLE)
    created = datetime.fromisoformat(manifest.created)
    languages = {lang: index.count({"lang": lang}) for lang in index.languages()}
    unstated = len(index) - sum(languages.values())
    bytes_of: dict[str, int] = {}
    for name, size in manifest.files.items():
        bytes_of[_part(name)] = bytes_of.get(_part(name), 0) + size
    return IndexStats(
        path=str(index.path),
        documents=manifest.documents,
        passages=len(index),
        languages=languages | ({_UNSTATED: unstated} if unstated else {}),
        tokens=_spread([count_tokens(passage.text) for passage in sample]),
        characters=_spread([len(passage.text) for passage in sample]),
        sampled=len(sample),
        bytes=sum(bytes_of.values()),
        bytes_of=bytes_of,
        has_vectors=bool(getattr(index, "has_vectors", False)),
        embedder=getattr(index, "embedder_fingerprint", None),
        chunking=asdict(manifest.chunking),
        generation=manifest.generation,
        created=manifest.created,
        age_s=((now or datetime.now(timezone.utc)) - created).total_seconds(),
        content_hash=manifest.content_hash,
        format_version=manifest.format_version,
        tantivy_version=manifest.tantivy_version,
    )


def render_stats(stats: IndexStats) -> str:
    """A line for each fact."""
    languages = ", ".join(f"{lang or 'not stated'} {n:,}" for lang, n in stats.languages.items())
    sampled = "" if stats.sampled == stats.passages else f" (of {stats.sampled:,} passages)"
    facts = {
        "index": f"{stats.path}, {stats.generation}",
        "documents": f"{stats.documents:,}",
        "passages": f"{stats.passages:,}",
        "languages": languages or "none",
        "tokens": _render(stats.tokens) + sampled,
        "characters": _render(stats.characters) + sampled,
        "on disk": f"{_size(stats.bytes)} ({', '.join(f'{k} {_size(v)}' for k, v in stats.bytes_of.items())})",
        "vectors": f"of {stats.embedder}" if stats.has_vectors else "none",
        "chunking": ", ".join(f"{name} {value}" for name, value in stats.chunking.items()),
        "written": f"{stats.created}, {_age(stats.age_s)} ago",
        "content": stats.content_hash,
        "format": f"{stats.format_version}, tantivy {stats.tantivy_version}",
    }
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {fact}" for name, fact in facts.items())


def _part(file: str) -> str:
    if file.endswith(".store"):
        return "texts"
    if file == DOCUMENTS:
        return "documents"
    return "vectors" if "vector" in file else "words"


def _spread(values: list[int]) -> Spread | None:
    if not values:
        return None
    points = np.percentile(values, [0, 50, 95, 100], method="nearest").astype(int).tolist()
    return Spread(*points)


def _render(spread: Spread | None) -> str:
    if spread is None:
        return "none"
    return f"{spread.smallest} to {spread.largest}, median {spread.median}, 95 % up to {spread.percentile_95}"


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"

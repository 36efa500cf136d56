"""What an answer depends on: answers of one identity may stand side by side, others may not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from program.program_sources import locate_state
from program.settings import Settings

_ANSWER_SECTIONS = {"reader", "program"}
_NO_PART_OF_A_VECTOR = {"threads", "batch_size", "timeout_s", "num_retries", "cache"}
_LM_FIELDS = {"model", "api_base", "temperature", "max_tokens", "adapter"}


def answer_identity(settings: Settings, index_hash: str) -> dict[str, Any]:
    """The passages (by the hash of the index), the settings, the models and the compiled programs behind an answer.

    Settings that change how an answer is come by, and not the answer, are left out: time-outs, retries, caches.

    Raises:
        ProgramStateError, StorageError: if a program that MLflow has cannot be looked up there.
    """
    states = {
        name: locate_state(source, settings.tracking.uri) for name, source in settings.program.states.items()
    }
    return {
        "index": index_hash,
        "retrieval": {
            **settings.retrieval.model_dump(mode="json", exclude={"index"}),
            "reranker": _reranker_hash(settings.retrieval.rerank.model),
        },
        "embedder": embedder_identity(settings),
        **settings.model_dump(include=_ANSWER_SECTIONS),
        "language_model": settings.language_model.model_dump(include=_LM_FIELDS),
        "calibration": _file_hash(Path(settings.reader.calibration)) if settings.reader.calibration else "",
        "states": {name: _file_hash(path) for name, path in states.items()},
    }


def embedder_identity(settings: Settings) -> dict[str, Any]:
    """What the vectors of an embedding model depend on, by its name."""
    return settings.embedder.model_dump(exclude=_NO_PART_OF_A_VECTOR)


def _reranker_hash(model: str | None) -> str:
    """Of what stands in the directory, so that another model of the same name is another."""
    if model is None:
        return ""
    from retrieval.ranking.cross_encoder import model_fingerprint

    return model_fingerprint(model)


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

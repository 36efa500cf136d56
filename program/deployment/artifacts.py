"""What travels with a logged agent: its index, its models, its compiled programs, its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from program.agent import CALIBRATION_ARTIFACT, EMBEDDER_ARTIFACT, INDEX_ARTIFACT, RERANKER_ARTIFACT
from program.program_sources import locate_state, state_artifact
from program.settings import Settings

SERVED_SECTIONS = ("embedder", "retrieval", "reader", "language_model", "program", "memory")
"""The sections of the settings that an answer depends on; they are logged as the model's configuration."""


def artifacts(settings: Settings) -> dict[str, str]:
    """Paths by the name of the artifact. An index that is elsewhere, in a workspace or a database, is none.

    Raises:
        ProgramStateError: if a compiled program is not there.
        StorageError: if MLflow has it and cannot be reached.
    """
    found = {}
    if settings.retrieval.backend == "local":
        found[INDEX_ARTIFACT] = settings.retrieval.index
    found |= {name: str(directory) for name, (directory, _) in models_on_disk(settings).items()}
    if settings.reader.calibration is not None:
        found[CALIBRATION_ARTIFACT] = settings.reader.calibration
    # The file and not the URI: what was logged stays what it is when an alias moves.
    for name, source in settings.program.states.items():
        found[state_artifact(name)] = str(locate_state(source, settings.tracking.uri))
    return found


def models_on_disk(settings: Settings) -> dict[str, tuple[Path, str]]:
    """The directories of models that travel with the agent, by artifact, and the file in each that is named."""
    found: dict[str, tuple[Path, str]] = {}
    if settings.embedder.model is not None:
        from program.embedding import embedder_config
        from retrieval.embedders.model_files import find_model
        from retrieval.embedders.opening import kind_of

        if kind_of(embedder_config(settings.embedder, settings.embedder.model)) == "onnx":
            files = find_model(settings.embedder.model)
            found[EMBEDDER_ARTIFACT] = (files.directory, str(files.model.relative_to(files.directory)))
    if settings.retrieval.rerank.model is not None:
        found[RERANKER_ARTIFACT] = (Path(settings.retrieval.rerank.model), "")
    return found


def model_config(settings: Settings) -> Mapping[str, Any]:
    """The served sections, with what travels along named by its artifact."""
    config: dict[str, Any] = settings.model_dump(mode="json", include=set(SERVED_SECTIONS))
    models = models_on_disk(settings)
    if EMBEDDER_ARTIFACT in models:
        config["embedder"] |= {"model": f"{EMBEDDER_ARTIFACT}/{models[EMBEDDER_ARTIFACT][1]}", "kind": "onnx"}
    # Where it is served may be no place to write.
    config["embedder"]["cache"] = None
    if RERANKER_ARTIFACT in models:
        config["retrieval"]["rerank"]["model"] = RERANKER_ARTIFACT
    if settings.reader.calibration is not None:
        config["reader"]["calibration"] = CALIBRATION_ARTIFACT
    config["program"]["states"] = {name: state_artifact(name) for name in settings.program.states}
    return config

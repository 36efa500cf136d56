"""From settings to a served agent: log it as an MLflow model with everything that an answer needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models.model import ModelInfo
from mlflow.models.resources import DatabricksServingEndpoint, Resource
from mlflow.tracing.provider import is_tracing_enabled

from program.agent import CALIBRATION_ARTIFACT, EMBEDDER_ARTIFACT, INDEX_ARTIFACT, RERANKER_ARTIFACT
from program.assembly import build_programs
from program.program_sources import locate_state, state_artifact
from program.settings import Settings
from program.tracking import tracking_errors

SERVED_SECTIONS = ("embedder", "retrieval", "reader", "language_model", "program")
"""The sections of the settings that an answer depends on; they are logged as the model's configuration."""

REQUIREMENTS = ("dspy", "filelock", "mlflow", "pydantic", "pyyaml", "tantivy")
"""The distributions that `program` and `retrieval` import when they serve, but for those MLflow brings."""

MODEL_REQUIREMENTS = ("onnxruntime", "tokenizers")
"""Those of an embedding model or a reranker that travels with the agent; vectors need `VECTOR_REQUIREMENTS`."""

VECTOR_REQUIREMENTS = ("faiss-cpu",)

_EXAMPLE = {"input": [{"role": "user", "content": "What can you tell me?"}]}


def log_agent(
    settings: Settings, *, name: str = "citeqa", registered_model_name: str | None = None
) -> ModelInfo:
    """Log the agent with its code, index, compiled programs and configuration; register it when named.

    The model answers anywhere MLflow loads it, with nothing else of this machine but the API key in the
    environment: an embedding model and a reranker on disk (or from the hub) travel with it. Loaded with
    `model_config={"retrieval": {"k": 8}}`, a section that is given replaces the logged one. MLflow asks the
    agent one question to check that it works.

    Raises:
        ConfigurationError, RetrievalError, ProgramStateError: if the agent cannot be built; nothing is
            logged.
        LanguageModelError: if the language model does not answer that question.
        StorageError: if the tracking store refuses.
    """
    build_programs(settings)
    with tracking_errors(mlflow.get_tracking_uri()), _tracing_enabled():
        info: ModelInfo = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(_package("program") / "logged_agent.py"),
            code_paths=code_paths(),
            artifacts=_artifacts(settings),
            model_config=_model_config(settings),
            input_example=_EXAMPLE,
            pip_requirements=pip_requirements(settings),
            resources=databricks_resources(settings) or None,
            registered_model_name=registered_model_name,
        )
    return info


def code_paths() -> list[str]:
    """The directories of the packages that a logged model brings along, wherever this is run from."""
    return [str(_package("program")), str(_package("retrieval"))]


def pip_requirements(settings: Settings | None = None) -> list[str]:
    """What those packages need when they serve as configured, at the versions that are installed here."""
    packages = list(REQUIREMENTS)
    if settings is not None:
        has_models = bool(_models_on_disk(settings))
        packages += MODEL_REQUIREMENTS if has_models else ()
        packages += VECTOR_REQUIREMENTS if settings.embedder.model else ()
    return [f"{package}=={metadata.version(package)}" for package in packages]


def databricks_resources(settings: Settings) -> list[Resource]:
    """What a served agent calls in its workspace: Databricks gives a logged model access to these, and no other.

    The serving endpoints, where the language model or the embedding model is one (`databricks/<endpoint>`).
    """
    models = [settings.language_model.model if settings.answers_with_lm else None, settings.embedder.model]
    called = (model.partition("/") for model in models if model is not None)
    endpoints = dict.fromkeys(endpoint for provider, _, endpoint in called if provider == "databricks")
    return [DatabricksServingEndpoint(endpoint_name=endpoint) for endpoint in endpoints]


@contextmanager
def _tracing_enabled() -> Iterator[None]:
    """Within, tracing is on: MLflow waits for a lock of its own, for ever, when it logs a model without."""
    was_enabled = is_tracing_enabled()
    mlflow.tracing.enable()
    try:
        yield
    finally:
        if not was_enabled:
            mlflow.tracing.disable()


def _package(name: str) -> Path:
    return Path(str(resources.files(name)))


def _artifacts(settings: Settings) -> dict[str, str]:
    # The file and not the URI: what was logged stays what it is when an alias moves.
    states = {
        state_artifact(name): str(locate_state(source, settings.tracking.uri))
        for name, source in settings.program.states.items()
    }
    if settings.reader.calibration is not None:
        states[CALIBRATION_ARTIFACT] = settings.reader.calibration
    models = {name: str(directory) for name, (directory, _) in _models_on_disk(settings).items()}
    return {INDEX_ARTIFACT: settings.retrieval.index, **models, **states}


def _models_on_disk(settings: Settings) -> dict[str, tuple[Path, str]]:
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


def _model_config(settings: Settings) -> Mapping[str, Any]:
    config: dict[str, Any] = settings.model_dump(mode="json", include=set(SERVED_SECTIONS))
    models = _models_on_disk(settings)
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

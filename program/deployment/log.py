"""From settings to a served agent: log it as an MLflow model with everything that an answer needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models.model import ModelInfo
from mlflow.tracing.provider import is_tracing_enabled

from program.assembly import build_programs
from program.deployment.artifacts import artifacts, model_config
from program.deployment.requirements import pip_requirements, write_constraints
from program.deployment.resources import as_oneself, auth_policy, databricks_resources
from program.settings import Settings
from program.tracking import tracking_errors

_QUESTION = "What can you tell me?"


def log_agent(
    settings: Settings,
    *,
    name: str = "citeqa",
    registered_model_name: str | None = None,
    tags: Mapping[str, str] | None = None,
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
    requirements = pip_requirements(settings)
    policy = auth_policy(settings)
    # MLflow takes the one or the other.
    access = {"auth_policy": policy} if policy else {"resources": databricks_resources(settings) or None}
    with (
        tracking_errors(mlflow.get_tracking_uri()),
        _tracing_enabled(),
        as_oneself(settings),
        tempfile.TemporaryDirectory() as folder,
    ):
        pins = write_constraints(requirements, Path(folder) / "constraints.txt")
        info: ModelInfo = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(_package("program") / "logged_agent.py"),
            code_paths=code_paths() or None,
            artifacts=artifacts(settings) or None,
            model_config=model_config(settings),
            input_example=input_example(settings),
            pip_requirements=[*requirements, f"-c {pins}"],
            registered_model_name=registered_model_name,
            tags=dict(tags or {}),
            **access,
        )
    return info


def input_example(settings: Settings) -> dict[str, Any]:
    """The request that checks an agent: `deployment.question`, else the first of `serving.examples`, else any."""
    question = settings.deployment.question or next(iter(settings.serving.examples), _QUESTION)
    return {"input": [{"role": "user", "content": question}]}


def code_paths() -> list[str]:
    """The directories of the packages that a logged model brings along, wherever this is run from."""
    return [str(_package("program")), str(_package("retrieval"))]


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

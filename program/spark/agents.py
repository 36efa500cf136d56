"""Whom a batch on Spark asks: an agent that MLflow has, or the configured one, which it is given when it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from program.content_store import content_key
from program.identity import answer_identity
from program.retrievers import corpus_hash
from program.settings import Settings
from retrieval.errors import ConfigurationError

_PROGRESS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
_AGENT_TASK = "agent/v1/responses"
"""What MLflow notes with a `ResponsesAgent`."""


@dataclass(frozen=True, slots=True)
class NamedAgent:
    """An agent that MLflow has. `identity` is the model's own, whatever it was named by."""

    uri: str
    identity: str

    def model_uri(self) -> str:
        """Where MLflow has it."""
        return self.uri


@dataclass(frozen=True, slots=True)
class ConfiguredAgent:
    """The agent of the settings. `identity` is what its answers depend on."""

    settings: Settings
    identity: str

    def model_uri(self) -> str:
        """Log it, and where MLflow has it then.

        Raises:
            CiteqaError: as `log_agent`.
        """
        from program.deployment.log import log_agent

        with quietly():
            return str(log_agent(self.settings).model_uri)


def find_agent(settings: Settings, model: str | None) -> NamedAgent | ConfiguredAgent:
    """The agent of that name (`models:/…`, `runs:/…`), or else of the settings.

    Raises:
        ConfigurationError: if there is no such model, or it is no `ResponsesAgent`.
        RetrievalError: if the configured index cannot be opened.
    """
    if model is None:
        return ConfiguredAgent(settings, content_key(answer_identity(settings, corpus_hash(settings))))
    info = _describe(model)
    if (info.metadata or {}).get("task") != _AGENT_TASK:
        raise ConfigurationError(
            f"--model {model}: is no ResponsesAgent. Log one: citeqa log, or docs/own-agent.md"
        )
    # Not by its name: an alias, or a latest version, is another model tomorrow.
    return NamedAgent(model, content_key(str(info.model_uuid)))


def _describe(model: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.models.get_model_info(model)
    except (MlflowException, OSError) as error:
        reason = (str(error) or repr(error)).strip().splitlines()[0].rstrip(".")
        raise ConfigurationError(f"--model {model}: cannot be read: {reason}.") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without MLflow's news and progress bars of what it copies: errors only."""
    logger = logging.getLogger("mlflow")
    level, progress = logger.level, os.environ.get(_PROGRESS)
    logger.setLevel(logging.ERROR)
    os.environ[_PROGRESS] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        del os.environ[_PROGRESS]
        if progress is not None:
            os.environ[_PROGRESS] = progress

"""Where an agent goes on Model Serving, and whether the settings can be meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from program.settings import Settings
from retrieval.errors import ConfigurationError

LONGEST_NAME = 63
"""Of a serving endpoint."""

_ENDPOINT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_SECRET = re.compile(r"[\w.@-]+/[\w.@-]+")
_FIXED = ("ENABLE_LANGCHAIN_STREAMING", "ENABLE_MLFLOW_TRACING", "RETURN_REQUEST_ID_IN_RESPONSE")


@dataclass(frozen=True, slots=True)
class ServingTarget:
    """A model in Unity Catalog, the endpoint that serves it, and the environment variables of that."""

    model: str
    endpoint: str
    environment: Mapping[str, str]

    @property
    def schema(self) -> str:
        """`catalog.schema` of the model."""
        return self.model.rpartition(".")[0]


def serving_target(settings: Settings) -> ServingTarget:
    """The target that the settings name.

    Raises:
        ConfigurationError: if a name is missing, malformed or too long, a variable cannot be one, or traces and
            models are not kept in a workspace.
    """
    deployment, tracking = settings.deployment, settings.tracking
    if deployment.model is None:
        raise ConfigurationError("deployment.model is unset: name the model, as catalog.schema.model")
    if len(parts := deployment.model.split(".")) != 3 or not all(parts):
        raise ConfigurationError(
            f"deployment.model = {deployment.model!r}: Unity Catalog's names have three parts, catalog.schema.model"
        )
    if not tracking.uri.startswith("databricks"):
        raise ConfigurationError(
            f"tracking.uri = {tracking.uri!r}: what is served on Databricks is logged there. Set it to databricks"
        )
    if not tracking.experiment.startswith("/"):
        raise ConfigurationError(
            f"tracking.experiment = {tracking.experiment!r}: in a workspace an experiment is named by its path, "
            f"such as /Shared/{tracking.experiment}"
        )
    return ServingTarget(deployment.model, _endpoint(settings), environment(settings))


def environment(settings: Settings) -> dict[str, str]:
    """The variables of what is served; secrets by where they are, as Databricks resolves them.

    Raises:
        ConfigurationError: as `serving_target`.
    """
    deployment = settings.deployment
    for name in (*deployment.environment, *deployment.secrets):
        if not _VARIABLE.fullmatch(name):
            raise ConfigurationError(
                f"deployment.environment: {name!r} can be no variable. Capital letters, digits and _ can"
            )
        if name in _FIXED:
            raise ConfigurationError(f"deployment.environment: {name} is set by Databricks. Leave it out")
    for name, secret in deployment.secrets.items():
        if not _SECRET.fullmatch(secret):
            # The value is not shown: it may be the secret itself.
            raise ConfigurationError(
                f"deployment.secrets: {name} must say where the secret is, as scope/key. Put it there with "
                "`databricks secrets put-secret scope key`"
            )
    secrets = {name: f"{{{{secrets/{where}}}}}" for name, where in deployment.secrets.items()}
    return {**deployment.environment, **secrets}


def _endpoint(settings: Settings) -> str:
    name = settings.deployment.endpoint
    if name is None:
        # As databricks-agents would name it.
        model = str(settings.deployment.model)[: LONGEST_NAME - len("agents_")]
        return "agents_" + model.replace(".", "-").rstrip("_-")
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"deployment.endpoint = {name!r}: {len(name)} characters, and an endpoint's name has at most "
            f"{LONGEST_NAME}. Shorten it, or leave it unset"
        )
    if not _ENDPOINT.fullmatch(name):
        raise ConfigurationError(
            f"deployment.endpoint = {name!r}: letters, digits, - and _ make an endpoint's name, and it begins and ends "
            "with a letter or digit"
        )
    return name

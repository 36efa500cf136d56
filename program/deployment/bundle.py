"""An asset bundle that runs the agent as a Databricks App: what `databricks.yml` and `app.yaml` say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from program.deployment.resources import uses
from program.deployment.serving_target import environment
from program.settings import Settings
from retrieval.errors import ConfigurationError

if TYPE_CHECKING:
    from databricks.sdk.service.apps import AppResource

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,28}[a-z0-9]")
_COMMAND = "exec citeqa serve --config agent.yaml --host 0.0.0.0 --port $DATABRICKS_APP_PORT"
_CHAT_COMMAND = (
    "citeqa serve --config agent.yaml --host 127.0.0.1 --port 8001 & "
    "cd chat && npm install && npm run build && "
    "API_PROXY=http://127.0.0.1:8001/invocations CHAT_APP_PORT=$DATABRICKS_APP_PORT exec npm run start"
)
"""Databricks' chat app in front, which asks the agent beside it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _EnvironmentVariable(_Strict):
    name: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    value: str | None = None
    valueFrom: str | None = None  # noqa: N815 - as app.yaml spells it

    @model_validator(mode="after")
    def _has_one_value(self) -> _EnvironmentVariable:
        if (self.value is None) == (self.valueFrom is None):
            raise ValueError("has either value or valueFrom")
        return self


class AppYaml(_Strict):
    """`app.yaml`: how the app is started, and with which variables."""

    command: list[str] = Field(min_length=1)
    env: list[_EnvironmentVariable] = []


class _Permission(_Strict):
    level: Literal["CAN_USE", "CAN_MANAGE"]
    user_name: str | None = None
    group_name: str | None = None
    service_principal_name: str | None = None


class _App(_Strict):
    name: str = Field(pattern=f"^{_NAME.pattern}$")
    description: str | None = Field(None, max_length=1000)
    source_code_path: str
    resources: list[dict[str, Any]] = []
    user_api_scopes: list[str] | None = None
    permissions: list[_Permission] | None = None
    compute_size: Literal["MEDIUM", "LARGE", "XLARGE"] | None = None
    usage_policy_id: str | None = None


class _Experiment(_Strict):
    name: str = Field(pattern="^/")


class _Resources(_Strict):
    apps: dict[str, _App]
    experiments: dict[str, _Experiment] | None = None


class _Bundle(_Strict):
    name: str


class _Workspace(_Strict):
    host: str
    root_path: str | None = None


class _Target(_Strict):
    default: bool = False
    workspace: _Workspace


class DatabricksYaml(_Strict):
    """`databricks.yml`: the app with its resources and permissions, and the workspace that it goes to."""

    bundle: _Bundle
    resources: _Resources
    targets: dict[str, _Target]


def app_yaml(settings: Settings) -> dict[str, Any]:
    """What `app.yaml` says. Secrets are named as the app's resources that hold them.

    Raises:
        ConfigurationError: if a variable cannot be one.
    """
    deployment = settings.deployment
    environment(settings)
    stated = [{"name": name, "value": value} for name, value in deployment.environment.items()]
    secrets = [{"name": name, "valueFrom": _secret_name(name)} for name in deployment.secrets]
    return {
        "command": ["sh", "-c", _CHAT_COMMAND if deployment.chat else _COMMAND],
        "env": [*stated, *secrets],
    }


def databricks_yaml(settings: Settings, host: str, experiment_id: str | None) -> dict[str, Any]:
    """What `databricks.yml` says. An experiment that is not there yet is one of its resources.

    Raises:
        ConfigurationError: if the app's name cannot be one.
    """
    deployment = settings.deployment
    if not _NAME.fullmatch(deployment.app):
        raise ConfigurationError(
            f"deployment.app = {deployment.app!r}: 2 to 30 small letters, digits and - make an app's name"
        )
    key = deployment.app.replace("-", "_")
    experiment = experiment_id or f"${{resources.experiments.{key}.id}}"
    app: dict[str, Any] = {
        "name": deployment.app,
        "description": deployment.description or "Answers from documents, with links to the sources.",
        "source_code_path": "./app",
        "compute_size": deployment.compute_size,
        "resources": app_resources(settings, experiment),
    }
    if scopes := uses(settings).scopes:
        app["user_api_scopes"] = list(scopes)
    if permissions := [
        *(_permission(who, "CAN_USE") for who in deployment.can_query),
        *(_permission(who, "CAN_MANAGE") for who in deployment.can_manage),
    ]:
        app["permissions"] = permissions
    if deployment.usage_policy:
        app["usage_policy_id"] = deployment.usage_policy
    resources: dict[str, Any] = {"apps": {key: app}}
    if experiment_id is None:
        resources["experiments"] = {key: {"name": settings.tracking.experiment}}
    target = {"default": True, "workspace": {"host": host}}
    return {"bundle": {"name": deployment.app}, "resources": resources, "targets": {"default": target}}


def app_resources(settings: Settings, experiment_id: str) -> list[dict[str, Any]]:
    """What the app's service principal may use: model endpoints, the index, databases, secrets, the experiment."""
    used = uses(settings)
    table = {"securable_type": "TABLE", "permission": "SELECT"}
    function = {"securable_type": "FUNCTION", "permission": "EXECUTE"}
    database = {"database_name": "databricks_postgres", "permission": "CAN_CONNECT_AND_CREATE"}
    found: list[dict[str, Any]] = [
        {"name": "experiment", "experiment": {"experiment_id": experiment_id, "permission": "CAN_EDIT"}}
    ]
    for number, name in enumerate(used.endpoints, 1):
        endpoint = {"name": name, "permission": "CAN_QUERY"}
        found.append({"name": f"endpoint-{number}", "serving_endpoint": endpoint})
    # A Vector Search index is a table to Unity Catalog.
    for number, name in enumerate((*used.indexes, *used.tables), 1):
        found.append({"name": f"table-{number}", "uc_securable": {"securable_full_name": name, **table}})
    for number, name in enumerate(used.functions, 1):
        found.append(
            {"name": f"function-{number}", "uc_securable": {"securable_full_name": name, **function}}
        )
    for number, name in enumerate(used.databases, 1):
        found.append({"name": f"database-{number}", "database": {"instance_name": name, **database}})
    for variable, place in settings.deployment.secrets.items():
        scope, _, secret = place.partition("/")
        found.append(
            {"name": _secret_name(variable), "secret": {"scope": scope, "key": secret, "permission": "READ"}}
        )
    return found


def validate(databricks_yml: dict[str, Any], app_yml: dict[str, Any]) -> None:
    """That both say only what Databricks knows, in its words, and fit each other.

    Raises:
        ConfigurationError: with the first thing that is wrong, and where.
    """
    try:
        bundle = DatabricksYaml.model_validate(databricks_yml)
        app = AppYaml.model_validate(app_yml)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise ConfigurationError(f"The bundle is not valid: {place}: {wrong['msg']}") from error
    for key, stated in bundle.resources.apps.items():
        names = [_checked(key, resource) for resource in stated.resources]
        for variable in app.env:
            if variable.valueFrom is not None and variable.valueFrom not in names:
                raise ConfigurationError(
                    f"The bundle is not valid: app.yaml: {variable.name} comes from '{variable.valueFrom}', "
                    f"which is no resource of the app: {', '.join(names)}"
                )
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(
                f"The bundle is not valid: resources of one name: {', '.join(sorted(twice))}"
            )


def _checked(app: str, resource: dict[str, Any]) -> str:
    """The name of a resource that Databricks' SDK reads and writes as it stands here."""
    from databricks.sdk.service.apps import AppResource

    read: AppResource = AppResource.from_dict(resource)
    if read.as_dict() != resource or len(resource) != 2:
        raise ConfigurationError(
            f"The bundle is not valid: apps.{app}.resources: Databricks knows no resource such as {resource}"
        )
    return read.name


def _permission(who: str, level: str) -> dict[str, str]:
    return {"level": level, "user_name" if "@" in who else "group_name": who}


def _secret_name(variable: str) -> str:
    return variable.lower().replace("_", "-")

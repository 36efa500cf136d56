"""Unity Catalog's schemas and who may do what there, and the registry of models as MLflow's client asks for it."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_MODELS = "/api/2.0/mlflow/unity-catalog"
_ALL = {
    "USE_CATALOG",
    "USE_SCHEMA",
    "CREATE_MODEL",
    "CREATE_MODEL_VERSION",
    "EXECUTE",
    "SELECT",
    "CREATE_TABLE",
}


class UnityCatalog:
    """Schemas, `catalog.schema`, where everybody may do everything but what `forbid` takes from them."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self.schemas: set[str] = {"main.default", "main.rag"}
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.grants: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._forbidden: set[tuple[str, str, str]] = set()
        route = workspace.router.add
        route("GET", "/api/2.1/unity-catalog/catalogs/{name}", self._get_catalog)
        route("GET", "/api/2.1/unity-catalog/schemas/{name}", self._get_schema)
        route("GET", "/api/2.1/unity-catalog/effective-permissions/{kind}/{name}", self._effective)
        route("PATCH", "/api/2.1/unity-catalog/permissions/{kind}/{name}", self._grant)
        route("GET", "/api/2.1/unity-catalog/tables/{name}/exists", self._table_exists)
        route("POST", f"{_MODELS}/registered-models/create", self._create_model)
        route("GET", f"{_MODELS}/registered-models/get", self._get_model)
        route("POST", f"{_MODELS}/registered-models/set-tag", self._tag_model)
        for method in ("GET", "POST", "DELETE"):
            route(method, f"{_MODELS}/registered-models/alias", self._alias)
        enabled = ":is-databricks-sdk-models-artifact-repository-enabled"
        route("GET", f"{_MODELS}/registered-models{enabled}", self._files_api_is_used)
        route("POST", f"{_MODELS}/model-versions/create", self._create_version)
        route("POST", f"{_MODELS}/model-versions/finalize", self._finalize)
        route("GET", f"{_MODELS}/model-versions/get", self._get_version)
        route("GET", f"{_MODELS}/model-versions/search", self._search_versions)
        route("POST", f"{_MODELS}/model-versions/set-tag", self._tag_version)
        route("POST", f"{_MODELS}/model-versions/emit-lineage", self._emit_lineage)

    def add_schema(self, name: str) -> None:
        """A schema, `catalog.schema`."""
        self.schemas.add(name)

    def forbid(self, user: str, privilege: str, securable: str) -> None:
        """From now on the user lacks a privilege on a catalog, a schema or a model."""
        self._forbidden.add((user, privilege, securable))

    def version(self, model: str, number: int | str) -> dict[str, Any]:
        """A registered version; NOT_FOUND where there is none."""
        for version in self.versions[model]:
            if version["version"] == str(number):
                return version
        raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Model version '{model}' version {number} does not exist.")

    def _get_catalog(self, request: Request) -> dict[str, Any]:
        name = request.parameters["name"]
        if not any(schema.split(".")[0] == name for schema in self.schemas):
            raise ApiError("NOT_FOUND", f"Catalog '{name}' does not exist.")
        self._need(request.user, "USE_CATALOG", name)
        return {"name": name, "owner": "admins"}

    def _get_schema(self, request: Request) -> dict[str, Any]:
        name = request.parameters["name"]
        if name not in self.schemas:
            raise ApiError("NOT_FOUND", f"Schema '{name}' does not exist.")
        self._need(request.user, "USE_SCHEMA", name)
        return {"full_name": name, "name": name.split(".")[1], "catalog_name": name.split(".")[0]}

    def _effective(self, request: Request) -> dict[str, Any]:
        name, principal = request.parameters["name"], request.query.get("principal", request.user)
        held = sorted(_ALL - {what for user, what, on in self._forbidden if (user, on) == (principal, name)})
        assigned = [{"privilege": privilege} for privilege in held]
        return {"privilege_assignments": [{"principal": principal, "privileges": assigned}]}

    def _grant(self, request: Request) -> dict[str, Any]:
        self.grants[request.parameters["name"]] += request.json(known=("changes",))["changes"]
        return {"privilege_assignments": []}

    def _table_exists(self, request: Request) -> dict[str, Any]:
        return {"table_exists": False}

    def _create_model(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("name", "tags", "description", "deployment_job_id"), required=("name",))
        name = str(said["name"])
        schema = self._schema_of(name)
        self._need(request.user, "CREATE_MODEL", schema)
        if name in self.models:
            raise ApiError("RESOURCE_ALREADY_EXISTS", f"Registered model '{name}' already exists.")
        self.models[name] = {**said, "user_id": request.user, "creation_timestamp": _now(), "aliases": []}
        return {"registered_model": self.models[name]}

    def _get_model(self, request: Request) -> dict[str, Any]:
        return {"registered_model": self._model(_said(request)["name"])}

    def _tag_model(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("name", "key", "value"))
        model = self._model(said["name"])
        model["tags"] = _with_tag(model.get("tags", []), said)
        return {}

    def _alias(self, request: Request) -> dict[str, Any]:
        said = _said(request)
        model = self._model(said["name"])
        others = [alias for alias in model["aliases"] if alias["alias"] != said["alias"]]
        if request.method == "GET":
            for alias in model["aliases"]:
                if alias["alias"] == said["alias"]:
                    return {"model_version": self.version(said["name"], alias["version"])}
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Alias '{said['alias']}' does not exist.")
        if request.method == "POST":
            self.version(said["name"], said["version"])
            others.append({"alias": said["alias"], "version": said["version"]})
        model["aliases"] = others
        return {}

    def _files_api_is_used(self, request: Request) -> dict[str, Any]:
        return {"is_databricks_sdk_models_artifact_repository_enabled": True}

    def _create_version(self, request: Request) -> dict[str, Any]:
        known = (
            *("name", "source", "run_id", "description", "run_tracking_server_id", "feature_deps", "tags"),
            *("model_version_dependencies", "model_id"),
        )
        said = request.json(known=known, required=("name", "source"))
        name = said["name"]
        self._model(name)
        self._need(request.user, "CREATE_MODEL_VERSION", name)
        version = {
            **{key: said[key] for key in ("name", "source", "run_id", "model_id", "tags") if key in said},
            "version": str(len(self.versions[name]) + 1),
            "status": "PENDING_REGISTRATION",
            "user_id": request.user,
            "creation_timestamp": _now(),
            "storage_location": f"/Models/{name.replace('.', '/')}",
        }
        self.versions[name].append(version)
        return {"model_version": version}

    def _finalize(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("name", "version"))
        version = self.version(said["name"], said["version"])
        folder = f"/Models/{said['name'].replace('.', '/')}/{said['version']}"
        if self._workspace.files.get(f"{folder}/MLmodel") is None:
            raise ApiError("BAD_REQUEST", f"There is no MLmodel in {folder}.")
        version["status"] = "READY"
        return {"model_version": version}

    def _get_version(self, request: Request) -> dict[str, Any]:
        said = _said(request)
        return {"model_version": self.version(said["name"], said["version"])}

    def _search_versions(self, request: Request) -> dict[str, Any]:
        found = re.fullmatch(r"name\s*=\s*['\"](.+)['\"]", _said(request).get("filter", ""))
        if not found:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", "Only filters such as name='catalog.schema.model' are known."
            )
        # Unity Catalog's search leaves out tags and aliases.
        return {
            "model_versions": [
                {key: value for key, value in version.items() if key != "tags"}
                for version in self.versions[found[1]]
            ]
        }

    def _tag_version(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("name", "version", "key", "value"))
        version = self.version(said["name"], said["version"])
        version["tags"] = _with_tag(version.get("tags", []), said)
        return {}

    def _emit_lineage(self, request: Request) -> dict[str, Any]:
        return {}

    def _model(self, name: str) -> dict[str, Any]:
        self._schema_of(name)
        if name not in self.models:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Registered model '{name}' does not exist.")
        return self.models[name]

    def _schema_of(self, name: str) -> str:
        if name.count(".") != 2:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", f"'{name}': specify all three levels, catalog.schema.model."
            )
        schema = name.rpartition(".")[0]
        if schema not in self.schemas:
            raise ApiError("NOT_FOUND", f"Schema '{schema}' does not exist.")
        return schema

    def _need(self, user: str, privilege: str, on: str) -> None:
        if (user, privilege, on) in self._forbidden:
            raise ApiError(
                "PERMISSION_DENIED", f"User does not have {privilege.replace('_', ' ')} on '{on}'."
            )


def _said(request: Request) -> dict[str, Any]:
    """The request's fields, wherever a client put them."""
    return {**request.query, **(json.loads(request.body) if request.body else {})}


def _with_tag(tags: list[dict[str, Any]], said: dict[str, Any]) -> list[dict[str, Any]]:
    return [tag for tag in tags if tag["key"] != said["key"]] + [{"key": said["key"], "value": said["value"]}]


def _now() -> int:
    return int(time.time() * 1000)

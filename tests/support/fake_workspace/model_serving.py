"""Serving endpoints: made, updated and watched as the SDK does it, with permissions, logs and Databricks' limits.

An update takes as many looks at the endpoint as `looks_until_ready`; `break_next_update` lets one fail.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from databricks.sdk.service.serving import EndpointCoreConfigInput, ServedEntityInput, TrafficConfig

from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_API = "/api/2.0/serving-endpoints"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_SECRET = re.compile(r"{{secrets/([^/]+)/([^}]+)}}")
_CREATED = (
    *("name", "config", "ai_gateway", "budget_policy_id", "description", "tags", "route_optimized"),
    *("email_notifications", "rate_limits", "telemetry_config"),
)
_LEVELS = ("CAN_VIEW", "CAN_QUERY", "CAN_MANAGE")


class ModelServing:
    """Endpoints by name, as the API answers them. Foundation models are there by `add_foundation_model`."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.permissions: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.secrets: set[tuple[str, str]] = set()
        self.looks_until_ready = 1
        self._broken: str | None = None
        self._looks: dict[str, int] = {}
        route = workspace.router.add
        route("POST", _API, self._create)
        route("GET", _API, self._list)
        route("GET", f"{_API}/{{name}}", self._get)
        route("DELETE", f"{_API}/{{name}}", self._delete)
        route("PUT", f"{_API}/{{name}}/config", self._update)
        route("PATCH", f"{_API}/{{name}}/tags", self._tag)
        route("PATCH", f"{_API}/{{name}}/description", self._describe)
        route("PATCH", f"{_API}/{{name}}/budget-policy", self._describe)
        route("GET", f"{_API}/{{name}}/served-models/{{entity}}/build-logs", self._logs)
        route("GET", f"{_API}/{{name}}/served-models/{{entity}}/logs", self._logs)
        permissions = "/api/2.0/permissions/serving-endpoints/{id}"
        route("GET", permissions, self._get_permissions)
        route("PATCH", permissions, self._add_permissions)
        route("PUT", permissions, self._set_permissions)
        route("GET", "/api/2.0/secrets/list", self._list_secrets)

    def add_foundation_model(self, name: str) -> None:
        """An endpoint that Databricks itself provides."""
        self.endpoints[name] = {
            "name": name,
            "id": f"id-{name}",
            "state": {"ready": "READY", "config_update": "NOT_UPDATING"},
        }

    def break_next_update(self, message: str) -> None:
        """The update that comes next fails with this message, some looks after it began."""
        self._broken = message

    def served_versions(self, name: str) -> dict[str, int]:
        """The share of the traffic of an endpoint by the version of the model that gets it."""
        config = self.endpoints[name]["config"]
        shares = {route["served_model_name"]: route["traffic_percentage"] for route in config["routes"]}
        return {
            entity["entity_version"]: shares.get(entity["name"], 0) for entity in config["served_entities"]
        }

    def _create(self, request: Request) -> dict[str, Any]:
        said = request.json(known=_CREATED, required=("name", "config"))
        name = said["name"]
        if not _NAME.fullmatch(name):
            raise ApiError(
                "INVALID_PARAMETER_VALUE", f"Endpoint name '{name}' must be 1-63 of letters, digits, - and _."
            )
        if name in self.endpoints:
            raise ApiError("RESOURCE_ALREADY_EXISTS", f"Endpoint with name '{name}' already exists.")
        self.endpoints[name] = {
            **{key: said[key] for key in ("name", "description", "tags", "ai_gateway") if key in said},
            "id": f"id-{name}",
            "creator": request.user,
            "budget_policy_id": said.get("budget_policy_id"),
            "state": {"ready": "NOT_READY", "config_update": "NOT_UPDATING"},
        }
        self.permissions[f"id-{name}"] = [{"user_name": request.user, "permission_level": "CAN_MANAGE"}]
        try:
            return self._begin(name, said["config"], request.user)
        except ApiError:
            del self.endpoints[name]
            raise

    def _update(self, request: Request) -> dict[str, Any]:
        name = request.parameters["name"]
        endpoint = self._endpoint(name)
        self._need_manager(endpoint, request.user)
        if endpoint["state"]["config_update"] == "IN_PROGRESS":
            raise ApiError("RESOURCE_CONFLICT", f"Endpoint '{name}' is currently updating.")
        return self._begin(name, request.json(known=_fields(EndpointCoreConfigInput)), request.user)

    def _begin(self, name: str, said: dict[str, Any], user: str) -> dict[str, Any]:
        endpoint = self.endpoints[name]
        entities = [self._entity(entity, user) for entity in said.get("served_entities", [])]
        versions = [(entity["entity_name"], entity["entity_version"]) for entity in entities]
        if len(entities) > 15:
            raise ApiError("INVALID_PARAMETER_VALUE", "served_models cannot contain more than 15 elements")
        if len(set(versions)) < len(versions):
            raise ApiError("BAD_REQUEST", "Cannot create 2+ served entities with the same model and version.")
        traffic = said.get("traffic_config") or {}
        _no_other(traffic, _fields(TrafficConfig), "traffic_config")
        routes = [
            {
                "served_model_name": route.get("served_model_name") or route.get("served_entity_name"),
                "traffic_percentage": route.get("traffic_percentage", 0),
            }
            for route in traffic.get("routes", [])
        ]
        names = {entity["name"] for entity in entities}
        if sum(route["traffic_percentage"] for route in routes) != 100:
            raise ApiError("INVALID_PARAMETER_VALUE", "The traffic of the routes must add up to 100.")
        if not {route["served_model_name"] for route in routes} <= names:
            raise ApiError("INVALID_PARAMETER_VALUE", "A route names no served entity.")
        if names - {route["served_model_name"] for route in routes}:
            raise ApiError("INVALID_PARAMETER_VALUE", "A served entity has no route.")
        for entity in entities:
            entity["state"] = {"deployment": "DEPLOYMENT_CREATING", "deployment_state_message": "Building"}
        endpoint["pending_config"] = {"served_entities": entities, "routes": routes}
        endpoint["state"]["config_update"] = "IN_PROGRESS"
        self._looks[name] = 0
        return _as_answer(endpoint)

    def _entity(self, said: dict[str, Any], user: str) -> dict[str, Any]:
        outputs = {"state", "creator", "creation_timestamp", "foundation_model"}  # clients send these back
        _no_other(
            {key: said[key] for key in said.keys() - outputs}, _fields(ServedEntityInput), "served_entities"
        )
        version = self._workspace.unity_catalog.version(said["entity_name"], said["entity_version"])
        if version["status"] != "READY":
            raise ApiError("INVALID_PARAMETER_VALUE", f"Model version {said['entity_version']} is not ready.")
        for value in (said.get("environment_vars") or {}).values():
            found = _SECRET.fullmatch(value)
            if found and (found[1], found[2]) not in self.secrets:
                raise ApiError("INVALID_PARAMETER_VALUE", f"Secret {found[1]}/{found[2]} does not exist.")
        return {**said, "entity_version": str(said["entity_version"]), "creator": user}

    def _get(self, request: Request) -> dict[str, Any]:
        name = request.parameters["name"]
        endpoint = self._endpoint(name)
        if endpoint["state"].get("config_update") == "IN_PROGRESS":
            self._looks[name] += 1
            if self._looks[name] > self.looks_until_ready:
                self._finish(endpoint)
        return _as_answer(endpoint)

    def _finish(self, endpoint: dict[str, Any]) -> None:
        pending = endpoint["pending_config"]
        if self._broken is not None:
            message, self._broken = self._broken, None
            endpoint["state"]["config_update"] = "UPDATE_FAILED"
            for entity in pending["served_entities"]:
                entity["state"] = {
                    "deployment": "DEPLOYMENT_FAILED",
                    "deployment_state_message": message,
                }
            return
        for entity in pending["served_entities"]:
            entity["state"] = {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""}
        endpoint["config"] = endpoint.pop("pending_config")
        endpoint["state"] = {"ready": "READY", "config_update": "NOT_UPDATING"}

    def _list(self, request: Request) -> dict[str, Any]:
        return {"endpoints": [_as_answer(endpoint) for endpoint in self.endpoints.values()]}

    def _delete(self, request: Request) -> dict[str, Any]:
        self._need_manager(self._endpoint(request.parameters["name"]), request.user)
        del self.endpoints[request.parameters["name"]]
        return {}

    def _tag(self, request: Request) -> list[dict[str, Any]]:
        said = request.json(known=("add_tags", "delete_tags"))
        endpoint = self._endpoint(request.parameters["name"])
        tags = {tag["key"]: tag.get("value", "") for tag in endpoint.get("tags") or []}
        tags |= {tag["key"]: tag.get("value", "") for tag in said.get("add_tags") or []}
        for gone in said.get("delete_tags") or []:
            tags.pop(gone, None)
        endpoint["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        return {"tags": endpoint["tags"]}  # type: ignore[return-value]

    def _describe(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("name", "description", "budget_policy_id"))
        endpoint = self._endpoint(request.parameters["name"])
        endpoint |= {key: value for key, value in said.items() if key != "name"}
        return _as_answer(endpoint)

    def _logs(self, request: Request) -> dict[str, Any]:
        endpoint = self._endpoint(request.parameters["name"])
        for config in ("pending_config", "config"):
            for entity in endpoint.get(config, {}).get("served_entities", []):
                if entity["name"] == request.parameters["entity"]:
                    return {"logs": f"Installing requirements\n{entity['state']['deployment_state_message']}"}
        raise ApiError("RESOURCE_DOES_NOT_EXIST", f"No served entity '{request.parameters['entity']}'.")

    def _get_permissions(self, request: Request) -> dict[str, Any]:
        return self._permissions(request.parameters["id"])

    def _add_permissions(self, request: Request) -> dict[str, Any]:
        identity = request.parameters["id"]
        for said in self._access(request):
            who = {key: said[key] for key in said.keys() - {"permission_level"}}
            others = [held for held in self.permissions[identity] if not who.items() <= held.items()]
            self.permissions[identity] = [*others, said]
        return self._permissions(identity)

    def _set_permissions(self, request: Request) -> dict[str, Any]:
        self.permissions[request.parameters["id"]] = self._access(request)
        return self._permissions(request.parameters["id"])

    def _access(self, request: Request) -> list[dict[str, Any]]:
        endpoint = next((e for e in self.endpoints.values() if e["id"] == request.parameters["id"]), None)
        if endpoint is None:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"No endpoint with id '{request.parameters['id']}'.")
        self._need_manager(endpoint, request.user)
        said = request.json(known=("access_control_list",))["access_control_list"]
        for entry in said:
            if entry.get("permission_level") not in _LEVELS:
                raise ApiError(
                    "INVALID_PARAMETER_VALUE", f"No permission level {entry.get('permission_level')}."
                )
        return list(said)

    def _permissions(self, identity: str) -> dict[str, Any]:
        held = [
            {
                **{key: entry[key] for key in entry.keys() - {"permission_level"}},
                "all_permissions": [{"permission_level": entry["permission_level"], "inherited": False}],
            }
            for entry in self.permissions[identity]
        ]
        return {"object_id": identity, "object_type": "serving-endpoint", "access_control_list": held}

    def _list_secrets(self, request: Request) -> dict[str, Any]:
        scope = request.query.get("scope")
        keys = sorted(key for known, key in self.secrets if known == scope)
        if not keys:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Scope {scope} does not exist!")
        return {"secrets": [{"key": key} for key in keys]}

    def _endpoint(self, name: str) -> dict[str, Any]:
        if name not in self.endpoints:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Endpoint with name '{name}' does not exist.")
        return self.endpoints[name]

    def need(self, name: str, user: str, level: str) -> None:
        """PERMISSION_DENIED unless the user has this level of permission on an endpoint, or a higher one."""
        enough = _LEVELS[_LEVELS.index(level) :]
        held = self.permissions[self._endpoint(name)["id"]]
        if not any(entry.get("user_name") == user and entry["permission_level"] in enough for entry in held):
            raise ApiError("PERMISSION_DENIED", f"User does not have {level} on '{name}'.")

    def _need_manager(self, endpoint: dict[str, Any], user: str) -> None:
        self.need(endpoint["name"], user, "CAN_MANAGE")


def _as_answer(endpoint: dict[str, Any]) -> dict[str, Any]:
    answer = dict(endpoint)
    for part in ("config", "pending_config"):
        if part in answer:
            config = answer[part]
            answer[part] = {
                "served_entities": config["served_entities"],
                "traffic_config": {"routes": config["routes"]},
            }
    return answer


def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _no_other(said: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := said.keys() - set(known):
        raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown fields of {where}: {sorted(unknown)}")

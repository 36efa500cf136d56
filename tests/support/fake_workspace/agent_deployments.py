"""What databricks-agents keeps besides endpoints: which versions are deployed, and the review apps of experiments."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_API = "/api/2.0/agents/deployments"
_DEPLOYED = (
    "model_name",
    "model_version",
    "query_endpoint",
    "endpoint_name",
    "served_entity_name",
    "workspace_url",
)


class AgentDeployments:
    """The deployments of agents, in the order in which they were made."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self.deployments: list[dict[str, Any]] = []
        self.review_apps: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        route = workspace.router.add
        route("POST", _API, self._deploy)
        route("GET", _API, self._list)
        route("GET", f"{_API}/{{model}}", self._of_model)
        route("DELETE", f"{_API}/{{model}}", self._forget)
        route("GET", f"{_API}/{{model}}/versions/{{version}}", self._of_model)
        route("DELETE", f"{_API}/{{model}}/versions/{{version}}", self._forget)
        route("GET", f"{_API}/{{model}}/artifacts", self._artifacts)
        route("GET", "/api/2.0/managed-evals/monitors/{endpoint}", self._no_monitor)
        route("GET", "/api/2.0/managed-evals/review-apps", self._list_review_apps)
        route("POST", "/api/2.0/managed-evals/review-apps", self._create_review_app)
        route("PATCH", "/api/2.0/managed-evals/review-apps/{id}", self._update_review_app)

    def _deploy(self, request: Request) -> dict[str, Any]:
        said = request.json(known=_DEPLOYED, required=_DEPLOYED)
        said["model_version"] = str(said["model_version"])
        self._workspace.unity_catalog.version(said["model_name"], said["model_version"])
        address = f"{said['workspace_url']}/ml/review/{said['model_name']}/{said['model_version']}"
        self.deployments.append({**said, "review_app_url": address})
        return {"deployed_chain": self.deployments[-1]}

    def _list(self, request: Request) -> dict[str, Any]:
        return {"chain_deployments": self.deployments}

    def _of_model(self, request: Request) -> dict[str, Any]:
        return {"chain_deployments": [deployed for deployed in self.deployments if _is_of(deployed, request)]}

    def _forget(self, request: Request) -> dict[str, Any]:
        self.deployments = [deployed for deployed in self.deployments if not _is_of(deployed, request)]
        return {}

    def _artifacts(self, request: Request) -> dict[str, Any]:
        return {}

    def _no_monitor(self, request: Request) -> dict[str, Any]:
        raise ApiError("NOT_FOUND", "There is no monitor.")

    def _list_review_apps(self, request: Request) -> dict[str, Any]:
        experiment = request.query.get("filter", "").removeprefix("experiment_id=")
        return {"review_apps": [app for app in self.review_apps if app["experiment_id"] == experiment]}

    def _create_review_app(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("review_app_id", "experiment_id", "agents", "labeling_schemas"))
        self.review_apps.append({**said, "review_app_id": f"review-{next(self._numbers)}"})
        return self.review_apps[-1]

    def _update_review_app(self, request: Request) -> dict[str, Any]:
        said = request.json(known=("review_app_id", "experiment_id", "agents", "labeling_schemas"))
        for app in self.review_apps:
            if app["review_app_id"] == request.parameters["id"]:
                app |= said
                return app
        raise ApiError("NOT_FOUND", "There is no such review app.")


def _is_of(deployed: dict[str, Any], request: Request) -> bool:
    version = request.parameters.get("version", deployed["model_version"])
    return (deployed["model_name"], deployed["model_version"]) == (request.parameters["model"], version)

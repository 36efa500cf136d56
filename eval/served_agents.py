"""An agent that is served in a Databricks workspace: `endpoints:/<name>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrieval.errors import AgentError, ConfigurationError
from retrieval.workspace import open_workspace, workspace_errors

SCHEME = "endpoints:/"

_CHAT_TASKS = ("agent/v1/chat", "agent/v2/chat", "llm/v1/chat")


@dataclass(frozen=True, slots=True)
class ServedAgent:
    """A serving endpoint, as the workspace describes it.

    `entities` are the versions of models behind it with their shares of the traffic, and `api` is what a request
    looks like: `responses` or `chat`. Runs of one identity may go on with each other, so that a new version is told.
    """

    name: str
    url: str
    entities: tuple[str, ...]
    api: str


def find_served(uri: str) -> ServedAgent:
    """The endpoint that `endpoints:/<name>` names.

    Raises:
        ConfigurationError: if it names none, or there are no credentials for a workspace.
        AgentError: if there is no such endpoint, or it is not ready, or may not be seen.
    """
    name = uri.removeprefix(SCHEME).strip("/")
    if not uri.startswith(SCHEME) or not name or "/" in name:
        raise ConfigurationError(f"--agent {uri}: names no endpoint. Write {SCHEME}<name>.")
    workspace = open_workspace()
    with workspace_errors(f"The endpoint '{name}'", AgentError):
        endpoint = workspace.client.serving_endpoints.get(name)
    state = endpoint.state
    ready = str(getattr(getattr(state, "ready", None), "value", "READY"))
    if ready != "READY":
        raise AgentError(
            f"The endpoint '{name}' of {workspace.host} is not ready. Wait for its deployment: its events are on its "
            "page in the workspace."
        )
    return ServedAgent(
        name=name,
        url=f"{workspace.host}/serving-endpoints/{name}/invocations",
        entities=_entities(endpoint.config),
        api="chat" if endpoint.task in _CHAT_TASKS else "responses",
    )


def _entities(config: Any) -> tuple[str, ...]:
    routes = getattr(getattr(config, "traffic_config", None), "routes", None) or ()
    shares = {
        route.served_entity_name or route.served_model_name: route.traffic_percentage for route in routes
    }
    served = getattr(config, "served_entities", None) or ()
    return tuple(
        sorted(
            f"{entity.entity_name} version {entity.entity_version}, {shares.get(entity.name, 0)} %"
            for entity in served
        )
    )

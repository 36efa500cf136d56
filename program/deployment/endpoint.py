"""A serving endpoint: which versions it serves, when it is ready, why it is not, and what it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.errors import DeploymentError, WorkspaceError
from retrieval.secrets import hide_secrets
from retrieval.workspace import Workspace
from retrieval.workspace_errors import workspace_errors

if TYPE_CHECKING:
    from databricks.sdk.service.serving import ServedEntityOutput, ServingEndpointDetailed

_LONGEST_WAIT_S = 15.0
_LOG_LINES = 8
_ASKING_S = 300


@dataclass(frozen=True, slots=True)
class Served:
    """One version of a model on an endpoint, and the percentage of the requests that it gets."""

    name: str
    model: str
    version: int
    traffic: int
    state: str
    message: str
    environment: Mapping[str, str]
    workload_size: str
    scale_to_zero: bool
    instance_profile: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as it was when it was looked at. `pending` is what an update that is under way makes of it."""

    name: str
    id: str
    is_ready: bool
    update: str
    served: tuple[Served, ...] = ()
    pending: tuple[Served, ...] = ()
    tags: Mapping[str, str] | None = None

    def current(self, model: str) -> Served | None:
        """The version of the model that gets the requests."""
        return next((one for one in self.served if one.model == model and one.traffic > 0), None)

    def version(self, model: str, number: int) -> Served | None:
        """A version of the model, if it is served, with or without requests."""
        return next((one for one in self.served if (one.model, one.version) == (model, number)), None)


def look(workspace: Workspace, name: str) -> Endpoint | None:
    """The endpoint as it is now; None where there is none.

    Raises:
        WorkspaceError: if it may not be looked at, or the workspace cannot be reached.
    """
    from databricks.sdk.errors import NotFound

    with workspace_errors(f"The endpoint '{name}' cannot be looked at"):
        try:
            return _endpoint(workspace.client.serving_endpoints.get(name))
        except NotFound:
            return None


def wait_until_ready(
    workspace: Workspace, name: str, timeout_s: float, say: Callable[[str], None] = lambda _: None
) -> Endpoint:
    """The endpoint when its update is done.

    Raises:
        DeploymentError: if the update failed, with what its log says, or takes longer than this.
        WorkspaceError: as `look`.
    """
    deadline = time.monotonic() + timeout_s
    pause_s, told = 0.2, ""
    while True:
        endpoint = look(workspace, name)
        if endpoint is None:
            raise DeploymentError(f"The endpoint '{name}' was deleted while it was waited for.")
        if endpoint.update in ("UPDATE_FAILED", "UPDATE_CANCELED"):
            raise DeploymentError(_why_it_failed(workspace, endpoint))
        if endpoint.is_ready and endpoint.update == "NOT_UPDATING":
            return endpoint
        if (state := _state(endpoint)) != told:
            say(state)
            told = state
        if time.monotonic() > deadline:
            raise DeploymentError(
                f"The endpoint '{name}' is not ready after {timeout_s / 60:.2g} minutes "
                f"({state or 'no state is told'}). It may still become so: give the same command again to wait on, or "
                "raise deployment.timeout_min."
            )
        time.sleep(min(pause_s, max(0.0, deadline - time.monotonic()) + 0.01))
        pause_s = min(2 * pause_s, _LONGEST_WAIT_S)


def move_traffic(workspace: Workspace, endpoint: Endpoint, served: Served) -> None:
    """Send all requests to one of the versions that are served; the others stay, without requests.

    Raises:
        WorkspaceError: if the endpoint may not be changed, or is being updated.
    """
    update(workspace, endpoint, [(one, 100 if one.name == served.name else 0) for one in endpoint.served])


def update(workspace: Workspace, endpoint: Endpoint, shares: Sequence[tuple[Served, int]]) -> None:
    """Serve exactly these, each with its share of the requests in percent.

    Raises:
        WorkspaceError: as `move_traffic`.
    """
    from databricks.sdk.service.serving import Route, ServedEntityInput, TrafficConfig

    entities = [
        ServedEntityInput(
            name=one.name,
            entity_name=one.model,
            entity_version=str(one.version),
            environment_vars=dict(one.environment),
            workload_size=one.workload_size,
            scale_to_zero_enabled=one.scale_to_zero,
            instance_profile_arn=one.instance_profile,
        )
        for one, _ in shares
    ]
    routes = [Route(served_model_name=one.name, traffic_percentage=share) for one, share in shares]
    with workspace_errors(f"The endpoint '{endpoint.name}' cannot be changed"):
        workspace.client.serving_endpoints.update_config(
            name=endpoint.name, served_entities=entities, traffic_config=TrafficConfig(routes=routes)
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answered: the links in its text, and those that its stream told as it went."""

    text: str
    links: tuple[str, ...]
    streamed_links: tuple[str, ...]


def ask(workspace: Workspace, name: str, request: Mapping[str, Any]) -> Reply:
    """The answer of an endpoint to a request, whole and streamed.

    Raises:
        WorkspaceError: if it does not answer, or with something else than an agent's response.
    """
    import requests

    address = f"{workspace.host}/serving-endpoints/{name}/invocations"
    what = f"The endpoint '{name}' does not answer"
    with workspace_errors(what):
        whole = requests.post(address, json=request, headers=workspace.headers(), timeout=_ASKING_S)
        _raise_for(whole, what)
        body = whole.json()
        streamed = requests.post(
            address,
            json={**request, "stream": True},
            headers=workspace.headers(),
            timeout=_ASKING_S,
            stream=True,
        )
        _raise_for(streamed, what)
        lines = [line for line in streamed.iter_lines() if line.startswith(b"data: {")]
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    try:
        content = body["output"][-1]["content"][0]
        told = [event["annotation"] for event in events if event.get("type", "").endswith("annotation.added")]
    except (KeyError, IndexError, TypeError) as error:
        raise WorkspaceError(f"{what} as an agent does: {json.dumps(body)[:200]}.") from error
    links = tuple(note["url"] for note in content.get("annotations") or () if "url" in note)
    return Reply(content.get("text", ""), links, tuple(note["url"] for note in told if "url" in note))


def _raise_for(response: Any, what: str) -> None:
    if response.status_code >= 400:
        try:
            said = str(response.json()["message"])
        except (ValueError, KeyError, TypeError):
            said = response.text
        told = " ".join(hide_secrets(said).split())[:300]
        raise WorkspaceError(f"{what} (HTTP {response.status_code}): {told.rstrip('.')}.")


def _endpoint(found: ServingEndpointDetailed) -> Endpoint:
    state = found.state
    return Endpoint(
        name=str(found.name),
        id=str(found.id),
        is_ready=state is not None and state.ready is not None and state.ready.value == "READY",
        update=state.config_update.value if state and state.config_update else "NOT_UPDATING",
        served=_served(found.config),
        pending=_served(found.pending_config),
        tags={tag.key: tag.value or "" for tag in found.tags or ()},
    )


def _served(config: Any) -> tuple[Served, ...]:
    if config is None:
        return ()
    routes = (config.traffic_config.routes if config.traffic_config else None) or ()
    shares = {
        route.served_model_name or route.served_entity_name: route.traffic_percentage for route in routes
    }
    entities: Sequence[ServedEntityOutput] = config.served_entities or ()
    return tuple(
        Served(
            name=str(entity.name),
            model=str(entity.entity_name),
            version=int(entity.entity_version or 0),
            traffic=int(shares.get(entity.name) or 0),
            state=entity.state.deployment.value if entity.state and entity.state.deployment else "",
            message=(entity.state.deployment_state_message or "") if entity.state else "",
            environment=dict(entity.environment_vars or {}),
            workload_size=str(entity.workload_size or "Small"),
            scale_to_zero=bool(entity.scale_to_zero_enabled),
            instance_profile=entity.instance_profile_arn,
        )
        for entity in entities
    )


def _state(endpoint: Endpoint) -> str:
    under_way = endpoint.pending or endpoint.served
    return "; ".join(f"version {one.version}: {one.message or one.state}" for one in under_way if one.state)


def _why_it_failed(workspace: Workspace, endpoint: Endpoint) -> str:
    failed = [one for one in endpoint.pending if one.state in ("DEPLOYMENT_FAILED", "DEPLOYMENT_ABORTED")]
    told = "; ".join(f"version {one.version}: {one.message.rstrip('.')}" for one in failed if one.message)
    log = _build_log(workspace, endpoint.name, failed[0].name) if failed else ""
    current = next((one for one in endpoint.served if one.traffic > 0), None)
    still = f"Version {current.version} goes on answering. " if current else "Nothing answers there. "
    return (
        f"The update of the endpoint '{endpoint.name}' failed: {told or endpoint.update}. {still}"
        + (f"The end of its build log:\n{log}\n" if log else "")
        + "Mend it and give the same command again."
    )


def _build_log(workspace: Workspace, endpoint: str, entity: str) -> str:
    try:
        with workspace_errors("The build log cannot be read"):
            logs = workspace.client.serving_endpoints.build_logs(endpoint, entity).logs or ""
    except WorkspaceError:
        return ""  # what failed is told without it
    return hide_secrets("\n".join(f"  {line}" for line in logs.strip().splitlines()[-_LOG_LINES:]))

"""Take a deployment back: let the version before answer again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from program.deployment import endpoint as endpoints
from program.deployment.endpoint import Endpoint, Served
from program.deployment.serving_target import serving_target
from program.settings import Settings
from retrieval.errors import DeploymentError
from retrieval.workspace import Workspace, open_workspace


@dataclass(frozen=True, slots=True)
class Rollback:
    """From which version of the model on the endpoint to which. Nothing is changed yet."""

    workspace: Workspace
    endpoint: Endpoint
    model: str
    current: Served
    back_to: Served


def plan_rollback(settings: Settings, version: int | None = None) -> Rollback:
    """Back to `version`, or to the newest one before that which answers now; it must still be served.

    Raises:
        ConfigurationError: if the settings name no endpoint.
        DeploymentError: if there is no such endpoint, or nothing on it to go back to.
        WorkspaceError: if the endpoint may not be looked at.
    """
    target = serving_target(settings)
    workspace = open_workspace()
    endpoint = endpoints.look(workspace, target.endpoint)
    if endpoint is None:
        raise DeploymentError(
            f"There is no endpoint '{target.endpoint}': nothing was deployed, nothing is taken back."
        )
    current = endpoint.current(target.model)
    if current is None:
        raise DeploymentError(f"The endpoint '{target.endpoint}' serves no version of '{target.model}' yet.")
    served = sorted(
        (one for one in endpoint.served if one.model == target.model),
        key=lambda one: one.version,
        reverse=True,
    )
    if version is None:
        back_to = next((one for one in served if one.version < current.version), None)
    else:
        back_to = endpoint.version(target.model, version)
    if back_to is None or back_to.version == current.version:
        others = ", ".join(str(one.version) for one in served if one.version != current.version) or "none"
        wanted = "one before it" if version is None else f"version {version}"
        raise DeploymentError(
            f"Version {current.version} answers on '{target.endpoint}'"
            f"{'' if back_to else f', and {wanted} is not served'}. Served besides: {others}. "
            "Any registered version is served anew by: citeqa deploy serving --version N"
        )
    return Rollback(workspace, endpoint, target.model, current, back_to)


def roll_back(rollback: Rollback, timeout_s: float, say: Callable[[str], None] = lambda _: None) -> None:
    """Send all requests to the version before; the other stays where it is, without requests.

    Raises:
        WorkspaceError: if the endpoint may not be changed, or is being updated.
        DeploymentError: if the update fails or takes too long.
    """
    endpoints.move_traffic(rollback.workspace, rollback.endpoint, rollback.back_to)
    endpoints.wait_until_ready(rollback.workspace, rollback.endpoint.name, timeout_s, say)

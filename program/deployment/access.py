"""Who may ask a served agent, and who may change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from program.deployment.quiet import quiet_mlflow
from program.remote_settings import DeploymentSettings
from retrieval.workspace import Workspace
from retrieval.workspace_errors import workspace_errors

if TYPE_CHECKING:
    from databricks.sdk.service.serving import ServingEndpointAccessControlResponse

_LEVELS = ("CAN_VIEW", "CAN_QUERY", "CAN_MANAGE")
_WORDS = {"CAN_QUERY": "ask", "CAN_MANAGE": "ask and change it"}


def wanted_access(
    workspace: Workspace, endpoint_id: str | None, deployment: DeploymentSettings
) -> list[tuple[str, str]]:
    """Who lacks what they shall have of the endpoint: the name of the user or group, and a word for it.

    Raises:
        WorkspaceError: if its permissions may not be read.
    """
    return [(who, _WORDS[level]) for who, level in _lacking(workspace, endpoint_id, deployment)]


def grant(workspace: Workspace, model: str, endpoint_id: str, deployment: DeploymentSettings) -> None:
    """Give users and groups what they lack, on every endpoint of the model; nobody loses anything.

    Raises:
        WorkspaceError: if the permissions may not be changed.
        ValueError: as databricks-agents refuses.
    """
    from databricks.agents import PermissionLevel, set_permissions

    lacking = _lacking(workspace, endpoint_id, deployment)
    for level in ("CAN_QUERY", "CAN_MANAGE"):
        who = [name for name, lacked in lacking if lacked == level]
        if who:
            with workspace_errors(f"{', '.join(who)} cannot be let ask '{model}'"), quiet_mlflow():
                set_permissions(model, who, PermissionLevel[level])


def _lacking(
    workspace: Workspace, endpoint_id: str | None, deployment: DeploymentSettings
) -> list[tuple[str, str]]:
    wanted = dict.fromkeys(deployment.can_query, "CAN_QUERY") | dict.fromkeys(
        deployment.can_manage, "CAN_MANAGE"
    )
    if endpoint_id is None or not wanted:
        return list(wanted.items())
    with workspace_errors("The permissions of the endpoint cannot be read"):
        found = workspace.client.serving_endpoints.get_permissions(endpoint_id)
    held = {_name(entry): _highest(entry) for entry in found.access_control_list or ()}
    return [(who, level) for who, level in wanted.items() if held.get(who, -1) < _LEVELS.index(level)]


def _name(entry: ServingEndpointAccessControlResponse) -> str:
    return entry.user_name or entry.group_name or entry.service_principal_name or ""


def _highest(entry: ServingEndpointAccessControlResponse) -> int:
    levels = [permission.permission_level for permission in entry.all_permissions or ()]
    return max(
        (_LEVELS.index(level.value) for level in levels if level and level.value in _LEVELS), default=-1
    )

"""The double of a workspace is strict: what Databricks would refuse, it refuses, and it remembers what it lacks."""

from __future__ import annotations

import time

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from fake_workspace import FakeWorkspace


def test_the_sdk_gets_in_with_a_token_and_as_a_service_principal(workspace: FakeWorkspace) -> None:
    workspace.identity.add_service_principal("robot", "its-secret")

    as_ann = WorkspaceClient()
    as_robot = WorkspaceClient(
        host=workspace.url, client_id="robot", client_secret="its-secret", auth_type="oauth-m2m"
    )

    assert as_ann.current_user.me().user_name == "ann@example.com"
    assert as_robot.current_user.me().user_name == "robot"


def test_expired_and_unknown_tokens_are_refused(workspace: FakeWorkspace) -> None:
    stale = workspace.identity.add_token("bob", lasts_s=0.01)
    time.sleep(0.02)

    for token, reason in ((stale, "expired"), ("nobody's", "Credential")):
        with pytest.raises(DatabricksError, match=reason):
            WorkspaceClient(host=workspace.url, token=token).current_user.me()


def test_a_request_that_no_api_answers_is_remembered(workspace: FakeWorkspace) -> None:
    response = requests.get(
        f"{workspace.url}/api/2.0/nothing",
        headers={"Authorization": f"Bearer {workspace.identity.add_token('eve')}"},
    )

    assert (response.status_code, response.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert workspace.unknown == ["GET /api/2.0/nothing"]
    workspace.unknown.clear()


def test_faults_happen_as_often_as_asked(workspace: FakeWorkspace) -> None:
    workspace.fault("/scim/", status=500, times=2)
    me = f"{workspace.url}/api/2.0/preview/scim/v2/Me"
    headers = {"Authorization": f"Bearer {workspace.identity.add_token('eve')}"}

    assert [requests.get(me, headers=headers).status_code for _ in range(3)] == [500, 500, 200]

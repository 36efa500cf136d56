"""Deployed over what the workspace has: its index, its language model, and the rights of the user who asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from fake_workspace import FakeWorkspace

from program.cli import cli
from program.deployment.resources import databricks_resources
from program.deployment.serving import deploy_serving, plan_serving

ANN, INDEX, MODEL = "ann@example.com", "main.rag.passages_index", "databricks-claude"
EVEREST = "https://docs.example/everest"
ROWS = [
    {
        "chunk_id": "everest#1",
        "doc_uri": EVEREST,
        "text": "On Everest water boils at 71 degrees.",
        "title": "Everest",
        "lang": "en",
    }
]


def answer(body: Mapping[str, Any], user: str) -> str:
    fields = {"answerable": "True", "answer": "At 71 degrees [1]."}
    sections = [f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


@pytest.fixture
def databricks(workspace: FakeWorkspace) -> FakeWorkspace:
    if INDEX not in workspace.vector_search.indexes:
        workspace.vector_search.add_index(INDEX, ROWS)
        workspace.endpoints.add_chat(MODEL, answer)
    workspace.vector_search.indexes[INDEX].readers = None
    return workspace


def sections(as_user: bool = False) -> dict[str, Any]:
    return {
        "retrieval": {
            "backend": "vector_search",
            "vector_search": {"index": INDEX, "user_credentials": as_user},
        },
        "language_model": {
            "model": f"databricks/{MODEL}",
            "cache": False,
            "num_retries": 0,
            "user_credentials": as_user,
        },
    }


def logged_model(workspace: FakeWorkspace, name: str) -> Any:
    return yaml.safe_load(workspace.files.get(f"/Models/main/rag/{name}/1/MLmodel") or b"")


@pytest.mark.slow
def test_an_index_of_the_workspace_is_a_resource_and_does_not_travel(
    databricks: FakeWorkspace, models_without_code: None, deployable: Any
) -> None:
    without_model = {"retrieval": sections()["retrieval"], "reader": {"abstain_below": 0}}
    deployed = deploy_serving(plan_serving(deployable("remote", without_model)))
    assert deployed.reply is not None
    assert "71 degrees. [1]" in deployed.reply.text
    assert deployed.reply.links == deployed.reply.streamed_links == (EVEREST,)
    assert logged_model(databricks, "remote")["resources"]["databricks"] == {
        "vector_search_index": [{"name": INDEX}],
    }
    files = databricks.files.below("/Models/main/rag/remote/1")
    assert not any("index" in name.split("/") for name in files)
    requirements = files["requirements.txt"].decode()
    assert "databricks-ai-search==" in requirements
    assert "databricks-sdk==" in requirements


def test_a_model_endpoint_and_an_index_are_resources_unless_they_are_used_as_the_user(
    deployable: Any,
) -> None:
    named = [
        (type(found).__name__, found.name) for found in databricks_resources(deployable("x", sections()))
    ]
    assert named == [("DatabricksServingEndpoint", MODEL), ("DatabricksVectorSearchIndex", INDEX)]
    assert databricks_resources(deployable("x", sections(as_user=True))) == []


@pytest.mark.slow
def test_an_agent_that_acts_for_users_has_scopes_and_is_tried_as_who_deploys_it(
    databricks: FakeWorkspace, deployable: Any
) -> None:
    databricks.vector_search.indexes[INDEX].readers = {ANN}
    plan = plan_serving(deployable("for-users", sections(as_user=True), check="process"))
    assert "on behalf of the user for serving.serving-endpoints" in plan.steps["log"]
    deploy_serving(plan, wait=False)
    assert logged_model(databricks, "for-users")["auth_policy"] == {
        "system_auth_policy": {"resources": {"api_version": "1"}},
        "user_auth_policy": {
            "api_scopes": [
                "serving.serving-endpoints",
                "vectorsearch.vector-search-endpoints",
                "vectorsearch.vector-search-indexes",
            ]
        },
    }
    assert {user for user, _ in databricks.endpoints.asked(MODEL)} == {ANN}


def test_the_command_plans_deploys_and_takes_back(
    databricks: FakeWorkspace, models_without_code: None, index_path: str
) -> None:
    options = [
        *("--set", f"retrieval.index={index_path}", "--set", "tracking.uri=databricks"),
        *("--set", "tracking.experiment=/Shared/citeqa", "--set", "deployment.model=main.rag.command"),
        *("--set", "deployment.check=none", "--set", "deployment.question=When does water boil?"),
    ]
    run = CliRunner()
    planned = run.invoke(cli, ["deploy", "serving", *options, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "2. register it as version 1 of main.rag.command" in planned.output
    assert "main.rag.command" not in databricks.unity_catalog.models
    deployed = run.invoke(cli, ["deploy", "serving", *options])
    assert deployed.exit_code == 0, deployed.output
    assert "Playground  " in deployed.output
    assert "Sources: https://docs.example/water" in deployed.output
    again = run.invoke(cli, ["deploy", "serving", *options, "--dry-run"])
    assert "Nothing to do: it is deployed as configured." in again.output
    refused = run.invoke(cli, ["deploy", "rollback", *options])
    assert "one before it is not served" in str(refused.exception)
    blocked = run.invoke(
        cli, ["deploy", "serving", *options, "--set", "deployment.model=no.rag.x", "--dry-run"]
    )
    assert blocked.exit_code == 2
    assert "Stands against it: The catalog 'no' does not exist." in blocked.output

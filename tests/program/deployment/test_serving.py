"""From settings to an endpoint that answers with links, through Databricks' own clients, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
import requests
import yaml
from fake_workspace import FakeWorkspace
from mlflow.entities import SpanType, Trace

from program.deployment.registry import check_interface
from program.deployment.rollback import plan_rollback, roll_back
from program.deployment.serving import Deployed, deploy_serving, plan_serving
from program.settings import Settings
from retrieval.errors import ConfigurationError, DeploymentError, WorkspaceError

ANN = "ann@example.com"
EVEREST = "https://docs.example/mountains"


@pytest.fixture
def workspace(lasting_workspace: FakeWorkspace, models_without_code: None) -> FakeWorkspace:
    lasting_workspace.model_serving.looks_until_ready = 1
    return lasting_workspace


def deploy(settings: Settings, version: int | None = None) -> Deployed:
    return deploy_serving(plan_serving(settings, version))


def changes(workspace: FakeWorkspace, since: int) -> list[str]:
    """The requests that changed something, but for questions and their traces."""
    harmless = ("/invocations", "/search", "/traces", "/signed/")
    return [
        f"{call.method} {call.path}"
        for call in workspace.calls[since:]
        if call.method not in ("GET", "HEAD") and not any(part in call.path for part in harmless)
    ]


def test_a_plan_says_every_step_and_changes_nothing(workspace: FakeWorkspace, deployable: Any) -> None:
    before = len(workspace.calls)
    plan = plan_serving(
        deployable("planned", check="environment", can_query=("bob@example.com", "readers")),
    )
    assert plan.troubles == ()
    assert list(plan.steps) == ["log", "check", "register", "deploy", "permissions"]
    assert plan.steps["register"] == "register it as version 1 of main.rag.planned"
    assert "ask it: When does water boil on Everest?" in plan.steps["check"]
    assert plan.steps["deploy"].startswith("create the endpoint planned (Small, always on)")
    assert plan.steps["permissions"] == "let bob@example.com ask; let readers ask"
    assert changes(workspace, before) == []


def test_a_deployed_agent_answers_with_links_whole_and_streamed(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    workspace.model_serving.secrets.add(("rag", "openai"))
    deployed = deploy(
        deployable(
            "answers",
            can_query=("bob@example.com", "readers"),
            can_manage=("admins",),
            tags={"team": "docs"},
            environment={"LOG_LEVEL": "info"},
            secrets={"OPENAI_API_KEY": "rag/openai"},
            scale_to_zero=True,
            workload_size="Medium",
            usage_policy="policy-1",
            description="Answers from the documents.",
        )
    )
    assert deployed.reply is not None
    assert "On Everest it boils at 71 degrees. [1]" in deployed.reply.text
    assert EVEREST in deployed.reply.links
    assert deployed.reply.streamed_links == deployed.reply.links
    assert deployed.warnings == ()
    assert deployed.playground_url == f"{workspace.url}/ml/playground?endpointName=answers"
    assert deployed.review_app_url is not None
    assert "review" in deployed.review_app_url

    endpoint = workspace.model_serving.endpoints["answers"]
    [served] = endpoint["config"]["served_entities"]
    assert (served["entity_name"], served["entity_version"]) == ("main.rag.answers", "1")
    assert (served["workload_size"], served["scale_to_zero_enabled"]) == ("Medium", True)
    assert (
        served["environment_vars"].items()
        >= {
            "LOG_LEVEL": "info",
            "OPENAI_API_KEY": "{{secrets/rag/openai}}",
            "ENABLE_MLFLOW_TRACING": "true",
            "MLFLOW_EXPERIMENT_ID": "1",
        }.items()
    )
    assert {"key": "team", "value": "docs"} in endpoint["tags"]
    assert (endpoint["budget_policy_id"], endpoint["description"]) == (
        "policy-1",
        "Answers from the documents.",
    )
    assert endpoint["ai_gateway"]["inference_table_config"]["enabled"] is True
    held = workspace.model_serving.permissions[endpoint["id"]]
    assert {(one["permission_level"], one.get("user_name") or one.get("group_name")) for one in held} == {
        ("CAN_MANAGE", ANN),
        ("CAN_QUERY", "bob@example.com"),
        ("CAN_QUERY", "readers"),
        ("CAN_MANAGE", "admins"),
    }
    [app] = workspace.agent_deployments.review_apps
    assert "main.rag.answers" in [agent["agent_name"] for agent in app["agents"]]


def test_what_playground_shows_sources_from_is_in_trace_and_stream(
    workspace: FakeWorkspace, deployable: Any, tracing: Callable[[], Trace]
) -> None:
    deploy(deployable("playground"))
    body = {"input": [{"role": "user", "content": "When does water boil on Everest?"}]}
    headers = {"Authorization": f"Bearer {workspace.identity.add_token(ANN)}"}
    address = f"{workspace.url}/serving-endpoints/playground/invocations"

    traced = {**body, "databricks_options": {"return_trace": True}}
    answer = requests.post(address, json=traced, headers=headers).json()
    trace = Trace.from_dict(answer["databricks_output"]["trace"])
    spans = trace.search_spans(span_type=SpanType.RETRIEVER)
    assert spans[0].outputs[0]["metadata"]["doc_uri"] == EVEREST
    [schema] = json.loads(trace.info.tags["retrievers"])
    assert (schema["doc_uri"], schema["text_column"]) == ("doc_uri", "page_content")

    lines = requests.post(address, json={**body, "stream": True}, headers=headers).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    told = [e["annotation"] for e in events if e["type"] == "response.output_text.annotation.added"]
    assert next((note["type"], note["url"]) for note in told if note["url"] == EVEREST) == (
        "url_citation",
        EVEREST,
    )
    assert all(note["title"] for note in told)


def test_the_same_again_does_nothing(workspace: FakeWorkspace, deployable: Any) -> None:
    settings = deployable("same", can_query=("readers",), tags={"team": "docs"})
    deploy(settings)
    before = len(workspace.calls)
    plan = plan_serving(settings)
    assert plan.steps == {}
    assert plan.version == 1
    assert deploy_serving(plan).version == 1
    assert changes(workspace, before) == []


def test_a_change_is_a_new_version_and_a_rollback_brings_the_old_one_back(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    served = workspace.model_serving.served_versions
    deploy(deployable("changed"))
    second = plan_serving(deployable("changed", {"retrieval": {"k": 1}}))
    assert second.steps["deploy"] == "serve it on changed (Small, always on), in the place of version 1"
    assert deploy_serving(second).version == 2
    assert served("changed") == {"2": 100, "1": 0}

    back = plan_rollback(deployable("changed"))
    assert (back.current.version, back.back_to.version) == (2, 1)
    roll_back(back, timeout_s=10)
    assert served("changed") == {"2": 0, "1": 100}
    with pytest.raises(
        DeploymentError, match=r"Version 1 answers .* one before it is not served.*besides: 2"
    ):
        plan_rollback(deployable("changed"))

    again = plan_serving(deployable("changed", {"retrieval": {"k": 1}}))
    assert again.steps == {"deploy": "send all requests of changed to version 2"}
    assert deploy_serving(again).version == 2
    assert served("changed") == {"2": 100, "1": 0}


def test_only_so_many_versions_stay_on_the_endpoint(workspace: FakeWorkspace, deployable: Any) -> None:
    deploy(deployable("kept", keep_versions=1))
    deploy(deployable("kept", {"retrieval": {"k": 1}}, keep_versions=1))
    assert workspace.model_serving.served_versions("kept") == {"2": 100}
    with pytest.raises(DeploymentError, match=r"Served besides: none.*deploy serving --version N"):
        plan_rollback(deployable("kept"))
    assert deploy(deployable("kept"), version=1).version == 1
    assert workspace.model_serving.served_versions("kept") == {"1": 100, "2": 0}


def test_other_variables_and_sizes_change_the_version_that_is_served(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    deploy(deployable("resized", environment={"OLD": "1"}))
    plan = plan_serving(deployable("resized", environment={"NEW": "2"}, workload_size="Large"))
    assert list(plan.steps) == ["deploy"]
    assert plan.steps["deploy"].startswith("update the variables and the size of version 1")
    deploy_serving(plan)
    [served] = workspace.model_serving.endpoints["resized"]["config"]["served_entities"]
    assert served["workload_size"] == "Large"
    assert served["environment_vars"]["NEW"] == "2"
    assert "OLD" not in served["environment_vars"]
    assert served["environment_vars"]["MLFLOW_EXPERIMENT_ID"] == "1"


def test_an_update_that_fails_says_why_and_what_still_answers(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    deploy(deployable("failing"))
    workspace.model_serving.break_next_update(
        "Container failed: ModuleNotFoundError: No module named 'tantivy'"
    )
    with pytest.raises(DeploymentError) as failed:
        deploy(deployable("failing", {"retrieval": {"k": 1}}))
    message = str(failed.value)
    assert "version 2: Container failed: ModuleNotFoundError: No module named 'tantivy'" in message
    assert "Version 1 goes on answering" in message
    assert "Installing requirements" in message
    assert "There by now: " in message
    assert "version 2 of main.rag.failing" in message

    assert deploy(deployable("failing", {"retrieval": {"k": 1}})).version == 2
    assert workspace.model_serving.served_versions("failing") == {"2": 100, "1": 0}


def test_what_fails_half_way_goes_on_from_there(workspace: FakeWorkspace, deployable: Any) -> None:
    settings = deployable("half", {"retrieval": {"k": 2}})
    workspace.unity_catalog.models["main.rag.half"] = {"name": "main.rag.half", "aliases": []}
    workspace.unity_catalog.forbid(ANN, "CREATE_MODEL_VERSION", "main.rag.half")
    with pytest.raises(DeploymentError) as failed:
        deploy(settings)
    assert "Registering: " in str(failed.value)
    assert "CREATE MODEL VERSION" in str(failed.value)
    assert "There by now: the logged model models:/m-" in str(failed.value)
    assert "The same command goes on from there." in str(failed.value)

    workspace.unity_catalog._forbidden.clear()
    plan = plan_serving(settings)
    assert list(plan.steps) == ["register", "deploy"]
    assert deploy_serving(plan).version == 1


def test_an_endpoint_that_takes_too_long_is_waited_for_by_the_same_command(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    workspace.model_serving.looks_until_ready = 1000
    with pytest.raises(DeploymentError, match=r"not ready after .* minutes \(version 1: Building\)"):
        deploy(deployable("slow", timeout_min=0.005))
    workspace.model_serving.looks_until_ready = 1
    plan = plan_serving(deployable("slow"))
    assert "wait first" in plan.steps or plan.steps == {}
    assert deploy_serving(plan).reply is not None


def test_nothing_is_made_where_models_may_not_be_registered(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    workspace.unity_catalog.add_schema("main.closed")
    workspace.unity_catalog.forbid(ANN, "CREATE_MODEL", "main.closed")
    before = len(workspace.calls)
    plan = plan_serving(deployable("closed", model="main.closed.citeqa"))
    [trouble] = plan.troubles
    assert "GRANT USE SCHEMA, CREATE MODEL ON SCHEMA main.closed TO `ann@example.com`" in trouble
    with pytest.raises(DeploymentError, match=r"Nothing was done: ann@example\.com may not make models"):
        deploy_serving(plan)
    assert changes(workspace, before) == []


@pytest.mark.parametrize(
    ("deployment", "sections", "trouble"),
    [
        ({"model": "nowhere.rag.citeqa"}, {}, "The catalog 'nowhere' does not exist"),
        ({"model": "main.lost.citeqa"}, {}, "The schema 'main.lost' does not exist"),
        ({"secrets": {"API_KEY": "rag/none"}}, {}, "The secret rag/none does not exist"),
        ({}, {"embedder": {"model": "databricks/gone"}}, "The endpoint 'gone' does not exist"),
        (
            {},
            {"language_model": {"model": "openai/gpt-4o-mini"}},
            "no variable of the deployment looks like its key",
        ),
    ],
)
def test_what_is_missing_in_the_workspace_is_told_before_anything_is_made(
    workspace: FakeWorkspace, deployable: Any, deployment: Any, sections: Any, trouble: str
) -> None:
    workspace.model_serving.secrets.add(("rag", "openai"))
    plan = plan_serving(deployable("missing", sections, **deployment))
    assert any(trouble in found for found in plan.troubles), plan.troubles


@pytest.mark.parametrize(
    ("deployment", "sections", "message"),
    [
        ({"model": None}, {}, "deployment.model is unset"),
        ({"model": "rag.citeqa"}, {}, "three parts, catalog.schema.model"),
        ({"endpoint": "x" * 64}, {}, "64 characters, and an endpoint's name has at most 63"),
        ({"endpoint": "what?"}, {}, "letters, digits, - and _"),
        ({"environment": {"log level": "info"}}, {}, "'log level' can be no variable"),
        ({"environment": {"ENABLE_MLFLOW_TRACING": "false"}}, {}, "is set by Databricks"),
        (
            {"secrets": {"OPENAI_API_KEY": "sk-canary-0123456789"}},
            {},
            "must say where the secret is, as scope/key",
        ),
        ({}, {"tracking": {"uri": "sqlite:///mlflow.db"}}, "Set it to databricks"),
        ({}, {"tracking": {"experiment": "citeqa"}}, "such as /Shared/citeqa"),
    ],
)
def test_settings_that_cannot_be_meant_are_told_without_asking_the_workspace(
    workspace: FakeWorkspace, deployable: Any, deployment: Any, sections: Any, message: str
) -> None:
    before = len(workspace.calls)
    with pytest.raises(ConfigurationError, match=r"deployment|tracking") as error:
        plan_serving(deployable("wrong", sections, **deployment))
    assert message in str(error.value)
    assert "sk-canary" not in str(error.value)
    assert len(workspace.calls) == before


def test_a_version_that_another_mlflow_logged_is_not_deployed(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    deploy(deployable("drifted"))
    path = "/Models/main/rag/drifted/1/MLmodel"
    model = yaml.safe_load(workspace.files.get(path) or b"")
    model["mlflow_version"] = "3.1.0"
    model["signature"]["inputs"] = json.dumps(json.loads(model["signature"]["inputs"])[:1])
    workspace.files.put(path, yaml.safe_dump(model).encode())
    mlflow.set_tracking_uri("databricks")
    with pytest.raises(
        DeploymentError, match=r"logged with MLflow 3\.1\.0, .* databricks-agents would refuse it"
    ):
        check_interface("main.rag.drifted", 1)
    del workspace.model_serving.endpoints["drifted"]
    with pytest.raises(
        DeploymentError, match=r"Checking the version: Version 1 of 'main\.rag\.drifted' was logged"
    ):
        deploy(deployable("drifted"), version=1)
    with pytest.raises(ConfigurationError, match=r"There is no version 7 of 'main\.rag\.drifted', only 1"):
        plan_serving(deployable("drifted"), version=7)


def test_an_expired_token_is_told_with_the_way_in_that_was_tried(
    workspace: FakeWorkspace, deployable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = workspace.identity.add_token(ANN, token="dapi-canary-0123456789", lasts_s=0)
    monkeypatch.setenv("DATABRICKS_TOKEN", stale)
    with pytest.raises(WorkspaceError, match=r"Token is expired.*Tried: pat") as error:
        plan_serving(deployable("stale"))
    assert stale not in str(error.value)


def test_who_may_not_change_an_endpoint_is_told_what_is_there(
    workspace: FakeWorkspace, deployable: Any
) -> None:
    deploy(deployable("guarded"))
    workspace.model_serving.permissions["id-guarded"] = [{"user_name": ANN, "permission_level": "CAN_VIEW"}]
    with pytest.raises(DeploymentError, match=r"Deploying: .*CAN_MANAGE.*There by now: .*version 2 of main"):
        deploy(deployable("guarded", {"retrieval": {"k": 1}}))

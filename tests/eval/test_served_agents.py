"""An agent that is served in a workspace is scored by the traces that come with its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fake_workspace import FakeWorkspace
from mlflow.types.responses import ResponsesAgentRequest

from eval.agents import find_subject
from eval.evaluate import evaluate
from eval.served_agents import find_served
from eval.traces import collect_traces
from program.agent import CiteqaAgent
from program.settings import Settings
from retrieval.errors import AgentError, ConfigurationError, RunStoppedError

MakeSettings = Callable[..., Settings]


@pytest.fixture
def served(workspace: FakeWorkspace, make_settings: MakeSettings) -> FakeWorkspace:
    """A workspace with our agent behind the endpoint `qa`: its own answers, and the traces that it wrote of them."""
    agent = CiteqaAgent(make_settings())

    def answer(body: Mapping[str, Any], user: str) -> Mapping[str, Any]:
        with collect_traces() as collector:
            call = collector.call(agent.predict, ResponsesAgentRequest(input=body["input"]))
        response = call.value().model_dump(exclude_none=True)
        if body.get("databricks_options", {}).get("return_trace"):
            response["databricks_output"] = {"trace": json.loads(call.traces[0].to_json())}
        return response

    workspace.endpoints.add_agent("qa", answer)
    return workspace


def settings_for(make_settings: MakeSettings, uri: str = "endpoints:/qa", **agent: Any) -> Settings:
    return make_settings(evaluation={"agent": {"uri": uri, "num_retries": 0, **agent}})


def test_a_served_agent_scores_as_it_does_at_home(served: FakeWorkspace, make_settings: MakeSettings) -> None:
    here = evaluate(make_settings())
    there = evaluate(settings_for(make_settings))
    figures = ("recall@1", "recall@3", "citation_recall")
    at_home, abroad = (run.result.summary.overall.intervals for run in (here, there))
    assert [abroad[name] for name in figures] == [at_home[name] for name in figures]
    assert at_home["recall@3"].mean > 0.8
    assert {user for user, _ in served.endpoints.asked("qa")} == {"ann@example.com"}
    assert len(served.endpoints.asked("qa")) == 12


def test_each_question_is_asked_with_credentials_that_are_fresh(
    served: FakeWorkspace, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with find_subject(settings_for(make_settings)).open() as agent:
        request = ResponsesAgentRequest(input=[{"role": "user", "content": "What is steel made of?"}])
        agent(request)
        monkeypatch.setenv("DATABRICKS_TOKEN", served.identity.add_token("bob@example.com"))
        agent(request)
    assert [user for user, _ in served.endpoints.asked("qa")] == ["ann@example.com", "bob@example.com"]


def test_another_version_behind_the_name_is_another_subject(
    served: FakeWorkspace, make_settings: MakeSettings
) -> None:
    first = find_subject(settings_for(make_settings))
    assert (first.name, first.description) == (
        "qa",
        f"the endpoint qa of {served.url.removeprefix('http://')}",
    )
    for version in ("1", "2"):
        served.model_serving.endpoints["qa"]["config"] = {
            "served_entities": [
                {"name": f"qa-{version}", "entity_name": "main.rag.qa", "entity_version": version}
            ],
            "routes": [{"served_model_name": f"qa-{version}", "traffic_percentage": 100}],
        }
        assert find_served("endpoints:/qa").entities == (f"main.rag.qa version {version}, 100 %",)
        assert find_subject(settings_for(make_settings)).identity != first.identity


def test_a_chat_agent_is_asked_as_one(served: FakeWorkspace) -> None:
    served.model_serving.endpoints["qa"]["task"] = "agent/v2/chat"
    assert find_served("endpoints:/qa").api == "chat"


@pytest.mark.parametrize("uri", ["endpoints:/", "endpoints:/a/b", "endpoints:qa"])
def test_an_address_that_names_no_endpoint_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no endpoint\. Write endpoints:/<name>"):
        find_served(uri)


def test_an_endpoint_that_is_not_there_or_not_ready_is_told_before_anything_is_asked(
    served: FakeWorkspace,
) -> None:
    with pytest.raises(AgentError, match=r"The endpoint 'nowhere': .*not exist.*Check the name"):
        find_served("endpoints:/nowhere")
    served.model_serving.endpoints["qa"]["state"]["ready"] = "NOT_READY"
    with pytest.raises(AgentError, match=r"'qa' .* is not ready"):
        find_served("endpoints:/qa")


def test_who_may_not_ask_it_is_told_what_is_missing(
    served: FakeWorkspace, make_settings: MakeSettings
) -> None:
    served.endpoints.add_agent("private", lambda body, user: {}, can_query={"bob@example.com"})
    with pytest.raises(RunStoppedError, match="needs CAN_QUERY on the endpoint"):
        evaluate(settings_for(make_settings, "endpoints:/private"))

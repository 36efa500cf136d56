"""Language models behind a workspace's endpoints: one engine, whole, streamed and interleaved, with fresh tokens."""

from __future__ import annotations

import asyncio
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import dspy
import pytest
from databricks.sdk import WorkspaceClient
from fake_workspace import FakeWorkspace

from program.databricks_models import DatabricksEngine
from program.language_models import build_lm
from program.lm_errors import describe_lm_error
from program.settings import LanguageModelSettings
from program.streaming import listening
from retrieval.errors import ConfigurationError
from retrieval.workspace import asking_for


@pytest.fixture
def endpoint(workspace: FakeWorkspace) -> Iterator[FakeWorkspace]:
    """A workspace with the chat model `llm`, which greets whoever asks."""
    workspace.endpoints.add_chat("llm", lambda body, user: f"Good morning, {user}. How are you?")
    return workspace


def model(name: str = "llm", **more: Any) -> dspy.LM:
    return build_lm(LanguageModelSettings(model=f"databricks/{name}", cache=False, num_retries=0, **more))


def test_a_whole_call_sends_databricks_own_fields_with_the_workspaces_token(endpoint: FakeWorkspace) -> None:
    assert model(temperature=0.5, max_tokens=77)("Hi") == ["Good morning, ann@example.com. How are you?"]
    [(user, body)] = endpoint.endpoints.asked("llm")
    messages = [{"role": "user", "content": "Hi"}]
    assert user == "ann@example.com"
    assert body == {"model": "llm", "messages": messages, "temperature": 0.5, "max_tokens": 77}


def test_a_streamed_call_is_heard_piece_by_piece_and_counts_its_tokens(endpoint: FakeWorkspace) -> None:
    heard: list[str] = []
    with listening(heard.append), dspy.track_usage() as usage:
        [said] = model()("Hi")
    assert "".join(heard) == said == "Good morning, ann@example.com. How are you?"
    assert len(heard) > 3
    assert endpoint.endpoints.asked("llm")[0][1]["stream"] is True
    assert usage.get_total_tokens()["databricks/llm"]["total_tokens"] == 18


def test_nothing_is_opened_before_the_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    assert isinstance(model()._engine_spec._inner, DatabricksEngine)


def test_every_call_bears_a_token_that_is_fresh(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "secret-of-the-robot")
    endpoint.identity.add_service_principal("robot", "secret-of-the-robot")
    endpoint.identity.token_lifetime_s = 1.0
    lm = model()
    lm("Hi")
    threading.Event().wait(1.1)
    lm("Hi")
    with listening(lambda text: None):
        lm("Hi")
    calls = endpoint.calls_of("/serving-endpoints/chat/completions")
    assert [call.status for call in calls] == [200, 200, 200]
    assert calls[0].headers["authorization"] != calls[1].headers["authorization"]


def test_the_token_of_the_environment_is_read_at_each_call(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = model()
    assert "ann" in lm("Hi")[0]
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoint.identity.add_token("bob@example.com"))
    assert "bob" in lm("Hi")[0]


def test_on_behalf_of_interleaved_users_each_call_bears_the_token_of_its_own(endpoint: FakeWorkspace) -> None:
    lm = model(user_credentials=True)
    tokens = {f"user{number}": endpoint.identity.add_token(f"user{number}") for number in range(8)}
    together = threading.Barrier(len(tokens))

    def ask(user: str) -> set[str]:
        heard: list[str] = []
        with asking_for(tokens[user]):
            together.wait(5)
            whole = [copy_context().run(lm, "Hi")[0] for _ in range(3)]
            with listening(heard.append):
                lm("Hi")
        return {*whole, "".join(heard)}

    with ThreadPoolExecutor(len(tokens)) as pool:
        answers = list(pool.map(ask, tokens))
    assert answers == [{f"Good morning, {user}. How are you?"} for user in tokens]


def test_an_address_of_its_own_is_asked_with_the_workspaces_token(endpoint: FakeWorkspace) -> None:
    assert "ann" in model(api_base=f"{endpoint.url}/serving-endpoints")("Hi")[0]


def test_litellms_variables_go_on_working_without_a_workspace(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_API_BASE", f"{endpoint.url}/serving-endpoints")
    monkeypatch.setenv("DATABRICKS_API_KEY", endpoint.identity.add_token("carl@example.com"))
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    assert "carl" in model()("Hi")[0]


def test_only_a_workspace_can_be_asked_as_the_user() -> None:
    settings = LanguageModelSettings(model="openai/gpt-4o-mini", user_credentials=True)
    with pytest.raises(
        ConfigurationError, match=r"language_model\.user_credentials: .* 'openai/gpt-4o-mini' is none"
    ):
        build_lm(settings)


def told(lm: dspy.LM) -> str:
    with pytest.raises(dspy.LMError) as caught:
        lm("Hi")
    return describe_lm_error(caught.value)


def test_a_refused_token_says_what_was_tried(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary-0123456789")
    assert told(model()) == (
        "The language model 'databricks/llm' failed: Credential was not sent or was of an unsupported type for this "
        "API (UNAUTHENTICATED). Tried: pat (DATABRICKS_TOKEN). Renew the token, or sign in with `databricks auth "
        "login`; `databricks auth describe` shows what is used."
    )


def test_without_credentials_the_ways_in_are_told(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    assert "No way into a Databricks workspace" in (said := told(model()))
    assert "DATABRICKS_CLIENT_ID" in said


def test_as_the_user_nobody_is_asked_for_when_no_token_came(endpoint: FakeWorkspace) -> None:
    assert "no user's token came with the question" in told(model(user_credentials=True))
    assert endpoint.endpoints.asked("llm") == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 400, "code": "BAD_REQUEST", "message": "too long"}, r"too long \(BAD_REQUEST\)\.$"),
        ({"status": 429, "code": "REQUEST_LIMIT_EXCEEDED", "message": "busy"}, "busy .*Wait, or raise"),
        ({"status": 503, "code": "TEMPORARILY_UNAVAILABLE", "message": "away"}, "away"),
        ({"truncate_at": 30}, "."),
        ({"refuse": True}, "Check language_model.api_base and the network"),
    ],
    ids=["400", "429", "503", "truncated", "closed"],
)
def test_what_the_workspace_says_of_a_failure_is_passed_on(
    endpoint: FakeWorkspace, fault: dict[str, Any], said: str
) -> None:
    endpoint.fault("chat/completions", **fault)
    assert re.search(said, told(model()))


def test_what_the_caller_may_not_ask_or_does_not_exist_is_told(endpoint: FakeWorkspace) -> None:
    endpoint.endpoints.add_chat("private", lambda body, user: "", can_query={"bob@example.com"})
    assert "You do not have CAN_QUERY on the endpoint 'private'" in told(model("private"))
    assert "The endpoint 'nowhere' does not exist" in told(model("nowhere"))


@pytest.fixture
def databricks_lm(endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Databricks' own class, with a client of the workspace, of which the environment says nothing."""
    databricks_dspy = pytest.importorskip("databricks_dspy")
    client = WorkspaceClient(host=endpoint.url, token=endpoint.identity.add_token("ann@example.com"))
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    return databricks_dspy.DatabricksLM("databricks/llm", workspace_client=client, cache=False, num_retries=0)


@pytest.fixture
def deprecations_pass() -> Iterator[None]:
    """Databricks' class is made by an interface that DSPy 3.5 removes, and DSPy says so at each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("deprecations_pass")
def test_databricks_own_class_signs_in_where_it_is_not_awaited(
    endpoint: FakeWorkspace, databricks_lm: Any
) -> None:
    assert databricks_lm("Hi") == ["Good morning, ann@example.com. How are you?"]


@pytest.mark.slow
@pytest.mark.usefixtures("deprecations_pass")
def test_upstream_defect_databricks_own_class_sends_no_credentials_when_it_is_awaited(
    endpoint: FakeWorkspace, databricks_lm: Any
) -> None:
    """When this fails, databricks-dspy is mended: see the head of program/databricks_models.py."""
    with pytest.raises(dspy.LMError, match="cannot configure default credentials"):
        asyncio.run(databricks_lm.acall("Hi"))
    assert endpoint.endpoints.asked("llm") == []

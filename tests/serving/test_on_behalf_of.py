"""On behalf of the user who asks: what a server asks for one user bears that user's token, and no other's."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fake_workspace import FakeWorkspace
from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CiteqaAgent
from program.settings import Settings

AT_ONCE = 16
HEADER = "x-forwarded-access-token"


@pytest.fixture
def tracing_off() -> None:
    """Here it stays on: no token may be in a trace."""


@pytest.fixture
def settings(workspace: FakeWorkspace, make_settings: Callable[..., Settings]) -> Settings:
    """Our program, with a language model in the workspace that is asked as the user, and says who that is."""

    def answer(body: Any, user: str) -> str:
        return f"[[ ## answer ## ]]\nHello {user}.\n\n[[ ## answerable ## ]]\nTrue\n\n[[ ## completed ## ]]"

    workspace.endpoints.add_chat("llm", answer)
    model = {"model": "databricks/llm", "user_credentials": True, "cache": False, "num_retries": 0}
    return make_settings(None, language_model=model, reader={"kind": "lm"})


@pytest.fixture
def tokens(workspace: FakeWorkspace) -> dict[str, str]:
    """Users, and their tokens."""
    users = [f"user-{number:02}" for number in range(AT_ONCE)]
    return {user: workspace.identity.add_token(user, f"canary-of-{user}") for user in users}


def ask(server: Any, token: str, *, stream: bool) -> str:
    headers = {HEADER: token}
    if not stream:
        return str(server.ask(headers=headers).json()["output"][0]["content"][0]["text"])
    events = server.events(headers=headers)
    return "".join(event.data["delta"] for event in events[:-1] if event.type.endswith("text.delta"))


def test_interleaved_users_of_a_server_are_never_mixed(
    traced: Any, settings: Settings, tokens: dict[str, str]
) -> None:
    server = traced.serve(settings, serving={"max_concurrent": AT_ONCE})

    def ask_often(user: str) -> set[str]:
        return {ask(server, tokens[user], stream=bool(number % 2)) for number in range(6)}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask_often, tokens))
    assert answers == [{f"Hello {user}."} for user in tokens]


def test_a_question_without_the_users_token_is_told_so_and_asks_nothing(
    traced: Any, settings: Settings, workspace: FakeWorkspace
) -> None:
    response = traced.serve(settings).ask()
    assert response.status_code >= 400
    assert HEADER in response.json()["error"]["message"]
    assert workspace.endpoints.asked("llm") == []


def test_neither_the_trace_nor_the_answer_holds_a_users_token(
    traced: Any, settings: Settings, tokens: dict[str, str]
) -> None:
    server = traced.serve(settings)
    before = set(traced.store.ids())
    said = server.ask(headers={HEADER: tokens["user-00"]})
    refused = server.ask(headers={HEADER: "canary-of-nobody"})
    assert (said.status_code, refused.status_code) == (200, 502)
    assert "Tried: the token of the user who asks" in refused.text
    while len(new := set(traced.store.ids()) - before) < 2:
        threading.Event().wait(0.05)
    traces = " ".join(traced.store.trace(trace_id).to_json() for trace_id in new)
    assert "Hello user-00" in traces
    assert "canary" not in traces + said.text + refused.text


def test_on_model_serving_interleaved_streams_keep_the_token_of_whoever_began_them(
    settings: Settings, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = CiteqaAgent(settings)
    monkeypatch.setenv("IS_IN_DB_MODEL_SERVING_ENV", "true")
    holder = threading.main_thread().__dict__
    streams = []
    request = ResponsesAgentRequest(input=[{"role": "user", "content": "When does water boil?"}])
    for user in ("user-00", "user-01", "user-02"):
        monkeypatch.setitem(holder, "invokers_token", tokens[user])
        stream = agent.predict_stream(request)
        streams.append((user, [next(stream)], stream))
    for _, said, stream in reversed(streams):
        said.extend(stream)
    for user, said, _ in streams:
        [text] = re.findall(r"Hello [\w-]+\.", str(said[-1].model_dump()))[:1]
        assert text == f"Hello {user}."

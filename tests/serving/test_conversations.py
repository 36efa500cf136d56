"""Conversations that are kept, over HTTP: going on with one, whose they are, and having them forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CitingAgent
from program.citations import cite
from program.memory.opening import open_store
from program.memory.remembering import Memory
from program.remote_settings import MemorySettings
from program.serving.asking_user import ask_as
from program.types import CitedAnswer, Emit, Turn

MakeServer = Callable[..., Any]
Serve = Callable[..., Any]


def echo(turn: Turn, emit: Emit | None = None) -> CitedAnswer:
    said = " | ".join([*(message.text for message in turn.history), turn.question])
    return cite([said], (), reader="echo", query=turn.question, emit=emit)


@pytest.fixture
def serve_remembering(serve: MakeServer, tmp_path: Path) -> Iterator[Serve]:
    """Makes servers, replicas of each other, that keep conversations in one file."""
    store = open_store(MemorySettings(store=f"sqlite:///{tmp_path}/memory.db"))
    assert store is not None

    def serve_remembering(**more: Any) -> Any:
        return serve(more.pop("answerer", echo), agent=CitingAgent(echo, Memory(store, 20)), **more)

    yield serve_remembering
    store.close()


def text(response: Any) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["output"][0]["content"][0]["text"])


def context(conversation: str, user: str | None = None) -> dict[str, Any]:
    return {"context": {"conversation_id": conversation, **({"user_id": user} if user else {})}}


def test_another_replica_goes_on_with_a_conversation(serve_remembering: Serve) -> None:
    first, second = serve_remembering(), serve_remembering()

    first.ask("one", **context("c", "ann"))
    response = second.ask("two", **context("c", "ann"))

    assert text(response) == "one | one | two"
    assert response.json()["custom_outputs"]["memory"] == {"recalled_messages": 2, "kept": True}


def test_a_streamed_answer_is_part_of_it(serve_remembering: Serve) -> None:
    server = serve_remembering()

    server.events("one", **context("c"))

    assert text(server.ask("two", **context("c"))) == "one | one | two"


def test_interleaved_users_never_hear_each_other(serve_remembering: Serve) -> None:
    server = serve_remembering()
    for n in range(3):
        for user in ("ann", "bob"):
            said = text(server.ask(f"{user} {n}", **context("c", user)))
            assert ("bob" if user == "ann" else "ann") not in said


def test_conversations_are_shown_and_forgotten(serve_remembering: Serve) -> None:
    server = serve_remembering()
    for name in ("a", "b/2"):
        server.ask("one", **context(name, "ann"))
    server.ask("one", **context("a", "bob"))

    listed = server.client.get("/api/conversations", params={"user_id": "ann"}).json()["conversations"]
    assert {one["id"]: one["messages"] for one in listed} == {"a": 2, "b/2": 2}
    shown = server.client.get("/api/conversations/b/2", params={"user_id": "ann"}).json()
    assert shown["messages"] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "one"}]

    assert server.client.delete("/api/conversations/a", params={"user_id": "ann"}).json() == {"deleted": 1}
    gone = server.client.delete("/api/conversations/a", params={"user_id": "ann"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "conversation_unknown")
    assert server.client.delete("/api/conversations", params={"user_id": "ann"}).json() == {"deleted": 1}
    assert server.client.get("/api/conversations/a", params={"user_id": "bob"}).status_code == 200


def test_what_is_nobodys_is_found_by_its_id_and_never_listed(serve_remembering: Serve) -> None:
    server = serve_remembering()
    server.ask("one", **context("an-id-that-nobody-guesses"))

    for method in ("GET", "DELETE"):
        refused = server.client.request(method, "/api/conversations")
        assert (refused.status_code, refused.json()["message"][:8]) == (400, "user_id:")
    assert server.client.get("/api/conversations/an-id-that-nobody-guesses").status_code == 200
    assert server.client.delete("/api/conversations/an-id-that-nobody-guesses").json() == {"deleted": 1}


def test_where_a_proxy_says_who_asks_nobody_passes_for_somebody_else(serve_remembering: Serve) -> None:
    server = serve_remembering(user_header="x-forwarded-email")
    ann, bob = ({"x-forwarded-email": f"{name}@example.com"} for name in ("ann", "bob"))
    server.ask("a secret", headers=ann, **context("c"))

    asked = server.ask(
        "tell", headers=bob, custom_inputs={"user_id": "ann@example.com"}, **context("c", "ann@example.com")
    )
    assert text(asked) == "tell"
    claim = {"user_id": "ann@example.com"}
    assert "a secret" not in server.client.get("/api/conversations/c", params=claim, headers=bob).text
    assert server.client.delete("/api/conversations", params=claim, headers=bob).json() == {"deleted": 1}
    assert text(server.ask("tell", headers=ann, **context("c"))) == "a secret | a secret | tell"


@pytest.mark.parametrize("path", ["/responses", "/api/conversations", "/api/conversations/c"])
def test_without_the_header_of_the_proxy_it_is_nobodys_turn(serve_remembering: Serve, path: str) -> None:
    server = serve_remembering(user_header="x-forwarded-email")

    if path == "/responses":
        response = server.ask("tell", **context("c", "ann"))
    else:
        response = server.client.get(path, params={"user_id": "ann"})

    assert (response.status_code, response.json()["error"]["code"]) == (401, "user_unknown")
    assert "x-forwarded-email" in response.json()["message"]


def test_without_a_store_there_is_nothing_to_see(serve: MakeServer) -> None:
    assert serve(echo).client.get("/api/conversations", params={"user_id": "ann"}).status_code == 404


def test_a_request_of_a_user_keeps_what_else_it_says() -> None:
    asked = ResponsesAgentRequest(
        input=[{"role": "user", "content": "Hi."}],
        context={"conversation_id": "c", "user_id": "bob"},
        custom_inputs={"user_id": "bob", "k": 3},
    )

    said = ask_as(asked, "ann")

    assert said.context is not None
    assert (said.context.conversation_id, said.context.user_id) == ("c", "ann")
    assert said.custom_inputs == {"k": 3}
    assert (
        ask_as(said.model_copy(update={"context": None, "custom_inputs": None}), "ann").custom_inputs is None
    )

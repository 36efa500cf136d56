"""The agentic program with what a workspace has: a model that is served there, its tools, and a Vector Search index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fake_workspace import FakeWorkspace

from program.assembly import build_program
from program.retrievers import open_retriever
from program.settings import Settings, validate_settings
from program.types import Piece, ToolCall, Turn
from retrieval.asking_user import asking_for
from retrieval.errors import LanguageModelError, RetrievalError

INDEX, MODEL = "main.rag.passages_index", "databricks-claude-sonnet-4-5"
QUESTION = "When does water boil, and when does iron melt?"
PAGES = {
    "water": "Water boils at 100 degrees at sea level.",
    "iron": "Iron melts at 1538 degrees.",
    "tea": "Tea is made with hot water.",
}


def model(body: Mapping[str, Any], user: str) -> str | dict[str, Any]:
    """It searches for both things at once, by function calling where tools are offered, and cites both."""
    if "`answerable`" in body["messages"][0]["content"]:
        return chat({"answerable": "True", "answer": "At 100 degrees [1], at 1538 [2]."})
    begun = "search(" in body["messages"][-1]["content"]
    queries = [] if begun else ["water boils", "iron melts"]
    if "tools" in body:
        calls = [("search", {"query": query}) for query in queries] or [("finish", {})]
        return {"content": None, "tool_calls": [as_call(n, *call) for n, call in enumerate(calls)]}
    wanted = [{"name": "search", "args": {"query": query}} for query in queries]
    return chat({"next_thought": "Both.", "tool_calls": json.dumps(wanted)})


def chat(fields: dict[str, Any]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())


def as_call(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{number}", "type": "function", "function": function}


@pytest.fixture
def databricks(workspace: FakeWorkspace) -> FakeWorkspace:
    rows = [
        {
            "chunk_id": f"{name}#1",
            "doc_uri": f"https://docs.example/{name}",
            "text": text,
            "title": name.title(),
            "lang": "en",
        }
        for name, text in PAGES.items()
    ]
    workspace.vector_search.add_index(INDEX, rows)
    workspace.endpoints.add_chat(MODEL, model)
    return workspace


def settings(tool_calls: str = "text", **vector_search: Any) -> Settings:
    as_user = vector_search.get("user_credentials", False)
    values = {
        "retrieval": {
            "backend": "vector_search",
            "k": 1,
            "vector_search": {"index": INDEX, **vector_search},
        },
        "language_model": {
            "model": f"databricks/{MODEL}",
            "cache": False,
            "num_retries": 0,
            "user_credentials": as_user,
        },
        "program": {"kind": "react", "tool_calls": tool_calls},
    }
    return validate_settings([("test", values)])


@pytest.mark.parametrize("tool_calls", ["text", "native"])
def test_it_searches_the_index_as_often_as_the_model_wants_and_streams_what_it_cites(
    databricks: FakeWorkspace, tool_calls: str
) -> None:
    configured = settings(tool_calls)
    pieces: list[Piece] = []
    answer = build_program(configured, open_retriever(configured)).respond(Turn(QUESTION), pieces.append)
    assert [piece.arguments["query"] for piece in pieces if isinstance(piece, ToolCall)] == [
        "water boils",
        "iron melts",
    ]
    assert answer.cited_uris == ["https://docs.example/water", "https://docs.example/iron"]
    assert len([piece for piece in pieces if isinstance(piece, str)]) > 3
    asked = [body for _, body in databricks.endpoints.asked(MODEL)]
    assert [bool(body.get("tools")) for body in asked] == [tool_calls == "native"] * 2 + [False]
    assert [bool(body.get("stream")) for body in asked] == [False, False, True]


def test_every_search_and_every_decision_is_the_users_who_asks(databricks: FakeWorkspace) -> None:
    databricks.vector_search.indexes[INDEX].readers = {"bob@example.com"}
    configured = settings(user_credentials=True)
    program = build_program(configured, open_retriever(configured))
    with asking_for(databricks.identity.add_token("bob@example.com")):
        assert program.respond(Turn(QUESTION)).citations
    assert {user for user, _ in databricks.endpoints.asked(MODEL)} == {"bob@example.com"}
    with (
        asking_for(databricks.identity.add_token("eve@example.com")),
        pytest.raises(RetrievalError, match=r"eve@example\.com does not have SELECT"),
    ):
        program.respond(Turn(QUESTION))


def test_a_model_that_may_not_be_asked_is_the_failure_of_the_answer(databricks: FakeWorkspace) -> None:
    databricks.endpoints.add_chat(MODEL, model, can_query={"bob@example.com"})
    configured = settings()
    program = build_program(configured, open_retriever(configured))
    with pytest.raises(LanguageModelError):
        program.respond(Turn(QUESTION))

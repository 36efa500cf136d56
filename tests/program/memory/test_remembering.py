from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CiteqaAgent, CitingAgent
from program.citations import cite
from program.memory.opening import open_store
from program.memory.remembering import Memory
from program.remote_settings import MemorySettings
from program.settings import validate_settings
from program.types import CitedAnswer, Emit, Turn
from retrieval.errors import LanguageModelError, RequestError, StorageError
from retrieval.local_index import LocalIndex
from retrieval.types import Document


class Listener:
    """An answerer that notes each turn, and says how many messages came before it."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.fails = False

    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        self.turns.append(turn)
        if self.fails:
            raise LanguageModelError("the model went away")
        return cite([f"after {len(turn.history)}"], (), reader="listener", query=turn.question, emit=emit)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    store = open_store(MemorySettings(store=f"sqlite:///{tmp_path}/memory.db"))
    assert store is not None
    yield Memory(store, 4)
    store.close()


@pytest.fixture
def agent(listener: Listener, memory: Memory) -> CitingAgent:
    return CitingAgent(listener, memory)


def request(*texts: str, **context: str) -> ResponsesAgentRequest:
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return ResponsesAgentRequest(input=messages, context=context or None)


def heard(listener: Listener) -> list[str]:
    return [message.text for message in listener.turns[-1].history]


def test_an_id_is_enough_to_go_on(agent: CitingAgent, listener: Listener) -> None:
    first = agent.predict(request("When?", conversation_id="c", user_id="ann"))
    second = agent.predict(request("And where?", conversation_id="c", user_id="ann"))

    assert heard(listener) == ["When?", "after 0"]
    assert first.custom_outputs is not None
    assert first.custom_outputs["memory"] == {"recalled_messages": 0, "kept": True}
    assert second.custom_outputs is not None
    assert second.custom_outputs["memory"] == {"recalled_messages": 2, "kept": True}


def test_streamed_answers_are_kept_when_they_are_finished(agent: CitingAgent, listener: Listener) -> None:
    events = list(agent.predict_stream(request("When?", conversation_id="c")))
    agent.predict(request("And where?", conversation_id="c"))

    assert events[-1].model_dump()["custom_outputs"]["memory"]["kept"] is True
    assert heard(listener) == ["When?", "after 0"]


def test_no_user_hears_what_another_said(agent: CitingAgent, listener: Listener) -> None:
    agent.predict(request("A secret.", conversation_id="c", user_id="ann"))
    for user in ({"user_id": "bob"}, {}):
        agent.predict(request("What was it?", conversation_id="c", **user))
        assert heard(listener) == []


def test_without_an_id_nothing_is_kept(agent: CitingAgent, memory: Memory) -> None:
    answer = agent.predict(request("When?", user_id="ann"))

    assert memory.store.conversations() == []
    assert answer.custom_outputs is not None
    assert "memory" not in answer.custom_outputs


def test_without_a_store_an_id_changes_nothing(listener: Listener) -> None:
    agent = CitingAgent(listener)
    for _ in range(2):
        agent.predict(request("When?", conversation_id="c"))

    assert heard(listener) == []


def test_what_a_request_brings_is_the_conversation(agent: CitingAgent, listener: Listener) -> None:
    agent.predict(request("When?", conversation_id="c"))
    agent.predict(request("Edited?", "Said so.", "And then?", conversation_id="c"))
    assert heard(listener) == ["Edited?", "Said so."]

    agent.predict(request("Go on.", conversation_id="c"))
    assert heard(listener) == ["Edited?", "Said so.", "And then?", "after 2"]


def test_only_the_latest_messages_are_recalled(
    agent: CitingAgent, listener: Listener, memory: Memory
) -> None:
    for n in range(5):
        agent.predict(request(f"question {n}", conversation_id="c"))

    assert heard(listener) == ["question 2", "after 4", "question 3", "after 4"]
    assert memory.store.conversations()[0].messages == 10


def test_a_question_that_was_not_answered_is_not_kept(
    agent: CitingAgent, listener: Listener, memory: Memory
) -> None:
    listener.fails = True
    with pytest.raises(LanguageModelError):
        agent.predict(request("When?", conversation_id="c"))

    assert memory.store.conversations() == []


def test_an_answer_whose_reader_left_is_not_kept(agent: CitingAgent, memory: Memory) -> None:
    stream = agent.predict_stream(request("When?", conversation_id="c"))
    stream.close()

    assert memory.store.conversations() == []


def test_an_answer_that_cannot_be_kept_is_given_and_says_so(
    agent: CitingAgent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent.predict(request("When?", conversation_id="c"))
    with sqlite3.connect(tmp_path / "memory.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    other.close()

    answer = agent.predict(request("And where?", conversation_id="c"))

    assert answer.custom_outputs is not None
    assert answer.custom_outputs["memory"] == {"recalled_messages": 2, "kept": False}
    assert "disk full" in caplog.text


def test_a_conversation_that_cannot_be_read_is_an_error_not_another_conversation(
    agent: CitingAgent, memory: Memory
) -> None:
    memory.store.close()

    with pytest.raises(StorageError, match="cannot be used"):
        agent.predict(request("And where?", conversation_id="c"))


@pytest.mark.parametrize(
    "context", [{"conversation_id": "c" * 300}, {"conversation_id": "c", "user_id": "u" * 300}]
)
def test_a_name_that_is_too_long_is_refused(agent: CitingAgent, context: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="longer than 256 characters"):
        agent.predict(request("When?", **context))


def test_our_agent_takes_its_memory_from_the_settings(tmp_path: Path) -> None:
    LocalIndex.build(tmp_path / "index", [Document("u/water", "Water boils at 100 degrees.", "Water")])
    values: dict[str, Any] = {
        "retrieval": {"index": str(tmp_path / "index")},
        "memory": {"store": f"sqlite:///{tmp_path}/memory.db"},
    }
    agent = CiteqaAgent(validate_settings([("test", values)]))

    agent.predict(request("When does water boil?", conversation_id="c"))
    answer = agent.predict(request("At how many degrees?", conversation_id="c"))

    assert answer.custom_outputs is not None
    assert answer.custom_outputs["query"] == "When does water boil?\nAt how many degrees?"
    assert agent.memory is not None
    agent.memory.store.close()

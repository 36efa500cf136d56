"""Many conversations at once: each answer holds what was said in its own, and nothing of any other."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from program.settings import Settings

AT_ONCE = 32
CANARY = re.compile(r"canary-\d{4}-[abc]")


@pytest.fixture
def tracing_off() -> None:
    """Here it stays on: each trace must hold its own conversation, too."""


def conversation(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"canary-{number:04}-a"},
        {"role": "assistant", "content": f"canary-{number:04}-b"},
        {"role": "user", "content": f"canary-{number:04}-c"},
    ]


def ask(server: Any, number: int) -> str:
    """What is said in the conversation of this number, half of them streamed; checked against its parts."""
    if number % 2:
        events = server.events(conversation(number))
        said = "".join(event.data["delta"] for event in events[:-1] if event.type.endswith("text.delta"))
        response = events[-2].data["response"]
        assert response["output"][0]["content"][0]["text"] == said
    else:
        response = server.ask(conversation(number)).json()
    assert set(CANARY.findall(str(response))) <= {f"canary-{number:04}-{part}" for part in "abc"}
    text: str = response["output"][0]["content"][0]["text"]
    return text


@pytest.mark.slow
def test_a_thousand_conversations_through_the_server_do_not_mix(traced: Any, answerer: Any) -> None:
    def answer(turn: Any, emit: Any = None) -> Any:
        everything = " ".join([*(message.text for message in turn.history), turn.question])
        return answerer(type(turn)(everything), emit)

    server = traced.serve(answer, serving={"max_concurrent": AT_ONCE})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: ask(server, number), range(1000)))
    for number, text in enumerate(answers):
        assert text == f"canary-{number:04}-a canary-{number:04}-b canary-{number:04}-c said [1]."


def test_two_hundred_conversations_through_our_program_and_a_model_do_not_mix(
    traced: Any, make_settings: Callable[..., Settings], language_model: Any
) -> None:
    def compute(body: dict[str, Any]) -> str:
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        heard = " ".join(sorted(set(CANARY.findall(prompt))))
        if "standalone_question" in prompt:
            return f"[[ ## standalone_question ## ]]\n{heard}\n\n[[ ## completed ## ]]"
        return f"[[ ## answer ## ]]\nheard {heard}\n\n[[ ## answerable ## ]]\nTrue\n\n[[ ## completed ## ]]"

    language_model.computes(compute, chunk=20)
    server = traced.serve(make_settings(language_model), serving={"max_concurrent": AT_ONCE})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: ask(server, number), range(200)))
    for number, text in enumerate(answers):
        assert text == f"heard canary-{number:04}-a canary-{number:04}-b canary-{number:04}-c"


def test_each_trace_holds_its_own_conversation_alone(traced: Any) -> None:
    server = traced.serve(serving={"max_concurrent": AT_ONCE})

    def trace_of(number: int) -> str:
        body = server.ask(conversation(number), headers={"x-mlflow-return-trace-id": "true"}).json()
        return str(body["metadata"]["trace_id"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        trace_ids = list(pool.map(trace_of, range(64)))
    for number, trace_id in enumerate(trace_ids):
        assert traced.recorder.wait_for(trace_id, 60)
        trace = traced.store.trace(trace_id)
        assert {canary[7:11] for canary in CANARY.findall(trace.to_json())} == {f"{number:04}"}
        assert len(trace.data.spans) == 2

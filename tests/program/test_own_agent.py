"""The example in docs/own-agent.md, run as it stands there."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, Trace

from program.agent import CitingAgent

PAGE = Path(__file__).parents[2] / "docs" / "own-agent.md"
REQUEST = {
    "input": [
        {"role": "user", "content": "What of mountains?"},
        {"role": "assistant", "content": "They are high."},
        {"role": "user", "content": "When does water boil?"},
    ]
}


@pytest.fixture
def agent(
    index_path: str, tmp_path: Path, language_model: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CitingAgent]:
    """What the page's code makes, in a directory that has an index, with a model to ask."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "index").symlink_to(index_path)
    monkeypatch.setenv("OPENAI_BASE_URL", language_model.url)
    (tmp_path / "my_agent.py").write_text(code_on_page()[0], encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "my_agent.py"))
    yield names["agent"]
    names["client"].close()


def code_on_page() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_pages_agent_answers_with_checked_links(
    agent: CitingAgent, language_model: Any, tracing: Callable[[], Trace]
) -> None:
    language_model.says("At 100 degrees [1], not at 50 [9].")
    response = agent.predict(REQUEST).model_dump()
    content = response["output"][0]["content"][0]
    assert content["text"] == "At 100 degrees [1], not at 50."
    assert [annotation["url"] for annotation in content["annotations"]] == ["https://docs.example/water"]
    assert response["custom_outputs"]["reader"] == "gpt-4o-mini"
    assert len(tracing().search_spans(span_type=SpanType.RETRIEVER)) == 1
    assert [message["role"] for message in language_model.requests[0]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert "[1] Water (https://docs.example/water)" in language_model.prompt()


def test_the_pages_agent_streams(agent: CitingAgent, language_model: Any) -> None:
    language_model.says("At 100 degrees [1]. Earlier on mountains [2].", chunk=4)
    *events, done = [event.model_dump() for event in agent.predict_stream(REQUEST)]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == done["item"]["content"][0]["text"]
    assert len(done["item"]["content"][0]["annotations"]) == len(events) - len(deltas) == 2


def test_the_pages_agent_stops_its_model_when_the_client_leaves(
    agent: CitingAgent, language_model: Any
) -> None:
    language_model.says("word " * 400, chunk=5, delay_s=0.005)
    events = agent.predict_stream(REQUEST)
    next(events)
    events.close()
    assert language_model.wait_for_hang_up()
    assert language_model.deltas_sent < 100


def test_the_pages_agent_is_logged_and_loaded_as_the_page_says(
    agent: CitingAgent, language_model: Any, tracing: Callable[[], Trace]
) -> None:
    language_model.says("At 100 degrees [1].")
    exec(code_on_page()[1], {})
    [model] = mlflow.search_logged_models(filter_string="name = 'my-agent'", output_format="list")
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    assert loaded.predict(REQUEST)["output"][0]["content"][0]["text"] == "At 100 degrees [1]."

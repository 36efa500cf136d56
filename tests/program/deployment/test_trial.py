"""A logged model is tried where nothing of ours is but the model, before anybody can ask it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace

from program.agent import CiteqaAgent
from program.deployment import trial
from program.deployment.log import log_agent
from program.deployment.trial import try_model
from program.deployment.trial_script import find_problems
from retrieval.errors import DeploymentError

QUESTION = {"input": [{"role": "user", "content": "When does water boil on Everest?"}]}


@pytest.fixture
def answered(make_settings: Any, tracing: Callable[[], Trace]) -> tuple[Any, list[Any], Any]:
    """A right answer: the body, the events of its stream, its trace."""
    agent = CiteqaAgent(make_settings())
    body = agent.predict(QUESTION).model_dump(exclude_none=True)
    trace = tracing()
    trace.info.tags["retrievers"] = "[]"  # as a loaded model tags it
    events = [event.model_dump(exclude_none=True) for event in agent.predict_stream(QUESTION)]
    return body, events, trace


def test_nothing_is_wrong_with_a_right_answer(answered: Any) -> None:
    assert find_problems(*answered) == ([], [])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda b, e, t: b["output"][-1]["content"][0].update(text=" "), "its answer is empty"),
        (
            lambda b, e, t: e[-1]["item"]["content"][0].update(text="x"),
            "is not the text of its finished answer",
        ),
        (lambda b, e, t: e.pop(), "does not finish the answer"),
        (lambda b, e, t: e[-1]["item"]["content"][0].update(annotations=[]), "tells other sources"),
        (lambda b, e, t: t.info.tags.pop("retrievers"), "does not tell the retriever's schema"),
        (lambda b, e, t: t.data.spans.clear(), "has no RETRIEVER span"),
    ],
)
def test_what_keeps_sources_from_showing_is_found(answered: Any, spoil: Any, problem: str) -> None:
    body, events, trace = answered
    spoiled = copy.deepcopy(body), copy.deepcopy(events), trace
    spoil(*spoiled)
    problems, _ = find_problems(*spoiled)
    assert any(problem in found for found in problems), problems


def test_an_answer_without_a_source_is_a_warning_that_names_the_setting(answered: Any) -> None:
    body, events, trace = answered
    body["output"][-1]["content"][0]["annotations"] = []
    assert "set deployment.question" in find_problems(body, events, trace)[1][0]


@pytest.mark.slow
def test_a_model_answers_elsewhere_or_is_refused_with_the_reason(
    make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "canary-0123456789")
    info = log_agent(make_settings())
    tried = try_model(info.model_uri, QUESTION, "process")
    assert "71 degrees" in tried.answer
    assert tried.links[0] == "https://docs.example/mountains"
    assert (tried.problems, tried.warnings) == ((), ())

    broken = tmp_path / "broken"
    shutil.copytree(mlflow.artifacts.download_artifacts(info.model_uri), broken)
    (broken / "code" / "program" / "qa.py").write_text("raise ImportError('canary-0123456789 is not there')")
    with pytest.raises(DeploymentError, match=r"does not load and answer elsewhere: .*\$SOME_TOKEN is not"):
        try_model(str(broken), QUESTION, "process")


@pytest.mark.slow
def test_what_cannot_be_installed_is_told_and_not_taken_for_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "requirements.txt").write_text("no-such-package-of-ours==1.0\n")
    (model / "constraints.txt").touch()
    for _ in range(2):
        with pytest.raises(DeploymentError, match=r"cannot be installed: .*no-such-package-of-ours"):
            try_model(str(model), QUESTION, "environment")

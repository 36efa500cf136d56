"""Agents that are not ours, as they really come: logged models, and servers on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from eval.agents import find_subject
from eval.answering import Answered, answer_questions
from eval.evaluate import Evaluation, evaluate
from eval.logged_models import find_model
from eval.questions import Question
from eval.replies import duration_ms
from eval.traces import collect_traces
from program.deployment.log import log_agent
from program.settings import Settings, TrackingSettings, validate_settings
from retrieval.errors import (
    AgentError,
    ConfigurationError,
    GroundTruthError,
    IndexMissingError,
    RunStoppedError,
)

MakeSettings = Callable[..., Settings]
OTHERS = Path(__file__).parent / "other_agents"
CITEQA = (sys.executable, "-c", "import sys; del sys.path[0]; from program.cli import main; main()")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Logged:
    """A store with agents in it: `models:/qa/1` is ours, and its alias `champion`."""

    store: str
    run_uri: str
    flat: Path
    chat: Path


@pytest.fixture(scope="module")
def logged(library: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("agents")
    shutil.copy(empty_store, folder / "mlflow.db")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    before = tracking_service._tracking_uri
    mlflow.tracing.reset()
    mlflow.set_tracking_uri(store)
    mlflow.create_experiment("agents", (folder / "artifacts").as_uri())
    mlflow.set_experiment("agents")
    settings = validate_settings([("test", {"retrieval": {"index": str(library), "k": 3}})])
    with mlflow.start_run() as run:
        log_agent(settings, name="ours", registered_model_name="qa")
    mlflow.MlflowClient().set_registered_model_alias("qa", "champion", "1")
    for name in ("flat_agent", "chat_agent"):
        mlflow.pyfunc.save_model(
            str(folder / name), python_model=str(OTHERS / f"{name}.py"), pip_requirements=["mlflow"]
        )
    mlflow.dspy.autolog(disable=True)
    mlflow.set_tracking_uri(before)
    fluent._active_experiment_id = None
    mlflow.tracing.reset()
    run_uri = f"runs:/{run.info.run_id}/ours"
    return Logged(store, run_uri, folder / "flat_agent", folder / "chat_agent")


@pytest.fixture
def settings_for(make_settings: MakeSettings, logged: Logged) -> MakeSettings:
    """Settings to evaluate the agent of a URI, with no index of ours; keyword arguments are sections."""

    def make(uri: Any, **sections: dict[str, Any]) -> Settings:
        evaluation = sections.pop("evaluation", {})
        agent = {"uri": str(uri), **evaluation.pop("agent", {})}
        settings = make_settings(
            tracking={"uri": logged.store}, evaluation={**evaluation, "agent": agent}, **sections
        )
        values = settings.model_dump(exclude_unset=True)
        del values["retrieval"]
        return validate_settings([("test", values)])

    return make


def metrics_of(evaluation: Evaluation) -> dict[str, tuple[float, int]]:
    """The means that do not tell the time, with how many questions are in each."""
    intervals = evaluation.result.summary.overall.intervals
    return {name: (i.mean, i.n) for name, i in intervals.items() if name != "latency_ms"}


def ask(settings: Settings, *questions: str, **history: Any) -> list[Answered]:
    asked = [Question(id=text, question=text, gold=(), **history) for text in questions]
    with find_subject(settings).open() as agent, collect_traces() as collector:
        answered = list(answer_questions(agent, asked, collector))
    assert collector.take_strays() == [], "nothing of another process is traced here"
    return answered


def uris(answered: Answered) -> list[str]:
    return [passage.doc_uri.rpartition("/")[2] for passage in answered.record.retrieved]


@pytest.mark.slow
def test_a_logged_agent_scores_as_the_program_that_was_logged(
    make_settings: MakeSettings, settings_for: MakeSettings, logged: Logged
) -> None:
    ours = evaluate(make_settings())
    settings = settings_for("models:/qa@champion", evaluation={"threads": 3})
    theirs = evaluate(settings)
    assert metrics_of(theirs) == metrics_of(ours)
    assert metrics_of(theirs)["recall@3"] == (1.0, 10)
    assert (theirs.k, theirs.subject) == (3, "the model models:/qa/1")
    assert theirs.result.path.name.startswith("quiz-dev-qa-1-")
    assert "is not checked" in theirs.notes[0]

    identity = json.loads((theirs.result.path / "run.json").read_text())["identity"]
    assert identity["agent"]["uri"] == "models:/qa/1", "an alias is what it meant"
    assert set(identity) == {"agent"}, "no setting of ours is of theirs"
    again = evaluate(settings)
    assert (again.result.path, again.result.answered_now) == (theirs.result.path, 0)
    run = mlflow.get_run(theirs.mlflow_run_id)
    assert run.data.params["agent.uri"] == "models:/qa/1"
    assert "retrieval.k" not in run.data.params
    traces = mlflow.MlflowClient().search_traces(
        locations=[run.info.experiment_id], run_id=theirs.mlflow_run_id
    )
    assert {trace.info.trace_id for trace in traces} == {r.trace_id for r in theirs.result.records.values()}


def test_a_run_names_its_model_as_the_registry_does(logged: Logged, store: str) -> None:
    tracking = TrackingSettings(uri=logged.store)
    by_run, by_version = find_model(logged.run_uri, tracking), find_model("models:/qa/1", tracking)
    assert by_run.digest == by_version.digest
    by_path = find_model(str(by_run.directory), tracking)
    assert (by_path.digest, by_path.api) == (by_run.digest, "responses")


@pytest.mark.slow
def test_what_answers_is_the_code_of_the_model_and_not_that_of_the_same_name_here(
    settings_for: MakeSettings, logged: Logged, tmp_path: Path
) -> None:
    copy = tmp_path / "changed"
    shutil.copytree(find_model("models:/qa/1", TrackingSettings(uri=logged.store)).directory, copy)
    settings = settings_for(copy)
    before = find_subject(settings).identity
    with (copy / "code" / "program" / "agent.py").open("a") as module:
        module.write("\nraise RuntimeError('this is the code of the model')\n")
    assert find_subject(settings).identity != before
    with pytest.raises(AgentError, match=r"cannot be loaded: Failed to run .*this is the code of the model"):
        evaluate(settings)
    assert not Path(settings.evaluation.results).exists(), "nothing was begun"


@pytest.mark.slow
def test_an_agent_with_flat_rows_is_read_by_the_schema_that_it_declares(
    settings_for: MakeSettings, logged: Logged, capfd: pytest.CaptureFixture[str]
) -> None:
    questions = ("What is steel made of?", "Who is the king of Atlantis?", "富士山の高さは何メートルですか")
    steel, atlantis, fuji = ask(settings_for(logged.flat), *questions)
    assert (uris(steel)[0], steel.record.retrieved[0].chunk_id) == ("iron", "2")
    assert steel.record.answer == "Steel is made of iron with a little carbon."
    assert steel.record.trace_id == steel.traces[0].info.trace_id
    assert uris(fuji)[0] == "fuji"
    assert str(atlantis.record.error) == "KeyError('no king')", "one question fails alone"
    assert atlantis.traces, "and its trace is kept"
    out, err = capfd.readouterr()
    assert out == ""
    assert "What a model prints is no result." in err


@pytest.mark.slow
def test_a_chat_agent_is_asked_in_its_own_way_and_its_langchain_rows_are_read(
    settings_for: MakeSettings, logged: Logged
) -> None:
    settings = settings_for(logged.chat, evaluation={"agent": {"custom_inputs": {"k": 2}}})
    turns = ({"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"})
    answered, crashed = ask(settings, "q", "crash", history=turns)
    assert answered.record.answer == "3 turns, {'k': 2}"
    assert "The process in which the model is loaded has ended" in str(crashed.record.error)
    assert [passage.doc_uri for passage in answered.record.retrieved] == ["https://chat/q"]


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("models:/qa/9", r"No model at 'models:/qa/9' .*version=9\) not found\. Registered there: qa\."),
        ("models:/qaa/1", r"Did you mean 'qa'\? Registered there: qa\."),
        ("models:/qa@challenger", r"alias challenger not found"),
        (f"runs:/{'0' * 32}/x", r"Run with id=0+ not found"),
        ("nowhere", r"No agent at 'nowhere'\. Give models:/name/version, .* http://"),
        (str(OTHERS), r"is no logged model: it has no MLmodel file"),
    ],
)
def test_a_model_that_is_not_there_is_told(settings_for: MakeSettings, uri: str, complaint: str) -> None:
    with pytest.raises(AgentError, match=complaint):
        find_subject(settings_for(uri))


def test_a_model_that_is_no_agent_is_told_by_what_it_takes(
    settings_for: MakeSettings, tmp_path: Path
) -> None:
    signature = mlflow.models.infer_signature(pd.DataFrame({"length": [1.0], "width": [2.0]}))
    (tmp_path / "m").mkdir()
    model = mlflow.models.Model(signature=signature, flavors={"python_function": {"loader_module": "x"}})
    model.save(str(tmp_path / "m" / "MLmodel"))
    with pytest.raises(AgentError, match=r"its input is length, width\. An agent takes .* `messages`"):
        find_subject(settings_for(tmp_path / "m"))
    settings = settings_for(tmp_path / "m", evaluation={"agent": {"api": "responses"}})
    assert find_subject(settings).identity["agent"]["api"] == "responses"


@pytest.mark.parametrize("uri", ["apps:/qa", "dbfs:/models/qa"])
def test_a_kind_of_agent_that_cannot_be_asked_is_told(settings_for: MakeSettings, uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no kind of agent that can be asked.*endpoints:/<name>"):
        find_subject(settings_for(uri))


def test_an_agent_and_traces_are_not_scored_at_once(settings_for: MakeSettings) -> None:
    settings = settings_for("models:/qa/1", evaluation={"traces": {"experiment": "production"}})
    with pytest.raises(ConfigurationError, match="Give one of them"):
        evaluate(settings)


def test_an_index_that_is_named_on_purpose_tells_whether_gold_can_be_found(
    settings_for: MakeSettings, library: Path, question_file: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        question_file.read_text(encoding="utf-8").replace("example/bees", "example/beez"), "utf-8"
    )
    values = settings_for("models:/qa/1", evaluation={"dataset": str(wrong)}).model_dump(exclude_unset=True)
    settings = validate_settings([("test", {**values, "retrieval": {"index": str(library)}})])
    with pytest.raises(GroundTruthError, match=r"library\.example/beez"):
        evaluate(settings)
    with pytest.raises(IndexMissingError):
        find_subject(
            validate_settings([("test", {**values, "retrieval": {"index": str(tmp_path / "none")}})])
        )


@contextmanager
def served(*command: str | Path, url: str, ready: str, **environment: str) -> Iterator[str]:
    """A server's address, once it answers; its process ends with its standard input, or is ended."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environment}) as process:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not _answers(url + ready):
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
            yield url
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            process.wait(TIMEOUT_S)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_an_agent_behind_mlflows_server_is_scored_by_the_traces_that_it_stores(
    settings_for: MakeSettings, logged: Logged, tmp_path: Path
) -> None:
    port = free_port()
    command = (sys.executable, OTHERS / "agent_server.py", str(port))
    where = {"MLFLOW_TRACKING_URI": logged.store, "MLFLOW_EXPERIMENT_NAME": "agents"}
    with served(*command, url=f"http://127.0.0.1:{port}", ready="/health", **where) as url:
        # Only a loaded model tells MLflow of the schema that it declares: here it has to be said.
        schema = {"lookup": {"doc_uri": "url", "primary_key": "pk"}}
        with pytest.raises(
            RunStoppedError, match=r"has no 'doc_uri'\. Its fields are url, pk, body: .*doc_uri=url"
        ):
            evaluate(settings_for(url))
        evaluation = evaluate(settings_for(url, evaluation={"retriever_schemas": schema}))
        records = evaluation.result.records
        found = records["q03"].retrieved[0]
        assert (found.doc_uri, found.chunk_id) == ("https://library.example/iron", "2")
        assert records["q03"].answer == "Steel is made of iron with a little carbon."
        assert records["q10"].retrieved[0].doc_uri == "https://library.example/fuji"
        assert "answered 500: 'no king'" in str(records["q04"].error)
        assert (evaluation.k, evaluation.result.summary.overall.unscored) == (2, 1)
        identity = json.loads((evaluation.result.path / "run.json").read_text())["identity"]
        assert identity["agent"]["url"] == f"{url}/invocations"
        assert identity["agent"]["info"]["agent_api"] == "responses"

        client = mlflow.MlflowClient()
        run = client.get_run(evaluation.mlflow_run_id)
        (trace_id,) = {records["q03"].trace_id}
        trace = client.get_trace(trace_id)
        assert trace.info.experiment_id != run.info.experiment_id, "it stays where the server put it"
        assert records["q03"].latency_ms == duration_ms(trace)
        linked = client.search_traces(
            locations=[trace.info.experiment_id], filter_string=f"attribute.run_id = '{run.info.run_id}'"
        )
        assert trace_id in {found.info.trace_id for found in linked}

        known = {"retriever_schemas": schema, "limit": 1}
        elsewhere = settings_for(url, evaluation={**known, "agent": {"trace_wait_s": 0.2}})
        values = elsewhere.model_dump(exclude_unset=True)
        shutil.copy(logged.store.removeprefix("sqlite:///"), tmp_path / "other.db")
        values["tracking"] = {"uri": f"sqlite:///{tmp_path / 'other.db'}"}
        missing = evaluate(validate_settings([("test", values)]))
        (reason,) = missing.result.failed.values()
        assert "is not in the tracking store" in reason
        assert "--set tracking.uri=" in reason


@pytest.mark.slow
def test_our_own_server_scores_as_our_program(
    make_settings: MakeSettings, settings_for: MakeSettings, logged: Logged, library: Path, tmp_path: Path
) -> None:
    port = free_port()
    sets = (
        f"retrieval.index={library}",
        "retrieval.k=3",
        f"tracking.uri={logged.store}",
        f"serving.trace_spool={tmp_path / 'spool'}",
    )
    command = (*CITEQA, "serve", "--port", str(port), *(part for one in sets for part in ("--set", one)))
    token = {"CITEQA_TOKEN": "a-token-of-this-test"}
    with served(*command, url=f"http://127.0.0.1:{port}", ready="/health", **token) as url:
        settings = settings_for(f"{url}/responses")
        with pytest.raises(RunStoppedError, match=r"answered 401: .* Set CITEQA_AGENT_TOKEN"):
            evaluate(settings)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("CITEQA_AGENT_TOKEN", token["CITEQA_TOKEN"])
            evaluation = evaluate(settings)
    assert metrics_of(evaluation) == metrics_of(evaluate(make_settings()))
    for file in evaluation.result.path.iterdir():
        assert b"a-token-of-this-test" not in file.read_bytes()

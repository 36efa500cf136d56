"""Programs by path, run, model and alias: whatever answers, logs or notes itself uses what stands there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from mlflow import MlflowClient

from program.agent import CiteqaAgent
from program.asking import ask_agent
from program.deployment.log import log_agent
from program.identity import answer_identity
from program.program_sources import DOWNLOADS, forget_located, locate_state
from program.prompt_registry import register_program
from program.qa import CitedQA
from program.readers import LMReader
from program.state import save_state
from retrieval.errors import ProgramStateError, StorageError

ANSWER = {"answerable": True, "answer": "At 100 degrees [1]."}
REQUEST = {"input": [{"role": "user", "content": "When does water boil?"}]}
Save = Callable[[str], Path]


class NoDocuments:
    def search(self, query: str, k: int, filters: Any = None) -> list[Any]:
        return []


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A file of the program with these instructions for its reader."""

    def save(instructions: str) -> Path:
        program = CitedQA(NoDocuments(), LMReader(), condense_with=dspy.LM("openai/other"))
        answer = program.reader.answer  # type: ignore[attr-defined]
        answer.signature = answer.signature.with_instructions(instructions)
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        save_state(program, file)
        return file

    return save


@pytest.fixture(autouse=True)
def store(trace_store: str) -> Iterator[str]:
    """The session's store, with what URIs mean in it asked anew."""
    forget_located()
    yield trace_store
    forget_located()


def log_as_artifact(file: Path) -> str:
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(file), "compiled")
    return f"runs:/{run.info.run_id}/compiled/{file.name}"


def instructions_used(settings: Any, language_model: Any) -> str:
    """The system prompt that one question is asked with."""
    language_model.forget()
    language_model.fills(ANSWER)
    ask_agent(CiteqaAgent(settings), "When does water boil?")
    return str(language_model.prompt())


def test_a_path_is_itself_and_imports_nothing(tmp_path: Path) -> None:
    probe = (
        "import sys; from program.program_sources import locate_state\n"
        "print(locate_state('somewhere/p.json', 'sqlite:///x.db'), locate_state('C:/p.json', ''))\n"
        "print(sorted({'mlflow', 'dspy', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["somewhere/p.json C:/p.json", "[]"]


def test_the_artifact_of_a_run_answers_and_is_noted_by_its_content(
    save: Save, store: str, make_settings: Any, language_model: Any
) -> None:
    file = save("Answer in verse.")
    uri = log_as_artifact(file)
    settings = make_settings(language_model, program={"states": {"default": uri}}, tracking={"uri": store})
    local = make_settings(language_model, program={"states": {"default": str(file)}})
    assert locate_state(uri, store).read_bytes() == file.read_bytes()
    assert "Answer in verse." in instructions_used(settings, language_model)
    assert answer_identity(settings, "x")["states"] == answer_identity(local, "x")["states"]


def test_what_is_downloaded_can_be_deleted_at_any_time(save: Save, store: str) -> None:
    uri = log_as_artifact(save("Answer in verse."))
    file = locate_state(uri, store)
    content = file.read_bytes()
    assert file.parent == DOWNLOADS
    file.unlink()
    assert locate_state(uri, store).read_bytes() == content
    assert [found.name for found in DOWNLOADS.iterdir()] == [file.name]


def test_a_place_for_downloads_that_cannot_be_written_is_told(save: Save, store: str) -> None:
    uri = log_as_artifact(save("Answer in verse."))
    DOWNLOADS.parent.write_text("in the way")
    with pytest.raises(
        StorageError, match=r"build/downloaded-programs/.*\.json' cannot be written: Not a directory"
    ):
        locate_state(uri, store)


def test_a_logged_agent_keeps_its_program_and_lends_it_when_the_alias_moves(
    save: Save, store: str, make_settings: Any, language_model: Any
) -> None:
    register_program(save("Answer in verse."), "qa_prompts", alias="champion")
    alias = "prompts:/qa_prompts@champion"
    settings = make_settings(language_model, program={"states": {"default": alias}}, tracking={"uri": store})
    language_model.fills(ANSWER)
    info = log_agent(settings, registered_model_name="qa_agent")
    MlflowClient().set_registered_model_alias("qa_agent", "live", info.registered_model_version)
    register_program(save("Answer in prose."), "qa_prompts", alias="champion")

    mlflow.pyfunc.load_model(info.model_uri).predict(REQUEST)
    assert "Answer in verse." in language_model.prompt()
    follows = {"program": {"states": {"default": alias}}}
    mlflow.pyfunc.load_model(info.model_uri, model_config=follows).predict(REQUEST)
    assert "Answer in prose." in language_model.prompt()

    for uri in ("models:/qa_agent@live", "models:/qa_agent/1", info.model_uri, f"{info.model_uri}#default"):
        assert "Answer in verse." in locate_state(uri, store).read_text()
    with pytest.raises(
        ProgramStateError, match="without a compiled program 'brief'; it has default; write #default"
    ):
        locate_state("models:/qa_agent/1#brief", store)
    with pytest.raises(ProgramStateError, match="'qa_agent' has no alias 'life'; did you mean 'live'"):
        locate_state("models:/qa_agent@life", store)
    with pytest.raises(ProgramStateError, match="'qa_agent' has no version 7"):
        locate_state("models:/qa_agent/7", store)
    with pytest.raises(ProgramStateError, match="no model 'qa_agnet' is registered; did you mean 'qa_agent'"):
        locate_state("models:/qa_agnet/1", store)


def test_a_model_without_a_compiled_program_is_told(store: str, make_settings: Any) -> None:
    info = log_agent(make_settings())
    with pytest.raises(ProgramStateError, match="without a compiled program 'default'; it has none at all"):
        locate_state(info.model_uri, store)


def test_what_is_not_there_is_told_with_the_nearest_that_is(save: Save, store: str) -> None:
    uri = log_as_artifact(save("Answer in verse."))
    run = uri.split("/")[1]
    wrong = {
        f"runs:/{run}/compiled/00.json": r"the run has no such artifact; did you mean 'compiled/0\.json'\?",
        f"runs:/{run}/compiled": "is a folder of artifacts",
        "runs:/0123/p.json": "has no run '0123'",
        f"runs:/{run}": "Write it as runs:/<run id>/<artifact path>",
        "models:/m-0123": "there is no logged model of this id",
        "models:/qa/Production": "Write it as models:/<name>/<version> or",
        "s3://bucket/p.json": "Name a path, or runs:/",
        "run:/0123/p.json": "Name a path, or runs:/",
    }
    for source, reason in wrong.items():
        with pytest.raises(ProgramStateError, match=reason) as caught:
            locate_state(source, store)
        assert source in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_artifact_that_is_no_program_is_told_by_its_uri(
    store: str, tmp_path: Path, make_settings: Any, language_model: Any
) -> None:
    (tmp_path / "p.json").write_text("{}")
    uri = log_as_artifact(tmp_path / "p.json")
    settings = make_settings(language_model, program={"states": {"default": uri}}, tracking={"uri": store})
    with pytest.raises(ProgramStateError, match=f"'{uri}' is not a citeqa program file"):
        CiteqaAgent(settings)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ProgramStateError, match=r"there is no MLflow store at 'sqlite:///none\.db'"):
        locate_state("prompts:/qa@champion", "sqlite:///none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_is_not_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database " * 100)
    with pytest.raises(StorageError, match=r"'sqlite:///text\.db' cannot be used"):
        locate_state("prompts:/qa@champion", "sqlite:///text.db")

"""The agent as an MLflow model: logged, loaded elsewhere, asked, traced."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow.entities import SpanType, Trace
from mlflow.models.model import ModelInfo
from mlflow.tracing.provider import is_tracing_enabled

import program
import retrieval
from program.agent import CiteqaAgent
from program.assembly import build_program
from program.deployment.artifacts import SERVED_SECTIONS
from program.deployment.log import log_agent
from program.deployment.requirements import (
    DATABRICKS_REQUIREMENTS,
    MODEL_REQUIREMENTS,
    POSTGRES_REQUIREMENTS,
    REQUIREMENTS,
    VECTOR_REQUIREMENTS,
    VECTOR_SEARCH_REQUIREMENTS,
)
from program.deployment.resources import databricks_resources
from program.embedding import open_configured_embedder
from program.state import save_state
from retrieval.errors import ConfigurationError, IndexMissingError, LanguageModelError, StorageError
from retrieval.local_index import LocalIndex
from retrieval.types import Document

PACKAGES = {package.__name__: Path(str(package.__file__)).parent for package in (program, retrieval)}
REQUEST = {"input": [{"role": "user", "content": "When does water boil?"}]}


@pytest.fixture
def logged(make_settings: Any) -> ModelInfo:
    return log_agent(make_settings(reader={"max_sentences": 1}), name="citeqa")


def artifact_directory(info: ModelInfo) -> Path:
    return Path(mlflow.artifacts.download_artifacts(info.model_uri))


def content(response: dict[str, Any]) -> Any:
    return response["output"][0]["content"]


def test_a_loaded_agent_answers_as_the_local_one_whole_and_streamed(
    logged: ModelInfo, make_settings: Any, tracing: Callable[[], Trace]
) -> None:
    local = CiteqaAgent(make_settings(reader={"max_sentences": 1})).predict(REQUEST).model_dump()
    loaded = mlflow.pyfunc.load_model(logged.model_uri)

    assert content(loaded.predict(REQUEST)) == content(local)
    trace = tracing()
    *deltas, done = [event for event in loaded.predict_stream(REQUEST) if "annotation" not in event["type"]]
    assert done["item"]["content"] == content(local)
    assert "".join(event["delta"] for event in deltas) == content(local)[0]["text"]

    [span] = trace.search_spans(span_type=SpanType.RETRIEVER)
    assert span.outputs[0]["metadata"]["doc_uri"] == "https://docs.example/water"
    [schema] = json.loads(trace.info.tags["retrievers"])
    assert (schema["doc_uri"], schema["text_column"]) == ("doc_uri", "page_content")


def test_logging_leaves_tracing_as_it_found_it(make_settings: Any) -> None:
    assert not is_tracing_enabled()
    log_agent(make_settings())
    assert not is_tracing_enabled()
    mlflow.tracing.enable()
    log_agent(make_settings())
    assert is_tracing_enabled()


def test_a_section_given_on_loading_replaces_the_logged_one(logged: ModelInfo) -> None:
    loaded = mlflow.pyfunc.load_model(logged.model_uri, model_config={"retrieval": {"k": 1}})
    assert len(loaded.predict(REQUEST)["custom_outputs"]["sources"]) == 1
    whole = mlflow.pyfunc.load_model(logged.model_uri)
    assert len(whole.predict(REQUEST)["custom_outputs"]["sources"]) == 2


def test_a_wrong_setting_given_on_loading_is_told(logged: ModelInfo) -> None:
    with pytest.raises(ConfigurationError, match=r"model_config: retrieval\.k = 'many'"):
        mlflow.pyfunc.load_model(logged.model_uri, model_config={"retrieval": {"k": "many"}})


@pytest.mark.slow
def test_the_model_answers_in_a_process_that_has_nothing_else_of_ours(
    logged: ModelInfo, tmp_path: Path
) -> None:
    code = f"""
import sys
sys.path[:] = [place for place in sys.path if "citeqa" not in place]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import mlflow
agent = mlflow.pyfunc.load_model({str(artifact_directory(logged))!r})
import program.agent
assert "code" in program.agent.__file__, program.agent.__file__
print(agent.predict({REQUEST!r})["output"][0]["content"][0]["text"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("Water boils at 100 degrees at sea level. [1]"), done.stderr


def test_what_is_logged_holds_the_served_configuration_and_no_key(
    make_settings: Any, language_model: Any
) -> None:
    language_model.fills({"answerable": True, "answer": "Yes [1]."})
    directory = artifact_directory(log_agent(make_settings(language_model)))
    model = yaml.safe_load((directory / "MLmodel").read_text())
    config = model["flavors"]["python_function"]["config"]
    assert sorted(config) == sorted(SERVED_SECTIONS)
    assert config["language_model"]["model"] == "openai/test"
    for place, _, files in os.walk(directory):
        for file in files:
            assert b"sk-canary" not in (Path(place) / file).read_bytes()


def test_compiled_programs_are_logged_with_the_model(
    make_settings: Any, language_model: Any, index: LocalIndex, tmp_path: Path
) -> None:
    states = {}
    for name in ("verse", "prose"):
        compiled = build_program(make_settings(language_model), index)
        answer = compiled.reader.answer
        answer.signature = answer.signature.with_instructions(f"Answer in {name}.")
        (tmp_path / name).mkdir()
        states[name] = str(tmp_path / name / "program.json")
        save_state(compiled, states[name])
    language_model.fills({"answerable": True, "answer": "Yes [1]."})
    info = log_agent(make_settings(language_model, program={"states": states}))
    for path in states.values():
        Path(path).unlink()

    loaded = mlflow.pyfunc.load_model(info.model_uri)
    for name in states:
        loaded.predict({**REQUEST, "custom_inputs": {"program": name}})
        assert f"Answer in {name}." in language_model.prompt()


def test_an_endpoint_of_databricks_is_a_resource_of_the_model(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_API_KEY", "dapi-canary-0123456789")
    settings = make_settings(
        language_model={
            "model": "databricks/some-endpoint",
            "api_base": "http://127.0.0.1:9",
            "num_retries": 0,
            "timeout_s": 2,
        },
        reader={"fallback": "extractive"},
    )
    directory = artifact_directory(log_agent(settings))
    model = yaml.safe_load((directory / "MLmodel").read_text())
    assert model["resources"]["databricks"] == {"serving_endpoint": [{"name": "some-endpoint"}]}
    assert "canary" not in (directory / "MLmodel").read_text()


@pytest.mark.parametrize(
    ("model", "kind", "endpoints"),
    [
        ("databricks/a", "auto", ["a"]),
        ("databricks/a", "lm", ["a"]),
        ("databricks/a", "extractive", []),
        ("openai/databricks", "auto", []),
        (None, "auto", []),
    ],
)
def test_what_a_model_calls_in_its_workspace_follows_from_its_settings(
    make_settings: Any, model: str | None, kind: str, endpoints: list[str]
) -> None:
    settings = make_settings(language_model={"model": model}, reader={"kind": kind})
    assert [resource.name for resource in databricks_resources(settings)] == endpoints


def test_an_agent_without_such_has_no_resources(logged: ModelInfo) -> None:
    assert not yaml.safe_load((artifact_directory(logged) / "MLmodel").read_text()).get("resources")


def test_an_agent_is_registered_when_a_name_is_given(make_settings: Any) -> None:
    first = log_agent(make_settings(), registered_model_name="library")
    second = log_agent(make_settings(retrieval={"k": 1}), registered_model_name="library")
    assert (first.registered_model_version, second.registered_model_version) == (1, 2)
    sources = [mlflow.pyfunc.load_model(f"models:/library/{version}").predict(REQUEST) for version in (1, 2)]
    assert [len(body["custom_outputs"]["sources"]) for body in sources] == [2, 1]


def test_the_example_that_is_logged_is_a_request_of_the_interface(logged: ModelInfo) -> None:
    model = mlflow.models.Model.load(logged.model_uri)
    (message,) = model.load_input_example(logged.model_uri)["input"]
    assert message["role"] == "user"
    assert mlflow.pyfunc.load_model(logged.model_uri).predict(model.load_input_example(logged.model_uri))[
        "output"
    ]


def test_what_is_required_is_pinned_to_what_is_installed(logged: ModelInfo) -> None:
    lines = (artifact_directory(logged) / "requirements.txt").read_text().splitlines()
    assert set(lines) >= {f"{name}=={metadata.version(name)}" for name in REQUIREMENTS}
    assert all("==" in line for line in lines[:-1])
    assert lines[-1] == "-c constraints.txt"
    pinned = (artifact_directory(logged) / "constraints.txt").read_text().splitlines()
    assert {f"{name}=={metadata.version(name)}" for name in (*REQUIREMENTS, "pandas", "litellm")} <= set(
        pinned
    )
    assert all("==" in line for line in pinned)


def test_a_language_model_that_fails_the_example_is_told(make_settings: Any, language_model: Any) -> None:
    language_model.says("no such key", status=401)
    with pytest.raises(LanguageModelError, match="no such key"):
        log_agent(make_settings(language_model, language_model={"num_retries": 0}))


def test_an_agent_that_cannot_be_built_is_not_logged(make_settings: Any) -> None:
    with pytest.raises(IndexMissingError):
        log_agent(make_settings(retrieval={"index": "nowhere"}))
    assert mlflow.search_logged_models(filter_string="name = 'citeqa-none'", output_format="list") == []


def test_a_store_that_refuses_is_told(make_settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://store")
    with pytest.raises(StorageError, match="nonsense://store"):
        log_agent(make_settings())


OF_INDEXING = {
    "charset-normalizer",
    "docutils",
    "huggingface_hub",
    "pypdf",
    "python-docx",
    "selectolax",
    "semantic-text-splitter",
}
"""What reads documents and cuts them, and fetches models: nothing of that is done where an agent serves."""

IN_THE_CONTAINER = {"mlflowserving"}
"""What is there where Databricks serves a model, and nowhere else."""

OPTIONAL = {
    *MODEL_REQUIREMENTS,
    *VECTOR_REQUIREMENTS,
    *VECTOR_SEARCH_REQUIREMENTS,
    *POSTGRES_REQUIREMENTS,
    *DATABRICKS_REQUIREMENTS,
    *OF_INDEXING,
}


def test_every_package_that_the_served_code_imports_is_required() -> None:
    owners = owners_by_package()
    brought = {
        re.split(r"[^\w.-]", requirement)[0].lower()
        for distribution in ("mlflow", "mlflow-skinny", "dspy", "openai", "requests")
        for requirement in metadata.requires(distribution) or ()
    }
    for name in served_imports():
        assert owners[name] & {*REQUIREMENTS, *brought, *OPTIONAL}, f"{name} is imported and not required"


def test_nothing_is_required_that_the_served_code_does_not_import() -> None:
    owners = owners_by_package()
    imported = {owner for name in served_imports() for owner in owners[name]}
    assert set(REQUIREMENTS) <= imported


def owners_by_package() -> dict[str, set[str]]:
    """The distributions that hold files of each package, lower case.

    `metadata.packages_distributions` overlooks most of them before Python 3.11.
    """
    owners: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"].lower()
        for file in distribution.files or ():
            if len(file.parts) > 1 or file.suffix == ".py":
                owners.setdefault(Path(file.parts[0]).stem, set()).add(name)
    return owners


def served_imports() -> set[str]:
    """The packages of others that are imported, however far away, where the logged agent starts."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = [PACKAGES["program"] / "logged_agent.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen and file.exists():
            seen.add(file)
            names = imports(file)
            found |= {name.partition(".")[0] for name in names}
            waiting += [place for name in names for place in places(name)]
    return found - {*PACKAGES, *IN_THE_CONTAINER, *sys.stdlib_module_names}


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def places(module: str) -> list[Path]:
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return []
    path = PACKAGES[package].joinpath(*rest)
    return [path.with_suffix(".py"), path / "__init__.py"]


def test_an_embedding_model_travels_with_the_agent(
    tiny_embedding_model: Path, make_settings: Any, tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(tiny_embedding_model, moved)
    settings = make_settings(
        retrieval={"index": str(tmp_path / "index"), "mode": "hybrid"},
        embedder={"model": str(moved), "cache": None},
        reader={"abstain_below": 0},
    )
    embedder = open_configured_embedder(settings.embedder)
    documents = [Document("https://e.org/travel", "The automobile is fast.", "Travel")]
    LocalIndex.build(settings.retrieval.index, documents, embedder=embedder)
    info = log_agent(settings)
    config = yaml.safe_load((artifact_directory(info) / "MLmodel").read_text())["flavors"]["python_function"]
    assert config["config"]["embedder"]["model"] == "embedder/model.onnx"
    for gone in (moved, Path(settings.retrieval.index)):
        shutil.rmtree(gone)
    sources = mlflow.pyfunc.load_model(info.model_uri).predict(REQUEST)["custom_outputs"]["sources"]
    assert [source["doc_uri"] for source in sources] == ["https://e.org/travel"]
    requirements = (artifact_directory(info) / "requirements.txt").read_text()
    assert all(package in requirements for package in ("onnxruntime==", "tokenizers==", "faiss-cpu=="))

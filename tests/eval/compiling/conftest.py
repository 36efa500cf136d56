"""A language model that follows rules, on the wire, and a collection with questions on which it can be taught."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy
import mlflow
import pytest

from program.assembly import build_program
from program.language_models import build_lm
from program.qa import CitedQA
from program.settings import LanguageModelSettings, Settings, validate_settings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

# A benchmark runs these files by path, which puts their folder on Python's path; pytest puts none there.
sys.path.append(str(Path(__file__).parent))
_model = importlib.import_module("rule_following_model")
_task = importlib.import_module("synthetic_task")

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def rule_following() -> ModuleType:
    """The module of the server: `RuleFollowingModel`, `Faults`, `Knowledge`, `listening`, `reply_to`, `skills_told`."""
    return _model


@pytest.fixture(scope="session")
def synthetic_task() -> ModuleType:
    """The module of the collection: `corpus`, `questions`, `write_corpus`, `write_questions`, `VOCABULARY`."""
    return _task


@pytest.fixture
def rule_following_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model that listens for the length of a test and knows the collection's words; a key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    with _model.listening(_model.RuleFollowingModel()) as server:
        yield server


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of an index of the synthetic collection's 60 documents."""
    path = tmp_path_factory.mktemp("collection") / "index"
    LocalIndex.build(
        path, (Document(row["doc_uri"], row["text"], row["title"], row["lang"]) for row in _task.corpus())
    )
    return path


@pytest.fixture(scope="session")
def collection_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the 240 questions about the collection; `train`, `dev` and `test` have 80 each."""
    return _task.write_questions(tmp_path_factory.mktemp("questions") / "collection.jsonl")


@pytest.fixture
def ruled_lm(rule_following_model: Any) -> dspy.LM:
    """The rule-following model as our program asks it, with no cache and no retries."""
    settings = LanguageModelSettings(
        model="openai/rules", api_base=rule_following_model.url, cache=False, num_retries=0
    )
    return build_lm(settings)


@pytest.fixture
def untraced_program(collection: Path, rule_following_model: Any, mlflow_as_found: None) -> CitedQA:
    """The program over the collection, rewriting queries, for hundreds of questions: MLflow keeps no trace of them."""
    mlflow.tracing.disable()
    model = {"model": "openai/rules", "api_base": rule_following_model.url, "cache": False, "num_retries": 0}
    settings = validate_settings([("test", {"program": {"rewrite_query": True}, "language_model": model})])
    return build_program(settings, LocalIndex.open(collection))


@pytest.fixture
def make_taught_settings(
    collection: Path, collection_questions: Path, rule_following_model: Any, store: str, tmp_path: Path
) -> MakeSettings:
    """Settings over the collection, its questions and the rule-following model; keyword arguments are sections."""

    def make(**sections: dict[str, Any]) -> Settings:
        values: dict[str, dict[str, Any]] = {
            "retrieval": {"index": str(collection), "k": 5},
            "language_model": {
                "model": "openai/rules",
                "api_base": rule_following_model.url,
                "num_retries": 0,
                "price": {"input_usd_per_million": 1, "output_usd_per_million": 4},
            },
            "tracking": {"uri": store},
            "evaluation": {
                "dataset": str(collection_questions),
                "results": str(tmp_path / "runs"),
                "threads": 2,
                "ks": [1, 5],
            },
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return validate_settings([("test", values)])

    return make

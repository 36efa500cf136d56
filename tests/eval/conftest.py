"""A small library in two languages, questions about it, and MLflow kept to a store of each test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from eval.ground_truth import GroundTruth, read_ground_truth
from program.settings import Settings, validate_settings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

SITE = "https://library.example/"
DOCUMENTS = {
    "water": ("en", "Water boils at 100 degrees at sea level. Ice melts at 0 degrees."),
    "mountains": ("en", "On Everest water boils at 71 degrees, because the air is thin up there."),
    "iron": ("en", "Iron melts at 1538 degrees. Steel is iron with a little carbon."),
    "tides": ("en", "The moon pulls the sea twice a day, and the tides follow its path."),
    "bees": ("en", "A bee dances to tell its hive where the flowers are."),
    "clocks": ("en", "A pendulum clock loses time in summer, because its rod grows longer."),
    "bread": ("en", "Yeast makes bread rise: it turns sugar into gas."),
    "glass": ("en", "Glass is made from sand, soda and lime in a hot furnace."),
    "fuji": ("ja", "富士山の高さは3776メートルです。日本で一番高い山です。"),
    "tea": ("ja", "緑茶は発酵させない茶です。紅茶は発酵させて作ります。"),
}
QUESTIONS = [
    ("q01", "At how many degrees does water boil at sea level?", ["water"], "lookup", "en"),
    ("q02", "Why does water boil earlier on Everest?", ["mountains"], "lookup", "en"),
    ("q03", "What is steel made of?", ["iron"], "lookup", "en"),
    ("q04", "Who is the king of Atlantis?", [], "unanswerable", "en"),
    ("q05", "What pulls the sea twice a day?", ["tides"], "lookup", "en"),
    ("q06", "How does a bee tell its hive where flowers are?", ["bees"], "lookup", "en"),
    ("q07", "Do iron and ice melt at the same degrees?", ["iron", "water"], "two", "en"),
    ("q08", "Why does a pendulum clock lose time in summer?", ["clocks"], "lookup", "en"),
    ("q09", "What makes bread rise?", ["bread"], "lookup", "en"),
    ("q10", "富士山の高さは何メートルですか", ["fuji"], "lookup", "ja"),
    ("q11", "緑茶と紅茶はどう違いますか", ["tea"], "lookup", "ja"),
    ("q12", "月の裏側には何がありますか", [], "unanswerable", "ja"),
]

MakeSettings = Callable[..., Settings]


def to_row(id_: str, question: str, gold: list[str], kind: str, lang: str) -> dict[str, Any]:
    return {
        "id": id_,
        "inputs": {"question": question},
        "expectations": {"expected_retrieved_context": [{"doc_uri": SITE + name} for name in gold]},
        "tags": {"type": kind, "lang": lang, "split": "dev"},
    }


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of an index of ten documents."""
    path = tmp_path_factory.mktemp("library") / "index"
    LocalIndex.build(
        path, (Document(SITE + n, text, n.title(), lang) for n, (lang, text) in DOCUMENTS.items())
    )
    return path


@pytest.fixture(scope="session")
def question_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions about the library: two of them it cannot answer, three are Japanese."""
    path = tmp_path_factory.mktemp("questions") / "quiz.jsonl"
    rows = (json.dumps(to_row(*question), ensure_ascii=False) for question in QUESTIONS)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def quiz(question_file: Path) -> GroundTruth:
    return read_ground_truth(question_file)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, mlflow_as_found: None) -> str:
    """The address of a tracking store of the test's own."""
    copy = tmp_path / "store" / "mlflow.db"
    copy.parent.mkdir()
    shutil.copy(empty_store, copy)
    return f"sqlite:///{copy}"


@pytest.fixture
def mlflow_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test makes of MLflow's process-wide state is undone; tracing is on, as it is at first."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(tracking_service, "_tracking_uri", None)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    mlflow.tracing.reset()
    yield
    mlflow.tracing.reset()


@pytest.fixture
def make_settings(library: Path, question_file: Path, store: str, tmp_path: Path) -> MakeSettings:
    """Settings over the library, its questions and the test's store; keyword arguments are sections."""

    def make(**sections: dict[str, Any]) -> Settings:
        values: dict[str, dict[str, Any]] = {
            "retrieval": {"index": str(library), "k": 3},
            "tracking": {"uri": store},
            "evaluation": {
                "dataset": str(question_file),
                "results": str(tmp_path / "runs"),
                "threads": 1,
                "ks": [1, 3],
            },
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return validate_settings([("test", values)])

    return make

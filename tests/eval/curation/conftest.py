"""The command line in a folder of the test's own, and questions to look after."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eval.ground_truth import GoldItem, GroundTruth, Question, write_ground_truth
from program.cli import main


@dataclass(frozen=True)
class Said:
    """What one call of the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr of a person's mistake."""
        assert (self.code, self.out, self.err.count("\n")) == (2, "", 1), self
        return self.err.strip()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mlflow_as_found: None
) -> Callable[..., Said]:
    """Calls `citeqa dataset` in an empty directory, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["citeqa", "dataset", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def ask() -> Callable[..., Question]:
    """A question with the given gold documents and tags."""

    def make(id_: str, text: str, *gold: str, **tags: str) -> Question:
        return Question(id_, text, tuple((GoldItem(uri),) for uri in gold), tags=tags)

    return make


@pytest.fixture
def write_questions(tmp_path: Path) -> Callable[..., Path]:
    """Writes questions to a file of the test's folder."""

    def write(questions: Iterable[Question], name: str = "questions.jsonl") -> Path:
        write_ground_truth(GroundTruth("set", Path("set"), tuple(questions)), tmp_path / name)
        return Path(name)

    return write


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory whose questions retrieved the given documents; with metrics, and gold in no order."""

    def write(name: str, retrieved: dict[str, list[str]], **metrics: list[float]) -> Path:
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        rows = [
            {
                "id": id_,
                "question": f"{id_}?",
                "error": None,
                "metrics": {"mrr": 1.0, **{metric: values[number] for metric, values in metrics.items()}},
                "retrieved": [{"doc_uri": uri, "chunk_id": f"{uri}#0", "score": 1.0} for uri in uris],
                "gold": [],
            }
            for number, (id_, uris) in enumerate(retrieved.items())
        ]
        (path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        manifest = {"format_version": 1, "settings": {}, "dataset": {"digest": ""}}
        (path / "run.json").write_text(json.dumps(manifest))
        return path.relative_to(tmp_path)

    return write

"""Scored runs to compare: real run directories, and runs of chosen values in memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from eval.ground_truth import GroundTruth
from eval.metrics import parse_metrics
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved, RunDirectory
from eval.run import RunPlan, score_run
from eval.scored_runs import ScoredRun
from program.cli import main

METRICS = ["recall@1", "recall@2", "ndcg@2", "citation_recall", "abstention_accuracy", "latency_ms"]
QUESTIONS = (
    Question("q1", "How hot is it?", ((GoldItem("https://d/a"),),), tags={"lang": "en"}),
    Question("q2", "How deep is it?", ((GoldItem("https://d/b"),),), tags={"lang": "en"}),
    Question("q3", "高さは何メートルですか", ((GoldItem("https://d/c"),),), tags={"lang": "ja"}),
    Question("q4", "Who is the king?", (), tags={"lang": "en"}),
)

WriteRun = Callable[..., Path]
MakeRun = Callable[..., ScoredRun]


def to_record(id_: str, *retrieved: str, cited: str = "", answer: str = "…", **more: Any) -> AnswerRecord:
    """What a run answered to a question; documents by the last part of their address."""
    return AnswerRecord(
        id=id_,
        answer=answer,
        retrieved=tuple(Retrieved(doc_uri=f"https://d/{name}", chunk_id=f"{name}#0") for name in retrieved),
        cited_uris=(f"https://d/{cited}",) if cited else (),
        **more,
    )


@pytest.fixture
def answered() -> Callable[..., AnswerRecord]:
    """Makes a record; see `to_record`."""
    return to_record


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes a run directory as `citeqa eval` does: its name, and what was answered."""

    def write(
        name: str,
        *records: AnswerRecord,
        questions: Sequence[Question] = QUESTIONS,
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        truth = GroundTruth("quiz", Path("quiz.jsonl"), tuple(questions))
        with RunDirectory(tmp_path / name) as directory:
            directory.write_manifest(
                {"dataset": {"digest": truth.digest}, "settings": settings or {"retrieval": {"k": 2}}}
            )
            for record in records:
                directory.append_answer(record, ())
            score_run(RunPlan("quiz", {}, truth, parse_metrics(METRICS)), directory)
        return tmp_path / name

    return write


@pytest.fixture
def baseline(write_run: WriteRun) -> Path:
    return write_run(
        "baseline",
        to_record("q1", "a", "x", cited="a", answer="It is hot."),
        to_record("q2", "x", "b", cited="x", answer="It is deep."),
        to_record("q3", "c", "x", cited="c", answer="3776メートルです。"),
        to_record("q4", "x", "y", answer="Nobody knows.", abstained=True),
    )


@pytest.fixture
def candidate(write_run: WriteRun) -> Path:
    return write_run(
        "candidate",
        to_record("q1", "x", "y", cited="x", answer="It is cold."),
        to_record("q2", "b", "x", cited="b", answer="It is 10 m deep."),
        to_record("q3", "c", "x", cited="c", answer="3776メートルです。"),
        AnswerRecord(id="q4", error="The model is out."),
        settings={"retrieval": {"k": 3}},
    )


@pytest.fixture
def write_many(write_run: WriteRun) -> Callable[[str, int], Path]:
    """Writes a run of 40 questions of which so many are answered from the right document."""

    def write(name: str, right: int) -> Path:
        gold = ((GoldItem("https://d/a"),),)
        questions = [Question(f"q{i}", f"Question {i}?", gold, tags={"lang": "en"}) for i in range(40)]
        records = [to_record(q.id, "a" if place < right else "x") for place, q in enumerate(questions)]
        return write_run(name, *records, questions=questions)

    return write


@pytest.fixture
def make_run() -> MakeRun:
    """A run in memory: a name, and the values of each metric; None and NaN are no value."""

    def make(name: str, ids: Sequence[str] | None = None, **values: Any) -> ScoredRun:
        columns = {metric.replace("_at_", "@"): column for metric, column in values.items()}
        arrays = {m: np.array([math.nan if v is None else v for v in c], float) for m, c in columns.items()}
        count = len(next(iter(arrays.values())))
        questions = {id_: f"question {id_}?" for id_ in ids or [f"q{i}" for i in range(count)]}
        return ScoredRun(name=name, source=f"{name}.jsonl", questions=questions, values=arrays)

    return make


@dataclass(frozen=True)
class Said:
    """What one call of the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr of a person's mistake."""
        assert (self.code, self.out) == (2, ""), (self.code, self.out, self.err)
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


@pytest.fixture
def citeqa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mlflow_as_found: None
) -> Iterator[Callable[..., Said]]:
    """Calls `citeqa` in an empty directory, in this process, each call with MLflow as a new process has it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["citeqa", *map(str, arguments)])
        monkeypatch.setattr(tracking_service, "_tracking_uri", None)
        monkeypatch.setattr(fluent, "_active_experiment_id", None)
        mlflow.tracing.reset()
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capfd.readouterr())

    return call

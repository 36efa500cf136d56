"""A run as a person reads it, word for word, and as a machine does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from eval.evaluate import Evaluation
from eval.ground_truth import GroundTruth
from eval.metrics import parse_metrics
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved, RunDirectory
from eval.report import render_evaluation, render_json
from eval.run import RunPlan, score_run
from program.settings import Settings, validate_settings

METRICS = [
    "recall@1",
    "recall@2",
    "ndcg@2",
    "citation_precision",
    "fact_recall",
    "abstention_accuracy",
    "latency_ms",
]


def question(id_: str, lang: str, *gold: str) -> Question:
    return Question(id_, f"question {id_}?", tuple((GoldItem(uri),) for uri in gold), tags={"lang": lang})


def record(id_: str, *retrieved: str, cited: str = "", abstained: bool = False) -> AnswerRecord:
    return AnswerRecord(
        id=id_,
        answer="…",
        retrieved=tuple(Retrieved(doc_uri=uri) for uri in retrieved),
        cited_uris=(cited,) if cited else (),
        abstained=abstained,
        reader="extractive",
        latency_ms=2.5,
    )


QUESTIONS = (
    question("en1", "en", "a"),
    question("en2", "en"),
    question("ja1", "ja", "b"),
    question("ja2", "ja", "c"),
    question("ja3", "ja", "c"),
    question("ja4", "ja", "c"),
)
RECORDS = (
    record("en1", "a", "b", cited="a"),
    record("en2", "a", "b", abstained=True),
    record("ja1", "a", "b", cited="b"),
    AnswerRecord(id="ja2", error="The model is out."),
    AnswerRecord(id="ja3", error="The model is out."),
)


def evaluation(
    directory: Path,
    records: tuple[AnswerRecord, ...] = RECORDS,
    run_id: str | None = "abc",
    **settings: object,
) -> Evaluation:
    truth = GroundTruth("quiz", Path("quiz.jsonl"), QUESTIONS)
    with RunDirectory(directory) as run:
        for one in records:
            run.append_answer(one, ())
        result = score_run(RunPlan("quiz", {}, truth, parse_metrics(METRICS), slices=("lang",)), run, 3)
    return Evaluation(with_settings(settings), truth, result, run_id)


def with_settings(sections: Mapping[str, object]) -> Settings:
    return validate_settings([("test", {"retrieval": {"k": 2}, "evaluation": {"split": "dev"}, **sections})])


REPORT = """\
quiz, split dev: 6 questions, 5 answerable; reader extractive, k = 2; 3 answered now

metric                mean  95 % interval  n
recall@1             0.500  0.000 – 1.000  2
recall@2             1.000  1.000 – 1.000  2
ndcg@2               0.815  0.631 – 1.000  2
citation_precision   1.000  1.000 – 1.000  2
abstention_accuracy  1.000  1.000 – 1.000  3
latency_ms ↓           2.5      2.5 – 2.5  3

lang  n  recall@2  ndcg@2  citation_precision  citation_recall  fact_recall  abstention
en    2     1.000   1.000               1.000                –            –       1.000
ja    1     1.000   0.631               1.000                –            –       1.000

Failed, and in no mean: 2 (to retry: --retry-errors)
  2 × The model is out.
Not answered yet, and in no mean: 1

Every question with its evidence: {directory}/scores.jsonl
MLflow run abc, with its traces: mlflow ui --backend-store-uri sqlite:///build/mlflow.db"""


def test_a_run_reads_as_written_here(tmp_path: Path) -> None:
    assert render_evaluation(evaluation(tmp_path)) == REPORT.format(directory=tmp_path)


def test_a_run_without_failures_and_without_mlflow_says_nothing_of_them(tmp_path: Path) -> None:
    records = (*RECORDS[:3], *(record(id_, "c") for id_ in ("ja2", "ja3", "ja4")))
    text = render_evaluation(evaluation(tmp_path, records, run_id=None))
    assert "no mean" not in text
    assert "MLflow" not in text
    assert "recall@1             0.800" in text


def test_a_run_in_which_everything_failed_still_says_why(tmp_path: Path) -> None:
    failed = tuple(AnswerRecord(id=one.id, error="No\nmodel. " + "x" * 999) for one in QUESTIONS)
    text = render_evaluation(evaluation(tmp_path, failed))
    assert "Failed, and in no mean: 6" in text
    reason = next(line for line in text.splitlines() if line.startswith("  6 × "))
    assert reason.startswith("  6 × No model. xxx")
    assert reason.endswith("…")
    assert len(reason) <= 210


def test_traces_on_a_server_are_pointed_to_where_they_are(tmp_path: Path) -> None:
    text = render_evaluation(evaluation(tmp_path, tracking={"uri": "https://mlflow.example"}))
    assert text.endswith("MLflow run abc, with its traces: the MLflow pages of https://mlflow.example")


def test_the_json_form_holds_the_summary_and_where_the_run_is(tmp_path: Path) -> None:
    body = json.loads(render_json(evaluation(tmp_path)))
    assert body["run"] == str(tmp_path)
    assert body["mlflow_run_id"] == "abc"
    assert body["failed"] == {"ja2": "The model is out.", "ja3": "The model is out."}
    assert body["summary"]["overall"]["intervals"]["recall@1"]["mean"] == 0.5
    assert body["summary"]["slices"]["lang"]["ja"]["unscored"] == 3

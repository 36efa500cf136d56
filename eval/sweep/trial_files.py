"""A trial on disk: the files of a run directory, so that whatever reads a run reads a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.ground_truth import GroundTruth
from eval.metrics import Scores
from eval.questions import Question
from eval.records import AnswerRecord, RunDirectory
from eval.run import RunResult, score_row
from eval.summary import Summary
from program.settings import Settings


def write_trial(
    path: Path,
    ground_truth: GroundTruth,
    digest: str,
    split: str,
    settings: Settings,
    questions: Sequence[Question],
    records: Mapping[str, AnswerRecord],
    scores: Scores,
    summary: Summary,
) -> None:
    """Write `run.json`, `scores.jsonl` and `summary.json`; `questions` are those that were asked.

    Raises:
        StorageError: if the disk refuses.
    """
    result = RunResult(path, questions, records, scores, summary, answered_now=0)
    with RunDirectory(path) as directory:
        directory.write_manifest(
            {
                "dataset": {
                    "path": str(ground_truth.path),
                    "split": split,
                    "digest": digest,
                    "questions": len(ground_truth.questions),
                },
                "settings": settings.model_dump(mode="json"),
            }
        )
        directory.write_scores(score_row(question, result) for question in questions)
        directory.write_summary(asdict(summary))

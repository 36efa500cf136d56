"""Scored runs by what people call them: a directory, a file, or a run of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.comparison.score_files import SCORES_FILE, read_run_directory, read_score_file
from eval.scored_runs import ScoredRun
from retrieval.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from program.settings import TrackingSettings


def read_scored_run(source: str, tracking: TrackingSettings) -> ScoredRun:
    """The run at `source`: what is on disk under this name, or else the MLflow run of this id or name.

    On disk: a run directory of `citeqa eval`, a trial's directory of a sweep, or a `scores.jsonl`.
    In MLflow: `runs:/<id>`, an id, or a run name that only one run has. A run of ours is read from its
    artifact `scores.jsonl`; of any other, the feedback on its traces is (`eval.comparison.mlflow_runs`).

    Raises:
        DataError: if there is nothing of this name, several, or it holds no scores.
        StorageError: if it cannot be read.
    """
    if not source.strip():
        raise ConfigurationError(
            "The name of a run is empty. Name a directory, a scores.jsonl or an MLflow run."
        )
    path = Path(source)
    if path.is_dir():
        return read_run_directory(_with_scores(path))
    if path.exists():
        return read_score_file(path)
    if path.suffix == ".jsonl":
        raise DataError(f"No file at '{source}'.")
    from eval.comparison.mlflow_runs import read_mlflow_run

    return read_mlflow_run(source, tracking)


def _with_scores(path: Path) -> Path:
    if (path / SCORES_FILE).exists():
        return path
    inside = sorted(file.parent.name for file in path.glob(f"*/{SCORES_FILE}"))
    inside += sorted(str(file.parent.relative_to(path)) for file in path.glob(f"*/*/{SCORES_FILE}"))
    if inside:
        runs = "one run" if len(inside) == 1 else f"{len(inside)} runs"
        raise DataError(f"'{path}' is no run, but holds {runs}. Name one, such as {path / inside[0]}")
    if (path / "answers.jsonl").exists():
        raise DataError(
            f"The run at '{path}' is not scored yet. Finish it: citeqa eval, or only score: --rescore"
        )
    raise DataError(
        f"'{path}' holds no {SCORES_FILE}. Name the directory of a run; citeqa eval says where it is."
    )

"""`citeqa eval` as a function: settings in, a scored run out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.agents import CALLS_FILE, OUR_PROGRAM
from eval.ground_truth import GroundTruth
from eval.judges.judge_model import check_judge_model
from eval.judges.judgements import JudgementFile
from eval.labels import Label, LabelReport, compare_with_labels, read_labels
from eval.mlflow_run import MlflowRun
from eval.records import RunDirectory
from eval.run import RunPlan, RunResult, score_run
from eval.sources import Source, find_source
from program.content_store import ContentStore
from program.settings import EvaluationSettings, Settings
from retrieval.errors import RunStoppedError

ON_TRACES = "traces"
"""Where labels are, if not in a file."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A scored run, and where MLflow keeps it (no run id when it was only scored anew).

    `labels` is how far judges agree with people, where people's labels were given. `k` is how many passages are
    retrieved, `subject` what was evaluated, and `notes` are what one must know to read the figures.
    """

    settings: Settings
    ground_truth: GroundTruth
    result: RunResult
    mlflow_run_id: str | None
    labels: LabelReport | None = None
    k: int = 0
    subject: str = OUR_PROGRAM
    notes: tuple[str, ...] = ()


def evaluate(
    settings: Settings,
    *,
    rescore: bool = False,
    retry_errors: bool = False,
    labels: str | None = None,
    on_answer: Callable[[int, int], None] | None = None,
    on_verdict: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Have the configured program, or another agent, answer the configured questions, or take the traces of its
    answers, and score what traces and answers show.

    The same settings and questions continue the same run. With `rescore`, what is answered is scored, and
    nothing is asked. Language-model calls are made once for all runs below `evaluation.results`, and kept there with
    their usage, unless `language_model.cache` is off: DSPy's own cache would make answers look free.

    Judges, if any are configured, are asked when all questions are answered. `labels` is a file of people's
    labels (`eval.labels`), or `traces` for those on the run's traces in MLflow.

    Raises:
        CiteqaError: whatever a person must mend; what was done before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    labelled = read_labels(Path(labels)) if labels and labels != ON_TRACES else None
    source = find_source(settings, retry_errors=retry_errors, on_answer=on_answer)
    plan, ks = source.plan, settings.evaluation.ks
    directory = RunDirectory(Path(settings.evaluation.results) / plan.key)
    if rescore:
        plan, k, result = _rescore(source, directory, ks)
        report = _compare_with_labels(labels, labelled, result, settings)
        return Evaluation(
            settings, plan.ground_truth, result, None, report, k, source.description, source.notes
        )
    if plan.judges:
        check_judge_model(settings.evaluation.judge_model)
    with source.open() as bring, directory:
        run = MlflowRun(settings.tracking, directory, plan.key, plan.ground_truth)
        directory.write_manifest({**directory.read_manifest(), **_describe(plan, settings)})
        try:
            answered = bring(directory, run)
            if plan.judges:
                _ask_judges(plan, directory, run, settings.evaluation, on_verdict, retry_errors=retry_errors)
        except BaseException:
            run.interrupt()
            raise
        plan, k = source.to_score(directory.read_answers().values(), ks)
        result = score_run(plan, directory, answered)
        report = _compare_with_labels(labels, labelled, result, settings)
        parameters = {**source.parameters, "dataset": _describe(plan, settings)["dataset"]}
        run.finish(result, parameters, report.metrics() if report else ())
        return Evaluation(
            settings, plan.ground_truth, result, run.run_id, report, k, source.description, source.notes
        )


def _rescore(source: Source, directory: RunDirectory, ks: Iterable[int]) -> tuple[RunPlan, int, RunResult]:
    if not directory.answers_file.exists():
        raise RunStoppedError(
            f"Nothing is answered yet in '{directory.path}', so there is nothing to score. "
            "Run without --rescore."
        )
    with directory:
        plan, k = source.to_score(directory.read_answers().values(), ks)
        return plan, k, score_run(plan, directory)


def _ask_judges(
    plan: RunPlan,
    directory: RunDirectory,
    run: MlflowRun,
    settings: EvaluationSettings,
    on_verdict: Callable[[int, int], None] | None,
    *,
    retry_errors: bool,
) -> None:
    # Whoever configures no judge does not wait for MLflow's to be imported.
    from eval.judges.panel import JudgePanel

    kept = JudgementFile(directory.path)
    if retry_errors:
        kept.forget_failures()
    with ContentStore(Path(settings.results) / CALLS_FILE) as shared:
        panel = JudgePanel(plan.judges, settings.judge_model, plan.threads, plan.max_failed_share, shared)
        panel.ask(plan.ground_truth.questions, directory.read_answers(), kept, run, on_verdict)


def _compare_with_labels(
    source: str | None, labels: Sequence[Label] | None, result: RunResult, settings: Settings
) -> LabelReport | None:
    if source == ON_TRACES:
        from eval.judges.trace_labels import read_trace_labels

        labels = read_trace_labels(result.records.values(), settings.tracking)
    return None if labels is None else compare_with_labels(labels, result.judgements, result.records)


def _describe(plan: RunPlan, settings: Settings) -> dict[str, Any]:
    return {
        "identity": plan.identity,
        "dataset": {
            "path": str(plan.ground_truth.path),
            "split": settings.evaluation.split,
            "digest": plan.ground_truth.digest,
            "questions": len(plan.ground_truth.questions),
        },
        "settings": settings.model_dump(mode="json"),
    }

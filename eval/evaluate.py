"""`citeqa eval` as a function: settings in, a scored run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eval.ground_truth import GroundTruth, check_gold_exists, read_ground_truth
from eval.judges.judge import configured_judges
from eval.judges.judge_model import check_judge_model
from eval.judges.judgements import JudgementFile
from eval.labels import Label, LabelReport, compare_with_labels, read_labels
from eval.metrics import Metric, default_metrics
from eval.mlflow_run import MlflowRun
from eval.records import AnswerRecord, RunDirectory
from eval.run import RunPlan, RunResult, answer_run, score_run
from eval.run_identity import run_identity
from eval.uris import UriNormalization, uri_normalizer
from program.agent import CiteqaAgent
from program.content_store import ContentStore
from program.language_models import build_lm
from program.prices import answer_usd
from program.settings import EvaluationSettings, LanguageModelSettings, Settings
from retrieval.errors import RunStoppedError
from retrieval.local_index import LocalIndex

CALLS_FILE = "calls.db"
"""Below `evaluation.results`: what language models answered, and what that cost. It can be deleted at any time."""

ON_TRACES = "traces"
"""Where labels are, if not in a file."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A scored run, and where MLflow keeps it (no run id when it was only scored anew).

    `labels` is how far judges agree with people, where people's labels were given.
    """

    settings: Settings
    ground_truth: GroundTruth
    result: RunResult
    mlflow_run_id: str | None
    labels: LabelReport | None = None


def evaluate(
    settings: Settings,
    *,
    rescore: bool = False,
    retry_errors: bool = False,
    labels: str | None = None,
    on_answer: Callable[[int, int], None] | None = None,
    on_verdict: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run the configured program over the configured questions and score what its traces and answers show.

    The same settings and questions continue the same run. With `rescore`, what is answered is scored, and
    nothing is asked. Language-model calls are made once for all runs below `evaluation.results`, and kept there with
    their usage, unless `language_model.cache` is off: DSPy's own cache would make answers look free.

    Judges, if any are configured, are asked when all questions are answered. `labels` is a file of people's
    labels (`eval.labels`), or `traces` for those on the run's traces in MLflow.

    Raises:
        CiteqaError: whatever a person must mend; what was done before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    ground_truth = _read_ground_truth(settings)
    judges = configured_judges(settings.evaluation)
    labelled = read_labels(Path(labels)) if labels and labels != ON_TRACES else None
    normalization = UriNormalization(**settings.evaluation.uris.model_dump())
    index = LocalIndex.open(settings.retrieval.index)
    check_gold_exists(ground_truth, index.doc_uris(), uri_normalizer(normalization))
    plan = RunPlan(
        name=_run_name(settings, ground_truth),
        identity=run_identity(settings, index.content_hash),
        ground_truth=ground_truth,
        metrics=_metrics(settings),
        normalization=normalization,
        slices=settings.evaluation.slices,
        threads=settings.evaluation.threads,
        max_failed_share=settings.evaluation.max_failed_share,
        judges=judges,
        price=partial(_price, settings.language_model),
    )
    directory = RunDirectory(Path(settings.evaluation.results) / plan.key)
    if rescore:
        result = _rescore(plan, directory)
        report = _compare_with_labels(labels, labelled, result, settings)
        return Evaluation(settings, ground_truth, result, None, report)
    if judges:
        check_judge_model(settings.evaluation.judge_model)
    with _recorded_calls(settings) as calls:
        agent = CiteqaAgent(settings, record_in=calls, limit_rate=True)
        with directory:
            run = MlflowRun(settings.tracking, directory, plan.key, ground_truth)
            directory.write_manifest({**directory.read_manifest(), **_describe(plan, settings)})
            try:
                answered = answer_run(
                    plan, directory, agent.predict, run.keep_traces, on_answer, retry_errors=retry_errors
                )
                if judges:
                    _ask_judges(
                        plan, directory, run, settings.evaluation, on_verdict, retry_errors=retry_errors
                    )
            except BaseException:
                run.interrupt()
                raise
            result = score_run(plan, directory, answered)
            report = _compare_with_labels(labels, labelled, result, settings)
            run.finish(result, _parameters(plan, settings), report.metrics() if report else ())
            return Evaluation(settings, ground_truth, result, run.run_id, report)


@contextmanager
def _recorded_calls(settings: Settings) -> Iterator[ContentStore | None]:
    """The language-model calls of all runs, open; None where there are to be none."""
    if not (settings.answers_with_lm and settings.language_model.cache):
        yield None
        return
    # A language model that is not usable is refused before anything is on the disk.
    build_lm(settings.language_model)
    with ContentStore(Path(settings.evaluation.results) / CALLS_FILE) as calls:
        yield calls


def _price(settings: LanguageModelSettings, record: AnswerRecord) -> float | None:
    """What the answer cost by the price of now, or, where none is known now, by that of then."""
    usd = answer_usd(record.reader, record.usage, settings)
    return record.usd if usd is None else usd


def _read_ground_truth(settings: Settings) -> GroundTruth:
    evaluation = settings.evaluation
    return read_ground_truth(
        evaluation.dataset,
        split=evaluation.split,
        limit=evaluation.limit,
        columns=evaluation.columns or None,
    )


def _metrics(settings: Settings) -> list[Metric]:
    """Cutoffs beyond what is retrieved would repeat the last one under a better-sounding name."""
    k = settings.retrieval.k
    return default_metrics({*(cutoff for cutoff in settings.evaluation.ks if cutoff < k), k})


def _rescore(plan: RunPlan, directory: RunDirectory) -> RunResult:
    if not directory.answers_file.exists():
        raise RunStoppedError(
            f"Nothing is answered yet in '{directory.path}', so there is nothing to score. "
            "Run without --rescore."
        )
    with directory:
        return score_run(plan, directory)


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


def _run_name(settings: Settings, ground_truth: GroundTruth) -> str:
    reader = settings.language_model.model if settings.answers_with_lm else "extractive"
    parts = (ground_truth.name, settings.evaluation.split or "all", str(reader).replace("/", "-"))
    return "-".join("".join(c for c in part if c.isalnum() or c in "-_.") for part in parts)


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


def _parameters(plan: RunPlan, settings: Settings) -> dict[str, Any]:
    sections = {"chunking", "retrieval", "reader", "language_model"}
    return {**settings.model_dump(include=sections), "dataset": _describe(plan, settings)["dataset"]}

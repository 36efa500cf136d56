"""Where the answers of a run come from: an agent that is asked, or traces that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from eval.agents import Subject, find_subject, retriever_mappings
from eval.ground_truth import GroundTruth, check_gold_exists, read_ground_truth
from eval.judges.judge import configured_judges
from eval.metrics import Metric, default_metrics
from eval.mlflow_run import MlflowRun
from eval.records import AnswerRecord, RunDirectory
from eval.run import RunPlan, answer_run
from eval.uris import UriNormalization, uri_normalizer
from program.files import to_json
from program.prices import answer_usd
from program.settings import EvaluationSettings, LanguageModelSettings, Settings
from program.tracking import connect
from retrieval.errors import ConfigurationError, RunStoppedError

Bring: TypeAlias = Callable[[RunDirectory, MlflowRun], int]
"""Brings the answers into the run's directory and their traces to its MLflow run; how many answers came now."""

UNMATCHED_FILE = "unmatched.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """What is scored, and how its answers come into a run's directory.

    Attributes:
        plan: what the run is of.
        description: what it is, for a person.
        parameters: what MLflow shows of it.
        open: makes it ready, for as long as the context lasts; nothing is on the disk before.
        k: how many passages it retrieves; None where only the answers tell.
        notes: what a person must know to read the figures.
    """

    plan: RunPlan
    description: str
    parameters: Mapping[str, Any]
    open: Callable[[], AbstractContextManager[Bring]]
    k: int | None = None
    notes: tuple[str, ...] = ()

    def to_score(self, records: Iterable[AnswerRecord], ks: Iterable[int]) -> tuple[RunPlan, int]:
        """The plan with the metrics that make sense for these answers, and how many passages are retrieved.

        Cutoffs beyond what is retrieved would repeat the last one under a better-sounding name.
        """
        k = self.k or max((len(record.retrieved) for record in records), default=0) or 1
        return replace(self.plan, metrics=_metrics(ks, k)), k


def find_source(
    settings: Settings,
    *,
    retry_errors: bool = False,
    on_answer: Callable[[int, int], None] | None = None,
) -> Source:
    """Where the settings say that answers come from. No agent is asked yet; traces are read.

    Raises:
        CiteqaError: whatever a person must mend.
    """
    evaluation = settings.evaluation
    match evaluation.agent.uri, evaluation.traces.experiment:
        case _, None:
            return _agent(settings, retry_errors, on_answer)
        case None, experiment:
            return _traces(settings, experiment)
    raise ConfigurationError(
        f"--agent {evaluation.agent.uri} and --traces {evaluation.traces.experiment}: either an agent is asked, "
        "or its traces are scored. Give one of them."
    )


def _agent(settings: Settings, retry_errors: bool, on_answer: Callable[[int, int], None] | None) -> Source:
    ground_truth = _read_ground_truth(settings.evaluation, settings.tracking.uri)
    subject = find_subject(settings)
    plan = _plan(settings, ground_truth, subject.name, subject.identity)
    plan = replace(plan, threads=subject.threads or plan.threads)
    notes = _check_gold(subject, plan)

    @contextmanager
    def ready() -> Iterator[Bring]:
        with subject.open() as agent:

            def bring(directory: RunDirectory, run: MlflowRun) -> int:
                answered = answer_run(
                    plan, directory, agent, run.keep_traces, on_answer, retry_errors=retry_errors
                )
                if not subject.is_ours:
                    run.link_traces(record.trace_id for record in directory.read_answers().values())
                return answered

            yield bring

    return Source(plan, subject.description, subject.parameters, ready, subject.k, notes)


def _check_gold(subject: Subject, plan: RunPlan) -> tuple[str, ...]:
    if subject.documents is None:
        return (
            "Whether the agent can find the gold documents is not checked: which documents it has is not known. "
            "An index of them, named with --set retrieval.index=…, tells.",
        )
    check_gold_exists(plan.ground_truth, subject.documents, uri_normalizer(plan.normalization))
    return ()


def _traces(settings: Settings, name: str) -> Source:
    # Whoever scores no traces does not wait for what reads them.
    from eval.stored_traces import find_experiment, read_traces
    from eval.trace_scoring import match_traces

    evaluation = settings.evaluation
    connect(settings.tracking)
    experiment = find_experiment(name, settings.tracking.uri)
    now_ms = int(1000 * time.time())
    traces = read_traces(
        experiment, evaluation.traces, settings.tracking.uri, limit=evaluation.limit, now_ms=now_ms
    )
    known = _Lazily(evaluation)
    mappings = retriever_mappings(evaluation)
    matched = match_traces(traces, known.ground_truth, mappings, with_runs=evaluation.traces.of_runs)
    if not matched.questions:
        raise RunStoppedError(f"There is nothing to score: {matched.describe(experiment.name)}")
    if not matched.searched:
        raise RunStoppedError(
            f"No RETRIEVER span in any of the {len(matched.records)} traces that answer a question, so retrieval "
            "cannot be scored."
        )
    ground_truth = known.asked(matched.questions, experiment.name)
    identity = {"traces": sorted(str(record.trace_id) for record in matched.records)}
    plan = _plan(settings, ground_truth, f"traces-{experiment.name}", identity)

    def bring(directory: RunDirectory, run: MlflowRun) -> int:
        directory.replace_answers(matched.records)
        directory.write_lines(UNMATCHED_FILE, (to_json(asdict(trace)) for trace in matched.unmatched))
        run.link_traces(record.trace_id for record in matched.records)
        return len(matched.records)

    parameters = {
        "traces": {"experiment": experiment.name, **evaluation.traces.model_dump(exclude={"experiment"})}
    }
    notes = (matched.describe(experiment.name), *known.notes(matched.questions))
    return Source(plan, f"traces of {experiment.name}", parameters, lambda: nullcontext(bring), notes=notes)


class _Lazily:
    """The ground truth, read when it is first needed: traces with gold of their own need none."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self._read: GroundTruth | None = None

    def ground_truth(self) -> GroundTruth:
        if self._read is None:
            # A limit is one of traces here.
            self._read = _read_ground_truth(self._settings.model_copy(update={"limit": None}))
        return self._read

    def asked(self, questions: Iterable[Any], experiment: str) -> GroundTruth:
        """The questions that were asked, in the order of the ground truth."""
        if self._read is None:
            return GroundTruth(experiment, Path(experiment), tuple(questions))
        asked = {question.id: question for question in questions}
        known = [question for question in self._read.questions if asked.get(question.id) is question]
        own = [question for question in asked.values() if not any(question is other for other in known)]
        return replace(self._read, questions=(*known, *own))

    def notes(self, questions: Iterable[Any]) -> list[str]:
        if self._read is None:
            return []
        ids = {question.id for question in self._read.questions}
        asked = sum(question.id in ids for question in questions)
        return [
            f"{asked} of the {len(ids)} questions of {self._read.name} were asked; the others are in no mean."
        ]


def _plan(settings: Settings, ground_truth: GroundTruth, name: str, identity: Mapping[str, Any]) -> RunPlan:
    evaluation = settings.evaluation
    mappings = retriever_mappings(evaluation)
    shown = {"retriever_schemas": {span: asdict(mapping) for span, mapping in mappings.items()}}
    return RunPlan(
        name=_run_name(ground_truth.name, evaluation.split or "all", name),
        identity={**identity, **shown} if mappings else identity,
        ground_truth=ground_truth,
        metrics=_metrics(evaluation.ks, settings.retrieval.k),
        normalization=UriNormalization(**evaluation.uris.model_dump()),
        slices=evaluation.slices,
        threads=evaluation.threads,
        max_failed_share=evaluation.max_failed_share,
        judges=configured_judges(evaluation),
        price=partial(_price, settings.language_model),
        mappings=mappings,
    )


def _metrics(ks: Iterable[int], k: int) -> list[Metric]:
    return default_metrics({*(cutoff for cutoff in ks if cutoff < k), k})


def _price(settings: LanguageModelSettings, record: AnswerRecord) -> float | None:
    """What the answer cost by the price of now, or, where none is known now, by that of then."""
    usd = answer_usd(record.reader, record.usage, settings)
    return record.usd if usd is None else usd


def _read_ground_truth(settings: EvaluationSettings, store: str | None = None) -> GroundTruth:
    return read_ground_truth(
        settings.dataset,
        split=settings.split,
        limit=settings.limit,
        columns=settings.columns or None,
        store=store,
    )


def _run_name(*parts: str) -> str:
    return "-".join("".join(c for c in part if c.isalnum() or c in "-_.") for part in parts)

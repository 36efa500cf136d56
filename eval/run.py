"""One scored run: ask, keep, score, summarize. The same call again continues where the last one ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow.entities import Trace

from eval.answering import Agent, Answered, answer_questions
from eval.evidence import RetrieverMappings
from eval.ground_truth import GroundTruth
from eval.judges.judge import Judge
from eval.judges.judgements import JudgementFile, Judgements, judged_values, standing_judgements
from eval.metrics import Metric, Scores, score_questions
from eval.questions import Question
from eval.records import AnswerRecord, RunDirectory
from eval.summary import Summary, aggregate
from eval.traces import TraceCollector, collect_traces
from eval.uris import UriNormalization
from program.recorded_calls import asking_anew
from program.trace_store import BATCH_SIZE
from retrieval.errors import RunStoppedError

TRIED_FIRST = 5
"""So many questions are tried before the rest, so that a broken set-up costs no more than these."""

Keep = Callable[[Sequence[Trace]], None]
"""Brings traces to the tracking store; raises StorageError when it cannot."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run is of, and how it is done.

    `identity` is everything that an answer depends on: runs of the same identity over the same questions
    are the same run. `max_failed_share` (0 to 1) of failing questions is tolerated. `judges` are those whose
    verdicts on the answers count; no answer depends on them. `price` is what an answer cost, None where that is
    not known: a price that is stated later holds for answers that were given before. `mappings` say what the fields
    of retrieved rows are, by RETRIEVER span, where it is configured.
    """

    name: str
    identity: Mapping[str, Any]
    ground_truth: GroundTruth
    metrics: Sequence[Metric]
    normalization: UriNormalization = field(default_factory=UriNormalization)
    slices: Sequence[str] = ("type", "lang")
    threads: int = 1
    max_failed_share: float = 0.2
    judges: Sequence[Judge] = ()
    price: Callable[[AnswerRecord], float | None] = lambda record: record.usd
    mappings: RetrieverMappings = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The run's name and 10 characters of a hash of what it is of: the name of its directory."""
        content = json.dumps([self.identity, self.ground_truth.digest], sort_keys=True, default=str)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """A scored run. `answered_now` of its questions were answered by this call, the others before.

    `judgements` are what language models said of the answers, now or before, by question and metric.
    """

    path: Path
    questions: Sequence[Question]
    records: Mapping[str, AnswerRecord]
    scores: Scores
    summary: Summary
    answered_now: int
    judgements: Judgements = field(default_factory=dict)

    @property
    def failed(self) -> Mapping[str, str]:
        """Why each failed question failed, by id."""
        return {id_: record.error for id_, record in self.records.items() if record.error is not None}


def answer_run(
    plan: RunPlan,
    directory: RunDirectory,
    agent: Agent,
    keep_traces: Keep,
    on_answer: Callable[[int, int], None] | None = None,
    *,
    retry_errors: bool = False,
) -> int:
    """Answer what the run has not answered yet; the number of questions answered.

    Each answer is on disk before the next is waited for. Traces go to `keep_traces` in batches, and those
    that are still on their way when the call ends, however it ends, go there with the next call.
    `on_answer` is told how many of the run's questions are done, and how many there are. Questions that
    failed are done, too, unless `retry_errors`, or the failures stopped the run.

    Raises:
        RunStoppedError: if the set-up proves broken on the first questions, or too many questions fail.
        StorageError: if the disk or the tracking store refuses; finished questions are kept.
    """
    if retry_errors:
        directory.forget_failures()
    done = directory.read_answers()
    todo = [question for question in plan.ground_truth.questions if question.id not in done]
    finished = len(plan.ground_truth.questions) - len(todo)
    progress = _Progress(plan, directory, keep_traces, on_answer, finished)
    try:
        # What could not be read once is recorded, too, and would be replayed.
        with collect_traces() as collector, asking_anew() if retry_errors else nullcontext():
            if not _retrieval_works(done.values()):
                first, todo = _try_first(todo)
                _check_set_up(progress.take(agent, first, collector), first)
            progress.take(agent, todo, collector)
    except RunStoppedError:
        _forget_what_broke(directory)
        raise
    finally:
        progress.flush()
    return progress.answered


def score_run(plan: RunPlan, directory: RunDirectory, answered_now: int = 0) -> RunResult:
    """Score what is answered and write the scores and the summary; nothing is asked again.

    A question that failed, or was not answered yet, is unscored: in no mean, but counted. What judges said of
    the answers as they are is a metric like the others.
    """
    records = {
        id_: record.model_copy(update={"usd": plan.price(record)})
        for id_, record in directory.read_answers().items()
    }
    questions = plan.ground_truth.questions
    observations = {id_: record.observation() for id_, record in records.items()}
    scores = score_questions(questions, observations, plan.metrics, plan.normalization)
    kept = JudgementFile(directory.path).read()
    judgements = standing_judgements(kept, plan.judges, questions, records)
    for id_, values in judged_values(judgements).items():
        scores[id_].update(values)
    summary = aggregate(scores, questions, by=plan.slices)
    asked = {question.id for question in questions}
    result = RunResult(
        path=directory.path,
        questions=questions,
        records={id_: record for id_, record in records.items() if id_ in asked},
        scores=scores,
        summary=summary,
        answered_now=answered_now,
        judgements=judgements,
    )
    directory.write_scores(score_row(question, result) for question in questions)
    directory.write_summary(asdict(summary))
    return result


def score_row(question: Question, result: RunResult) -> dict[str, Any]:
    """One question's line of `scores.jsonl`, and its row of the table that MLflow shows."""
    record = result.records.get(question.id)
    row: dict[str, Any] = {
        "id": question.id,
        "question": question.question,
        "tags": dict(question.tags),
        "gold": [
            # Grade 0 was judged not to be relevant: no reader of the row should take it for gold.
            [item.doc_uri for item in alternatives]
            for alternatives in question.gold
            if alternatives[0].grade > 0
        ],
        "error": record.error if record else "not answered",
        "metrics": dict(result.scores.get(question.id, {})),
    }
    if record is not None:
        row |= record.model_dump(exclude={"id", "error"})
    if judged := result.judgements.get(question.id):
        shown = {"verdict", "rationale", "error", "model"}
        row["judgements"] = {metric: judged[metric].model_dump(include=shown) for metric in sorted(judged)}
    return row


class _Progress:
    """A run under way: writes each answer as it comes, and stops when too many fail."""

    def __init__(
        self,
        plan: RunPlan,
        directory: RunDirectory,
        keep_traces: Keep,
        on_answer: Callable[[int, int], None] | None,
        finished: int,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._keep_traces = keep_traces
        self._on_answer = on_answer
        self._finished = finished
        self._failed = 0
        self._traces = directory.pending_traces()
        self.answered = 0

    def take(self, agent: Agent, questions: Sequence[Question], collector: TraceCollector) -> list[Answered]:
        """The outcomes of the questions, each kept when it came; without their traces, which take room."""
        taken = []
        plan = self._plan
        outcomes = answer_questions(agent, questions, collector, threads=plan.threads, mapping=plan.mappings)
        with closing(outcomes):
            for answered in outcomes:
                self._keep(answered, collector.take_strays())
                taken.append(replace(answered, traces=()))
                self._stop_if_failing(answered)
        return taken

    def flush(self) -> None:
        if self._traces:
            self._keep_traces(self._traces)
            self._traces = []
        self._directory.forget_pending_traces()

    def _keep(self, answered: Answered, strays: Sequence[Trace]) -> None:
        traces = [*answered.traces, *strays]
        self._traces.extend(traces)
        self._directory.append_answer(answered.record, traces)
        self.answered += 1
        self._failed += answered.record.error is not None
        if self._on_answer:
            self._on_answer(self._finished + self.answered, len(self._plan.ground_truth.questions))
        if len(self._traces) >= BATCH_SIZE:
            self.flush()

    def _stop_if_failing(self, answered: Answered) -> None:
        questions = len(self._plan.ground_truth.questions)
        if self._failed > max(TRIED_FIRST, self._plan.max_failed_share * questions):
            raise RunStoppedError(
                f"Stopped: {self._failed} of {self.answered} questions failed, the last one because: "
                f"{answered.record.error} Mend the cause and run the same command again."
            )


def _try_first(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """A few answerable questions, and the others: one without gold tells little of the set-up."""
    first = list(islice((question for question in questions if question.answerable), TRIED_FIRST))
    ids = {question.id for question in first}
    return first, [question for question in questions if question.id not in ids]


def _retrieval_works(records: Iterable[AnswerRecord]) -> bool:
    return any(record.retrieved for record in records)


def _forget_what_broke(directory: RunDirectory) -> None:
    """Have failed questions asked again; all of them, when what was answered is no evidence of anything."""
    if _retrieval_works(directory.read_answers().values()):
        directory.forget_failures()
    else:
        directory.forget_answers()


def _check_set_up(tried: Sequence[Answered], questions: Sequence[Question]) -> None:
    """Stop before the rest is asked when what was tried shows that nothing can come of it.

    One question alone shows nothing: its result is shown instead.
    """
    if len(tried) < 2:
        return
    if all(answered.record.error is not None for answered in tried):
        raise RunStoppedError(
            f"Stopped: each of the first {len(tried)} questions failed, the last one because: "
            f"{tried[-1].record.error} Mend the cause and run the same command again."
        )
    if not any(answered.retrieval_seen for answered in tried):
        raise RunStoppedError(
            f"Stopped: no RETRIEVER span in the traces of the first {len(tried)} questions, so retrieval "
            "cannot be scored. Let the agent search through retrieval.tracing.traced_search, and start its "
            "own threads, if it has any, with retrieval.tracing.in_current_trace."
        )
    if not any(answered.record.retrieved for answered in tried):
        raise RunStoppedError(
            f"Stopped: nothing was retrieved for any of the first {len(tried)} questions, such as "
            f"{questions[0].question!r}. Is this the index of the dataset's documents? Do the filters fit?"
        )

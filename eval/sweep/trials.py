"""One configuration of a sweep, answered and scored: from what is kept where it is there, else by asking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.ground_truth import GroundTruth
from eval.metrics import Metric, Scores, score_questions
from eval.questions import Question
from eval.run_identity import scoring_hash
from eval.stats import Interval
from eval.summary import Slice, Summary, aggregate
from eval.sweep.results import NOTHING, Objective, Spending, State, Trial, total
from eval.sweep.space import Parameters, Space
from eval.sweep.stages import Stages
from eval.uris import UriNormalization
from program.content_store import ContentStore, content_key
from program.settings import Settings
from retrieval.errors import CiteqaError

if TYPE_CHECKING:
    from eval.records import AnswerRecord
    from eval.sweep.answering import StagedAgent

TRIED_FIRST = 5
"""When so many questions fail and none was answered before, the configuration itself is broken."""

_ANSWER, _FAILURE = "answer", "failure"
_TRIAL_FILE = "trial.json"

Race = Callable[[int, Mapping[str, float]], bool]
"""Told how many questions are answered and their values by question id; whether to stop."""


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial with its first objective's value for each question that has one."""

    trial: Trial
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """A trial under way: of its questions so many are answered; what the last answer cost, if it was asked now.

    What was replayed from calls that another configuration made costs nothing now.
    """

    answered: int
    spent: Spending = NOTHING


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What all trials share.

    `digest` is the ground truth's, which takes a while to compute. `order` is the order of asking, in which
    racing looks at the questions; `depth` the largest k of all. `before_asking` is called before each question that
    has to be asked; what it raises ends the trial.
    """

    space: Space
    stages: Stages
    ground_truth: GroundTruth
    digest: str
    split: str
    order: Sequence[Question]
    metrics: Sequence[Metric]
    objectives: Sequence[Objective]
    directory: Path
    depth: int
    looks: Sequence[int] = ()
    retry_errors: bool = False
    on_progress: Callable[[Progress], None] = field(default=lambda _: None)
    before_asking: Callable[[], None] = field(default=lambda: None)

    @property
    def normalization(self) -> UriNormalization:
        """How URIs are compared."""
        return UriNormalization(**self.space.base.evaluation.uris.model_dump())


class TrialFailedError(CiteqaError):
    """A configuration cannot be evaluated: it is set up wrongly, or too many of its questions fail."""


def run_trial(plan: TrialPlan, number: int, parameters: Parameters, race: Race | None = None) -> ScoredTrial:
    """Evaluate one configuration. What is kept of it, or of others that share its stages, is not done again.

    With `race`, it is asked at each of the plan's looks whether to stop. A configuration that cannot be
    evaluated gives a trial in the state `failed`.

    Raises:
        StorageError: if the cache or the disk refuses.
        KeyboardInterrupt: when interrupted; answers are kept.
    """
    evaluation = _TrialRun(plan, number, parameters)
    try:
        return evaluation.run(race)
    except TrialFailedError as error:
        return evaluation.failed(str(error))


def trial_directory(plan: TrialPlan, parameters: Parameters) -> Path:
    """Where a configuration's files are: named by its parameters and the questions."""
    key = content_key(dict(parameters), plan.digest)
    return plan.directory / "trials" / key[:12]


class _TrialRun:
    def __init__(self, plan: TrialPlan, number: int, parameters: Parameters) -> None:
        self._plan = plan
        self._number = number
        self._parameters = dict(parameters)
        self._path = trial_directory(plan, parameters)
        self._records: dict[str, AnswerRecord] = {}
        self._failures: dict[str, AnswerRecord] = {}
        self._scores: Scores = {}

    def run(self, race: Race | None) -> ScoredTrial:
        settings, identity = self._prepared()
        key = content_key(
            identity,
            self._plan.digest,
            [metric.name for metric in self._plan.metrics],
            [asdict(objective) for objective in self._plan.objectives if objective.mix],
            asdict(self._plan.normalization),
            settings.language_model.model_dump(include={"price"}),
            settings.evaluation.slices,
            scoring_hash(),
        )
        if (kept := self._kept(key)) is not None:
            return kept
        with _Asking(self._plan, settings, identity) as asking:
            for block in self._blocks():
                self._answer(asking, block)
                if (
                    race
                    and len(self._records) in self._plan.looks
                    and race(len(self._records), self._values())
                ):
                    asking.keep_failures(self._failures.values())
                    return self._finish(settings, "stopped", f"after {len(self._records)} questions")
            asking.keep_failures(self._failures.values())
        return self._finish(settings, "complete", "", key)

    def failed(self, reason: str) -> ScoredTrial:
        nothing = Slice({}, 0, len(self._plan.order), {})
        return ScoredTrial(self._trial("failed", reason, Summary(nothing, {}), NOTHING), {})

    def _prepared(self) -> tuple[Settings, dict[str, Any]]:
        try:
            settings = self._plan.stages.with_index(self._plan.space.settings(self._parameters))
            return settings, self._plan.stages.identity(settings)
        except CiteqaError as error:
            raise TrialFailedError(str(error)) from error

    def _blocks(self) -> Iterator[Sequence[Question]]:
        """The questions up to each look, then the rest."""
        order = self._plan.order
        ends = sorted({*(look for look in self._plan.looks if look < len(order)), len(order)})
        for start, end in zip([0, *ends], ends, strict=False):
            yield order[start:end]

    def _answer(self, asking: _Asking, questions: Sequence[Question]) -> None:
        answered = {}
        for unpriced, is_paid in asking.outcomes(questions):
            record = _priced(unpriced, asking.settings)
            self._records[record.id] = answered[record.id] = record
            if record.error is not None:
                self._failures[record.id] = record
                self._check_failures(record.error)
            spent = spending_of(record) if is_paid else NOTHING
            self._plan.on_progress(Progress(len(self._records), spent))
        observations = {id_: record.observation() for id_, record in answered.items()}
        scores = score_questions(questions, observations, self._plan.metrics, self._plan.normalization)
        for mix in (objective.mix for objective in self._plan.objectives if objective.mix):
            for row in scores.values():
                if row:
                    row[mix.name] = mix.value(row)
        self._scores |= scores

    def _check_failures(self, reason: str) -> None:
        failed, asked = len(self._failures), len(self._records)
        share = self._plan.space.base.evaluation.max_failed_share
        if failed == asked == min(TRIED_FIRST, len(self._plan.order)):
            raise TrialFailedError(f"each of the first {failed} questions failed, the last because: {reason}")
        if failed > max(TRIED_FIRST, share * len(self._plan.order)):
            raise TrialFailedError(f"{failed} of {asked} questions failed, the last because: {reason}")

    def _values(self) -> dict[str, float]:
        return _values_of(self._scores, self._plan.objectives[0].name)

    def _finish(self, settings: Settings, state: State, reason: str, key: str = "") -> ScoredTrial:
        from eval.records import disk_refusals, write_json
        from eval.sweep.trial_files import write_trial

        questions = [q for q in self._plan.ground_truth.questions if q.id in self._records]
        summary = aggregate(self._scores, questions, by=settings.evaluation.slices)
        spending = total(spending_of(record) for record in self._records.values())
        trial = self._trial(state, reason, summary, spending)
        # Gone while its files are replaced, so that whatever interrupts leaves nothing that passes for finished.
        with disk_refusals(self._path):
            (self._path / _TRIAL_FILE).unlink(missing_ok=True)
        write_trial(
            self._path,
            self._plan.ground_truth,
            self._plan.digest,
            self._plan.split,
            settings,
            questions,
            self._records,
            self._scores,
            summary,
        )
        if key:
            body = {"key": key, "spending": asdict(spending), "failed": len(self._failures)}
            write_json(self._path / _TRIAL_FILE, body)
        return ScoredTrial(trial, self._values())

    def _kept(self, key: str) -> ScoredTrial | None:
        """The trial as it was finished before; None when it was not, or differs, or its files are damaged."""
        try:
            body = json.loads((self._path / _TRIAL_FILE).read_bytes())
            if body["key"] != key or (body["failed"] and self._plan.retry_errors):
                return None
            summary = _summary_from(json.loads((self._path / "summary.json").read_bytes()))
            with (self._path / "scores.jsonl").open("rb") as lines:
                scores = {row["id"]: row["metrics"] for row in map(json.loads, lines)}
            if len(scores) != len(self._plan.order):
                return None
            trial = self._trial("complete", "", summary, Spending(**body["spending"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._plan.on_progress(Progress(len(self._plan.order)))
        return ScoredTrial(trial, _values_of(scores, self._plan.objectives[0].name))

    def _trial(self, state: State, reason: str, summary: Summary, spending: Spending) -> Trial:
        intervals = summary.overall.intervals
        values = {
            objective.name: intervals[objective.name].mean if objective.name in intervals else None
            for objective in self._plan.objectives
        }
        return Trial(self._number, self._parameters, state, reason, self._path, values, summary, spending)


class _Asking:
    """Answers of one configuration: those that are kept, then those of its agent, made when it is needed."""

    def __init__(self, plan: TrialPlan, settings: Settings, identity: Mapping[str, Any]) -> None:
        self._plan = plan
        self.settings = settings
        self._identity = identity
        self._resources = ExitStack()
        self._agent: StagedAgent | None = None

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def outcomes(self, questions: Sequence[Question]) -> Iterator[tuple[AnswerRecord, bool]]:
        """Each question's record, with whether it costs anything now. Answers are kept as they come."""
        kept = {question.id: self._kept(question) for question in questions}
        yield from ((record, False) for record in kept.values() if record is not None)
        todo = {question.id: question for question in questions if kept[question.id] is None}
        if not todo:
            return
        agent = self._started_agent()
        with _Keeping(self._plan.stages.store) as keeping:
            for outcome in agent.answer_all(
                list(todo.values()), self._plan.before_asking, self._failed(todo)
            ):
                if outcome.is_steady:
                    keeping.keep(self._key(todo[outcome.record.id]), _to_json(outcome.record))
                yield outcome.record, outcome.is_paid

    def keep_failures(self, records: Iterable[AnswerRecord]) -> None:
        """Have failures stand, so that they are not asked again but with `retry_errors`."""
        questions = {question.id: question for question in self._plan.order}
        for record in records:
            self._plan.stages.store.put(_FAILURE, self._key(questions[record.id]), _to_json(record))

    def _failed(self, questions: Mapping[str, Question]) -> Set[str]:
        """The ids of those that failed before, whose calls must not be replayed: they would fail again."""
        if not self._plan.retry_errors:
            return frozenset()
        store = self._plan.stages.store
        return {id_ for id_, q in questions.items() if store.get(_FAILURE, self._key(q)) is not None}

    def _kept(self, question: Question) -> AnswerRecord | None:
        from eval.records import AnswerRecord

        store, key = self._plan.stages.store, self._key(question)
        value = store.get(_ANSWER, key)
        if value is None and not self._plan.retry_errors:
            value = store.get(_FAILURE, key)
        return None if value is None else AnswerRecord(id=question.id, **value)

    def _key(self, question: Question) -> str:
        return content_key(self._identity, question.question, [dict(turn) for turn in question.history])

    def _started_agent(self) -> StagedAgent:
        from eval.sweep.answering import StagedAgent

        if self._agent is None:
            try:
                agent = StagedAgent(
                    self.settings,
                    self._plan.stages.store,
                    self._plan.depth,
                    self._plan.stages.recent_searches,
                )
            except CiteqaError as error:
                raise TrialFailedError(str(error)) from error
            self._agent = self._resources.enter_context(agent)
        return self._agent


class _Keeping:
    """Keeps answers as they come: a few together, where they come faster than a disk likes."""

    _WITHIN_S = 0.25

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._waiting: dict[str, dict[str, Any]] = {}
        self._kept_at = 0.0

    def __enter__(self) -> _Keeping:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def keep(self, key: str, value: dict[str, Any]) -> None:
        self._waiting[key] = value
        if time.monotonic() - self._kept_at > self._WITHIN_S:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._store.put_all(_ANSWER, self._waiting)
            self._waiting = {}
        self._kept_at = time.monotonic()


def spending_of(record: AnswerRecord) -> Spending:
    """What one answer cost when it was first given."""
    if record.error is not None or record.asked_no_model:
        return NOTHING
    return Spending(
        usd=record.usd,
        input_tokens=record.usage.get("input_tokens", 0),
        output_tokens=record.usage.get("output_tokens", 0),
        calls=record.calls or 1,
    )


def _priced(record: AnswerRecord, settings: Settings) -> AnswerRecord:
    # By what is asked now: a price that is stated later holds for answers that were given before.
    from program.prices import answer_usd

    usd = answer_usd(record.reader, record.usage, settings.language_model)
    return record.model_copy(update={"usd": usd})


def _to_json(record: AnswerRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"id", "trace_id"})


def _values_of(scores: Mapping[str, Mapping[str, float | None]], metric: str) -> dict[str, float]:
    return {id_: value for id_, row in scores.items() if (value := row.get(metric)) is not None}


def _summary_from(body: Mapping[str, Any]) -> Summary:
    return Summary(
        _slice_from(body["overall"]),
        {
            tag: {value: _slice_from(part) for value, part in slices.items()}
            for tag, slices in body["slices"].items()
        },
    )


def _slice_from(body: Mapping[str, Any]) -> Slice:
    intervals = {name: Interval(**interval) for name, interval in body["intervals"].items()}
    return Slice(intervals, body["scored"], body["unscored"], body["not_applicable"])

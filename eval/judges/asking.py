"""Ask MLflow's judges about what is answered. The agent is never asked again, and no judge twice about the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mlflow.entities import Feedback, Span, Trace, TraceData
from mlflow.tracing.constant import SpanAttributeKey

from eval.judges.judge import (
    WITH_EXPECTATIONS,
    WITH_TRACE,
    Judge,
    applies,
    evidence_key,
    expectations,
    messages,
)
from eval.judges.judge_model import judge_environment
from eval.judges.judgements import Judgement, JudgementFile
from eval.judges.verdicts import read_verdict
from eval.questions import Question
from eval.records import AnswerRecord
from program.lm_errors import hide_secrets
from program.prices import usd
from program.settings import JudgeModelSettings, LanguageModelSettings
from program.threads import map_in_threads
from retrieval.errors import CiteqaError, DataError, RunStoppedError

FAILURES_BORNE = 5
"""So many failures stop nothing, unless nothing else was seen."""

_REASON_CHARACTERS = 300

FetchTrace: TypeAlias = Callable[[str], "Trace | None"]
"""The trace of an id, from where traces are kept; None where it is not there."""

KeepFeedback: TypeAlias = Callable[[str, Sequence[Feedback]], None]
"""Puts what a judge said on the trace of an id."""


@dataclass(frozen=True, slots=True)
class _Task:
    judge: Judge
    question: Question
    record: AnswerRecord
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    judgement: Judgement
    feedbacks: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """The judges, who they ask, and the limits of a round of asking.

    `max_failed_share` (0 to 1) of failing calls is tolerated.
    """

    judges: Sequence[Judge]
    model: JudgeModelSettings
    threads: int = 1
    max_failed_share: float = 0.2

    def ask(
        self,
        questions: Sequence[Question],
        records: Mapping[str, AnswerRecord],
        kept: JudgementFile,
        fetch_trace: FetchTrace,
        keep_feedback: KeepFeedback | None = None,
        on_verdict: Callable[[int, int], None] | None = None,
    ) -> int:
        """Ask every judge about every answered question that it applies to and was not asked about; how many calls.

        Each verdict is on disk before the next is waited for. A judge that fails says why and leaves its value
        unscored; it is asked again only after `kept.forget_failures()`, or when failures stopped the round.
        `on_verdict` is told how many of the calls are done, and how many there are.

        Raises:
            RunStoppedError: if nothing but failures comes, or too many.
            StorageError: if the disk refuses.
        """
        tasks = self._tasks(questions, records, kept)
        if not tasks:
            return 0
        failed = 0
        with judge_environment(self.model):
            scorers = {judge.metric: build_scorer(judge) for judge in self.judges}
            outcomes = map_in_threads(
                lambda task: self._ask(scorers[task.judge.metric], task),
                _with_traces(tasks, fetch_trace),
                threads=self.threads,
                name="citeqa-judge",
            )
            with closing(outcomes):
                for done, outcome in enumerate(outcomes, start=1):
                    kept.append(outcome.judgement)
                    if (
                        keep_feedback
                        and outcome.feedbacks
                        and (trace_id := records[outcome.judgement.id].trace_id)
                    ):
                        keep_feedback(trace_id, outcome.feedbacks)
                    failed += outcome.judgement.error is not None
                    if on_verdict:
                        on_verdict(done, len(tasks))
                    if self._hopeless(failed, done, len(tasks)):
                        kept.forget_failures()
                        raise _stopped(failed, done, outcome.judgement)
        return len(tasks)

    def _tasks(
        self, questions: Sequence[Question], records: Mapping[str, AnswerRecord], kept: JudgementFile
    ) -> list[_Task]:
        known = {
            (judgement.judge, judgement.metric, judgement.id, judgement.evidence) for judgement in kept.read()
        }
        return [
            _Task(judge, question, record)
            for question in questions
            if (record := records.get(question.id)) is not None and record.error is None
            for judge in self.judges
            if applies(judge.scorer, question)
            and (judge.key, judge.metric, question.id, evidence_key(judge.scorer, question, record))
            not in known
        ]

    def _ask(self, scorer: Callable[..., Any], task: _Task) -> _Outcome:
        judge, question, record = task.judge, task.question, task.record
        started = time.perf_counter()
        blank = Judgement(
            id=question.id,
            metric=judge.metric,
            scorer=judge.scorer,
            model=judge.model,
            judge=judge.key,
            evidence=evidence_key(judge.scorer, question, record),
        )
        try:
            returned = scorer(**_arguments(task))
            verdict = read_verdict(returned)
        except CiteqaError as error:
            return _Outcome(blank.model_copy(update={"error": str(error)}), ())
        except Exception as error:  # noqa: BLE001 - whatever MLflow or a client raised: the reason of this verdict
            return _Outcome(blank.model_copy(update={"error": _reason(error)}), ())
        found = {
            "value": verdict.value,
            "verdict": verdict.verdict,
            "rationale": verdict.rationale,
            "usage": verdict.usage,
            "cost_usd": _cost(self.model, verdict.usage, verdict.mlflow_cost_usd),
            "latency_ms": round(1000 * (time.perf_counter() - started), 3),
        }
        return _Outcome(blank.model_copy(update=found), verdict.feedbacks)

    def _hopeless(self, failed: int, done: int, total: int) -> bool:
        if failed < FAILURES_BORNE:
            return False
        return failed == done or failed > max(FAILURES_BORNE, self.max_failed_share * total)


def build_scorer(judge: Judge) -> Callable[..., Any]:
    """MLflow's scorer of the judge, under the name that people's labels on traces have too."""
    from mlflow.genai import scorers

    more = {"guidelines": list(judge.guidelines)} if judge.guidelines else {}
    scorer: Callable[..., Any] = getattr(scorers, judge.scorer)(
        name=judge.assessment, model=judge.model, **more
    )
    return scorer


def _with_traces(tasks: Sequence[_Task], fetch_trace: FetchTrace) -> Iterator[_Task]:
    """The tasks, with the trace of those that need it, fetched when their turn comes and once for a question."""
    trace_id, trace = None, None
    for task in tasks:
        if task.judge.scorer in WITH_TRACE and task.record.trace_id:
            if task.record.trace_id != trace_id:
                trace_id, trace = task.record.trace_id, fetch_trace(task.record.trace_id)
            task = replace(task, trace=trace)
        yield task


def _arguments(task: _Task) -> dict[str, Any]:
    """What the scorer is called with. Raises DataError where the trace that it reads is gone."""
    scorer, question = task.judge.scorer, task.question
    arguments: dict[str, Any] = {}
    if scorer in WITH_EXPECTATIONS:
        arguments["expectations"] = expectations(scorer, question)
    if scorer in WITH_TRACE:
        if task.trace is None:
            raise DataError(
                f"Its trace ({task.record.trace_id or 'none was kept'}) is not in the tracking store, and {scorer} "
                "reads the passages from there. Use the store that the run was made with, or answer anew."
            )
        return {**arguments, "trace": _asked_plainly(task.trace, question)}
    if scorer not in ("Fluency", "Safety", "Equivalence"):
        # As messages, which MLflow's prompts show as plain text; a dictionary they would show as one.
        arguments["inputs"] = {"messages": messages(question)}
    return {**arguments, "outputs": task.record.answer}


def _asked_plainly(trace: Trace, question: Question) -> Trace:
    """The trace with the question as its root's input.

    MLflow shows a judge what the root was called with, and a ResponsesAgent is called with a request of some
    twenty fields, all but one of them empty: noise that is paid for by the token.
    """
    asked = json.dumps({"messages": messages(question)}, ensure_ascii=False)
    spans = [_with_inputs(span, asked) if span.parent_id is None else span for span in trace.data.spans]
    return Trace(trace.info, TraceData(spans))


def _with_inputs(span: Span, inputs: str) -> Span:
    values = span.to_dict()
    values["attributes"] = {**values["attributes"], SpanAttributeKey.INPUTS: inputs}
    return Span.from_dict(values)


def _cost(model: JudgeModelSettings, usage: Mapping[str, int], by_mlflow: float | None) -> float | None:
    """By the settings or the list that the agent's cost is counted by, and else by MLflow's."""
    name = (model.model or "").replace(":/", "/", 1)
    price = usd(usage, LanguageModelSettings(model=name, price=model.price))
    return by_mlflow if price is None else price


def _reason(error: Exception) -> str:
    """One line without a key; MLflow quotes whole answers."""
    line = " ".join(hide_secrets(str(error) or repr(error)).split())
    return line if len(line) <= _REASON_CHARACTERS else f"{line[: _REASON_CHARACTERS - 1]}…"


def _stopped(failed: int, done: int, last: Judgement) -> RunStoppedError:
    return RunStoppedError(
        f"Stopped judging: {failed} of {done} calls failed, the last one ({last.metric}, question {last.id!r}) "
        f"because: {last.error} The answers and the verdicts that came are kept. Mend the cause and run the same "
        "command again, or leave the judges out: --set evaluation.judges=[]"
    )

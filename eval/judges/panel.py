"""Ask judges about what is answered. The agent is never asked again, and no judge twice about the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from mlflow.entities import Feedback, Trace

from eval.judges.call import JudgeCall, Outcome, Scorer, build_scorer, from_stored, make_call, to_stored
from eval.judges.judge import WITH_TRACE, Judge, applies
from eval.judges.judge_model import judge_environment
from eval.judges.judgements import Judgement, JudgementFile
from eval.questions import Question
from eval.records import AnswerRecord
from program.content_store import ContentStore
from program.settings import JudgeModelSettings
from program.threads import map_in_threads
from retrieval.errors import RunStoppedError

FAILURES_BORNE = 5
"""So many failures stop nothing, unless nothing else was seen."""

_KIND = "judgement"


class TraceStore(Protocol):
    """Where the traces of the answers are; an `eval.mlflow_run.MlflowRun` is one."""

    def fetch_trace(self, trace_id: str) -> Trace | None:
        """The trace; None where it is not there."""
        ...

    def keep_feedback(self, trace_id: str, feedbacks: Sequence[Feedback]) -> None:
        """Put what a judge said on the trace."""
        ...


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """The judges, who they ask, and the limits of a round of asking.

    `max_failed_share` (0 to 1) of failing calls is tolerated. What is in `shared` is asked of nobody: an answer
    that several runs gave is judged once, and keeps what that cost.
    """

    judges: Sequence[Judge]
    model: JudgeModelSettings
    threads: int = 1
    max_failed_share: float = 0.2
    shared: ContentStore | None = None

    def ask(
        self,
        questions: Sequence[Question],
        records: Mapping[str, AnswerRecord],
        kept: JudgementFile,
        traces: TraceStore,
        on_verdict: Callable[[int, int], None] | None = None,
    ) -> int:
        """Get a judgement of every judge on every answer that it applies to and has not judged; how many.

        Each is on disk before the next is waited for. A judge that fails says why and leaves its value unscored;
        it is asked again only after `kept.forget_failures()`, or when failures stopped the round. `on_verdict` is
        told how many are done, and how many there are to do.

        Raises:
            RunStoppedError: if nothing but failures comes, or too many.
            StorageError: if the disk refuses.
        """
        calls = self._calls(questions, records, kept)
        if not calls:
            return 0
        failed = 0
        with judge_environment(self.model), closing(self._outcomes(calls, traces)) as outcomes:
            for done, outcome in enumerate(outcomes, start=1):
                judgement = outcome.judgement
                kept.append(judgement)
                trace_id = records[judgement.id].trace_id
                if trace_id and outcome.feedbacks:
                    traces.keep_feedback(trace_id, outcome.feedbacks)
                failed += judgement.error is not None
                if on_verdict:
                    on_verdict(done, len(calls))
                if self._hopeless(failed, done, len(calls)):
                    kept.forget_failures()
                    raise _stopped(failed, done, judgement)
        return len(calls)

    def _calls(
        self, questions: Sequence[Question], records: Mapping[str, AnswerRecord], kept: JudgementFile
    ) -> list[JudgeCall]:
        known = {(done.id, done.metric, done.judge, done.evidence) for done in kept.read()}
        calls = (
            JudgeCall(judge, question, record)
            for question in questions
            if (record := records.get(question.id)) is not None and record.error is None
            for judge in self.judges
            if applies(judge.scorer, question)
        )
        return [
            call
            for call in calls
            if (call.question.id, call.judge.metric, call.judge.key, call.evidence) not in known
        ]

    def _outcomes(self, calls: Sequence[JudgeCall], traces: TraceStore) -> Generator[Outcome, None, None]:
        scorers = {judge.metric: build_scorer(judge) for judge in self.judges}
        return map_in_threads(
            lambda call: self._outcome(call, scorers[call.judge.metric]),
            _with_traces(calls, traces),
            threads=self.threads,
            name="citeqa-judge",
        )

    def _outcome(self, call: JudgeCall, scorer: Scorer) -> Outcome:
        if self.shared is None:
            return make_call(call, scorer, self.model)
        key = call.content
        stored = self.shared.get(_KIND, key)
        if stored is not None:
            return from_stored(stored, call)
        outcome = make_call(call, scorer, self.model)
        if outcome.judgement.error is None:
            self.shared.put(_KIND, key, to_stored(outcome))
        return outcome

    def _hopeless(self, failed: int, done: int, total: int) -> bool:
        if failed < FAILURES_BORNE:
            return False
        return failed == done or failed > max(FAILURES_BORNE, self.max_failed_share * total)


def _with_traces(calls: Sequence[JudgeCall], traces: TraceStore) -> Iterator[JudgeCall]:
    """The calls, with the trace of those that need it: fetched when their turn comes, and once for an answer."""
    trace_id, trace = None, None
    for call in calls:
        if call.judge.scorer in WITH_TRACE and call.record.trace_id:
            if call.record.trace_id != trace_id:
                trace_id, trace = call.record.trace_id, traces.fetch_trace(call.record.trace_id)
            call = replace(call, trace=trace)
        yield call


def _stopped(failed: int, done: int, last: Judgement) -> RunStoppedError:
    return RunStoppedError(
        f"Stopped judging: {failed} of {done} calls failed, the last one ({last.metric}, question {last.id!r}) "
        f"because: {last.error} The answers and the verdicts that came are kept. Mend the cause and run the same "
        "command again, or leave the judges out: --set evaluation.judges=[]"
    )

"""One call of a judge: what it is shown, and what becomes of what it returns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlflow.entities import Feedback, Span, SpanType, Trace, TraceData
from mlflow.tracing.constant import SpanAttributeKey

from eval.judges.judge import WITH_EXPECTATIONS, WITH_TRACE, Judge, evidence_key, expectations, messages
from eval.judges.judgements import Judgement
from eval.judges.verdicts import read_verdict
from eval.questions import Question
from eval.records import AnswerRecord
from program.content_store import content_key
from program.lm_errors import hide_secrets
from program.prices import usd
from program.settings import JudgeModelSettings, LanguageModelSettings
from program.well_formed import shorten
from retrieval.errors import CiteqaError, DataError

_WITHOUT_QUESTION = ("Equivalence", "Fluency", "Safety")
_REASON_CHARACTERS = 300

Scorer: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """A judge and an answer, with the answer's trace where the judge reads it from there."""

    judge: Judge
    question: Question
    record: AnswerRecord
    trace: Trace | None = None

    @property
    def evidence(self) -> str:
        """The key of what is judged."""
        return evidence_key(self.judge.scorer, self.question, self.record)

    @property
    def content(self) -> str:
        """A hash of all that a verdict depends on, passages' texts included: the same in any run."""
        spans = self.trace.data.spans if self.trace else ()
        found = [span.outputs for span in spans if span.span_type == SpanType.RETRIEVER]
        return content_key(self.judge.key, self.evidence, found)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: the judgement, and what of it goes on the trace."""

    judgement: Judgement
    feedbacks: tuple[Feedback, ...] = ()


def build_scorer(judge: Judge) -> Scorer:
    """MLflow's scorer of the judge, under the name that people's labels on traces have too."""
    from mlflow.genai import scorers

    more = {"guidelines": list(judge.guidelines)} if judge.guidelines else {}
    scorer: Scorer = getattr(scorers, judge.scorer)(name=judge.assessment, model=judge.model, **more)
    return scorer


def make_call(call: JudgeCall, scorer: Scorer, model: JudgeModelSettings) -> Outcome:
    """Ask. What fails is a judgement with its reason, whatever failed."""
    judge = call.judge
    blank = Judgement(
        id=call.question.id,
        metric=judge.metric,
        scorer=judge.scorer,
        model=judge.model,
        judge=judge.key,
        evidence=call.evidence,
    )
    started = time.perf_counter()
    try:
        verdict = read_verdict(scorer(**_arguments(call)))
    except CiteqaError as error:
        return Outcome(blank.model_copy(update={"error": str(error)}))
    except Exception as error:  # noqa: BLE001 - whatever MLflow or a client raised: the reason of this judgement
        return Outcome(blank.model_copy(update={"error": _reason(error)}))
    found = {
        "value": verdict.value,
        "verdict": verdict.verdict,
        "rationale": verdict.rationale,
        "usage": verdict.usage,
        "cost_usd": _cost(model, verdict.usage, verdict.mlflow_cost_usd),
        "latency_ms": round(1000 * (time.perf_counter() - started), 3),
    }
    return Outcome(blank.model_copy(update=found), verdict.feedbacks)


def to_stored(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON, for other runs with the same answer."""
    return {
        "judgement": outcome.judgement.model_dump(),
        "feedbacks": [feedback.to_dictionary() for feedback in outcome.feedbacks],  # type: ignore[no-untyped-call]
    }


def from_stored(stored: Mapping[str, Any], call: JudgeCall) -> Outcome:
    """What `to_stored` made, as the outcome of a call with the same content."""
    judgement = Judgement.model_validate(stored["judgement"])
    named = {"id": call.question.id, "metric": call.judge.metric}
    feedbacks = [Feedback.from_dictionary(dict(feedback)) for feedback in stored["feedbacks"]]
    for feedback in feedbacks:
        feedback.name = feedback.name.replace(judgement.metric.removeprefix("judge_"), call.judge.assessment)
        # The span was of another trace.
        feedback.span_id = None
    return Outcome(judgement.model_copy(update=named), tuple(feedbacks))


def _arguments(call: JudgeCall) -> dict[str, Any]:
    """What the scorer is called with. Raises DataError where the trace that it reads is gone."""
    scorer, question = call.judge.scorer, call.question
    arguments: dict[str, Any] = {}
    if scorer in WITH_EXPECTATIONS:
        arguments["expectations"] = expectations(scorer, question)
    if scorer in WITH_TRACE:
        if call.trace is None:
            raise DataError(
                f"Its trace ({call.record.trace_id or 'none was kept'}) is not in the tracking store, and "
                f"{scorer} reads the passages from there. Use the store that the run was made with, or answer "
                "anew."
            )
        return {**arguments, "trace": _told_plainly(call.trace, question, call.record.answer)}
    if scorer not in _WITHOUT_QUESTION:
        # As messages, which MLflow's prompts show as plain text; a dictionary they would show as one.
        arguments["inputs"] = {"messages": messages(question)}
    return {**arguments, "outputs": call.record.answer}


def _told_plainly(trace: Trace, question: Question, answer: str) -> Trace:
    """The trace with the question as its root's input, and the answer as its output.

    MLflow shows a judge what the root was called with and returned. A ResponsesAgent is called with a request of
    some twenty fields, all but one of them empty: noise that is paid for by the token.

    Raises:
        DataError: if the root is a search, so that the answer is in no span around it.
    """
    asked = json.dumps({"messages": messages(question)}, ensure_ascii=False)
    said = json.dumps(answer, ensure_ascii=False)
    spans = []
    for span in trace.data.spans:
        if span.parent_id is None:
            if span.span_type == SpanType.RETRIEVER:
                raise DataError(
                    f"Its trace {trace.info.trace_id} holds a search and nothing around it, so MLflow's judges would "
                    "take the passages for the answer. Trace the agent's answering as a whole."
                )
            span = _with_attributes(span, {SpanAttributeKey.INPUTS: asked, SpanAttributeKey.OUTPUTS: said})
        spans.append(span)
    return Trace(trace.info, TraceData(spans))


def _with_attributes(span: Span, attributes: Mapping[str, str]) -> Span:
    values = span.to_dict()
    values["attributes"] = {**values["attributes"], **attributes}
    return Span.from_dict(values)


def _cost(model: JudgeModelSettings, usage: Mapping[str, int], by_mlflow: float | None) -> float | None:
    """By the settings or the list that the agent's cost is counted by, and else by MLflow's."""
    name = (model.model or "").replace(":/", "/", 1)
    price = usd(usage, LanguageModelSettings(model=name, price=model.price))
    return by_mlflow if price is None else price


def _reason(error: Exception) -> str:
    """One line without a key; MLflow quotes whole answers."""
    return shorten(" ".join(hide_secrets(str(error) or repr(error)).split()), _REASON_CHARACTERS)

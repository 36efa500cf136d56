"""Scores from traces: what `mlflow.genai.evaluate`, or whatever gave feedback, said of a run's answers.

The rules:
- A question is a trace's request: the text of its question as `eval.formats.agent_evaluation_set` finds it
  (`question`, `query`, the last user message of `messages` or `input`), or else the whole request as JSON. Its
  id is the hash of that and of the turns before it, so that the same question in another run has the same id.
  `client_request_id` is not used: it names a request, and the same question in another run is another one.
- A metric is feedback of one name whose value is a number, a boolean, or `yes` or `no`, as MLflow's judges
  say. Names as ours are in MLflow (`recall_at_5`) get their own spelling back (`recall@5`).
- Feedback of another run on the same trace, feedback that was overridden, and feedback with an error do not
  count. Of several by the same name the last one does; of several traces of one question the last trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Expectation, Feedback, Run, Trace
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.constant import AssessmentMetadataKey

from eval.evidence import retrieved_documents
from eval.formats.agent_evaluation_set import to_question
from eval.metric_names import parse_metric
from eval.questions import hashed_id
from eval.replies import read_said
from eval.scored_runs import ScoredRun
from retrieval.errors import ConfigurationError, DataError, GroundTruthError

_PAGE = 100
_RATINGS = {"yes": 1.0, "no": 0.0}
_GOLD = "expected_retrieved_context"
_OUR_TAGS = "mlflow."


def read_traces(client: MlflowClient, run: Run) -> ScoredRun:
    """The scored run that the run's traces make.

    Raises:
        DataError: if it has no traces, or none with feedback that is a number.
    """
    questions: dict[str, str] = {}
    tags: dict[str, Mapping[str, str]] = {}
    scores: dict[str, Mapping[str, float]] = {}
    unscored: dict[str, str] = {}
    traces: dict[str, str] = {}
    for trace in _traces(client, run):
        id_, text = question_of(trace)
        questions[id_], traces[id_] = text, trace.info.trace_id
        tags[id_] = {tag: v for tag, v in trace.info.tags.items() if not tag.startswith(_OUR_TAGS)}
        scores[id_] = _feedback(trace, run.info.run_id)
        unscored.pop(id_, None)
        if not scores[id_]:
            failed = trace.info.state == TraceState.ERROR
            unscored[id_] = "the agent failed" if failed else "no feedback that is a number"
    if not any(scores.values()):
        raise DataError(
            f"MLflow run {run.info.run_id} has no {'feedback that is a number' if questions else 'traces'}, and "
            "no scores.jsonl. Name a run of citeqa eval, or one of mlflow.genai.evaluate."
        )
    metrics = dict.fromkeys(name for row in scores.values() for name in row)
    return ScoredRun(
        name=run.info.run_name or run.info.run_id,
        source=f"runs:/{run.info.run_id}",
        questions=questions,
        values={m: np.array([scores[id_].get(m, np.nan) for id_ in questions]) for m in metrics},
        tags=tags,
        unscored=unscored,
        settings=dict(run.data.params),
        row=_row_reader(client, traces),
        matched_by="question",
    )


def question_of(trace: Trace) -> tuple[str, str]:
    """The id and the text of the question that a trace answers."""
    request = _parsed(trace.data.request)
    try:
        question = to_question({"inputs": request, _GOLD: []}, f"trace {trace.info.trace_id}")
    except GroundTruthError:
        text = (
            request if isinstance(request, str) else json.dumps(request, ensure_ascii=False, sort_keys=True)
        )
        return hashed_id(text), text
    return hashed_id(question.question, question.history), question.question


def _traces(client: MlflowClient, run: Run) -> Iterator[Trace]:
    """The run's traces, the oldest first, a page at a time: their spans take room."""
    token = None
    while True:
        page = client.search_traces(
            locations=[run.info.experiment_id],
            run_id=run.info.run_id,
            order_by=["timestamp_ms ASC"],
            max_results=_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _feedback(trace: Trace, run_id: str) -> dict[str, float]:
    """The metrics of one trace, each with its last value."""
    given = [a for a in trace.info.assessments if isinstance(a, Feedback) and _counts(a, run_id)]
    given.sort(key=lambda feedback: feedback.create_time_ms or 0)
    return {
        _our_spelling(feedback.name): value
        for feedback in given
        if (value := _as_number(feedback.value)) is not None
    }


def _counts(feedback: Feedback, run_id: str) -> bool:
    given_by = (feedback.metadata or {}).get(AssessmentMetadataKey.SOURCE_RUN_ID, run_id)
    return given_by == run_id and feedback.valid is not False and feedback.error is None


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value) if np.isfinite(value) else None
    return _RATINGS.get(value.strip().lower()) if isinstance(value, str) else None


def _our_spelling(name: str) -> str:
    try:
        return parse_metric(name.replace("_at_", "@")).name
    except ConfigurationError:
        return name


def _row_reader(client: MlflowClient, traces: Mapping[str, str]) -> Callable[[str], Mapping[str, Any]]:
    def read(id_: str) -> Mapping[str, Any]:
        return _row(client.get_trace(traces[id_])) if id_ in traces else {}

    return read


def _row(trace: Trace) -> dict[str, Any]:
    """What a line of `scores.jsonl` says of a question, as far as a trace shows it."""
    row: dict[str, Any] = {"trace_id": trace.info.trace_id, "gold": _gold(trace.info.assessments)}
    try:
        row |= read_said(_parsed(trace.data.response))
    except DataError:
        row["answer"] = str(trace.data.response or "")
    try:
        row["retrieved"] = [{"doc_uri": found.doc_uri} for found in retrieved_documents(trace)]
    except DataError:
        row["retrieved"] = []
    return row


def _gold(assessments: Iterable[Any]) -> list[list[str]]:
    expected = [a.value for a in assessments if isinstance(a, Expectation) and a.name == _GOLD]
    row = (
        {"inputs": {"question": "(as asked)"}, "expectations": {_GOLD: _parsed(expected[-1])}}
        if expected
        else {}
    )
    try:
        gold = to_question(row, "trace").gold if row else ()
    except GroundTruthError:
        return []
    return [[item.doc_uri for item in alternatives] for alternatives in gold]


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value

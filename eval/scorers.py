"""Our metrics as MLflow scorers, for `mlflow.genai.evaluate` and for traces that are there already.

    mlflow.genai.evaluate(data=rows, predict_fn=agent.predict, scorers=as_mlflow_scorers(["recall@5"]))

Rows have the shape of `eval.formats.agent_evaluation_set`: gold is read from `expectations`, what was
retrieved from the RETRIEVER spans of the trace, what was said and cited from the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Feedback, Trace
from mlflow.genai.scorers import Scorer
from mlflow.genai.utils.trace_utils import parse_outputs_to_str
from mlflow.types.responses import ResponsesAgentResponse
from pydantic import PrivateAttr

from eval.answering import read_response
from eval.evidence import RetrieverMapping, RetrieverMappings, retrieved_documents, retriever_spans
from eval.formats.agent_evaluation_set import to_question
from eval.metrics import Metric, Observation, parse_metrics, score_questions
from eval.questions import Question
from eval.records import count_tokens
from eval.uris import UriNormalization
from retrieval.errors import ConfigurationError

NO_SEARCH = "The trace has no RETRIEVER span: nothing was searched for, so nothing was found."


def as_mlflow_scorers(
    metric_names: Iterable[str],
    normalization: UriNormalization | None = None,
    mapping: RetrieverMapping | RetrieverMappings | None = None,
) -> list[Scorer]:
    """One scorer a metric, named as MLflow allows (`recall_at_5`), with the values of `score_questions`.

    Where a metric does not apply to a row, as recall to an unanswerable question, the row has no value.
    Gold that is missing or malformed, and evidence that cannot be read, are errors of the row, which
    MLflow keeps with it: never 0.

    Raises:
        ConfigurationError: if a name is not a metric, naming the nearest one that is; or a judge's, whose
            scorer is MLflow's own.
    """
    metrics = parse_metrics(metric_names)
    for metric in filter(lambda metric: metric.is_judged, metrics):
        raise ConfigurationError(
            f"{metric.name!r} is judged and not computed. Give MLflow its own scorer of mlflow.genai.scorers."
        )
    return [MetricScorer(metric, normalization, mapping) for metric in metrics]


class MetricScorer(Scorer):
    """One metric of `eval.metrics`, computed as MLflow asks for it: a row at a time."""

    _metric: Metric = PrivateAttr()
    _normalization: UriNormalization | None = PrivateAttr()
    _mapping: RetrieverMapping | RetrieverMappings | None = PrivateAttr()

    def __init__(
        self,
        metric: Metric,
        normalization: UriNormalization | None = None,
        mapping: RetrieverMapping | RetrieverMappings | None = None,
    ) -> None:
        super().__init__(name=metric.mlflow_name)
        self._metric, self._normalization, self._mapping = metric, normalization, mapping

    def __call__(  # type: ignore[override]  # MLflow passes what is named here, and takes None as no value
        self,
        *,
        outputs: Any = None,
        expectations: Mapping[str, Any] | None = None,
        trace: Trace | None = None,
    ) -> Feedback | None:
        """The metric's value for a row, or None where it does not apply.

        Raises:
            GroundTruthError: if the expectations are not usable.
            DataError: if a RETRIEVER span cannot be read.
        """
        question = _to_question(expectations)
        observation = _to_observation(outputs, trace, self._mapping)
        row = score_questions([question], {question.id: observation}, [self._metric], self._normalization)
        value = row[question.id][self._metric.name]
        if value is None:
            return None
        unsearched = self._metric.is_ranking and not (trace and retriever_spans(trace, self._mapping))
        return Feedback(name=self.name, value=value, rationale=NO_SEARCH if unsearched else None)


def _to_question(expectations: Mapping[str, Any] | None) -> Question:
    # No metric looks at the question itself, and agents name it in many ways.
    row = {"id": "row", "inputs": {"question": "(as in inputs)"}, "expectations": dict(expectations or {})}
    return to_question(row, "the row of mlflow.genai.evaluate")


def _to_observation(
    outputs: Any, trace: Trace | None, mapping: RetrieverMapping | RetrieverMappings | None
) -> Observation:
    said = _read_outputs(outputs)
    spent = (trace.info.cost or {}) if trace else {}
    counted = (trace.info.token_usage or {}) if trace else {}
    return Observation(
        retrieved=retrieved_documents(trace, mapping=mapping) if trace else (),
        cited_uris=said.get("cited_uris", ()),
        answer=said["answer"],
        abstained=said.get("abstained", False),
        dropped_markers=said.get("dropped_markers", 0),
        latency_ms=float(trace.info.execution_duration or 0) if trace else 0.0,
        usd=spent.get("total_cost"),
        tokens=count_tokens(said.get("usage") or counted),
    )


def _read_outputs(outputs: Any) -> dict[str, Any]:
    """An answer's parts; of outputs other than a ResponsesAgent's, their text alone."""
    if isinstance(outputs, Mapping) and isinstance(outputs.get("output"), list):
        outputs = ResponsesAgentResponse.model_validate(outputs)
    if isinstance(outputs, ResponsesAgentResponse):
        return read_response(outputs)
    return {"answer": parse_outputs_to_str(outputs).strip()}

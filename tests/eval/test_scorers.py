"""Our metrics as scorers, through the real mlflow.genai.evaluate."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Feedback, SpanType
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey

from eval.metrics import Observation, RetrievedDocument, parse_metrics, score_questions
from eval.questions import GoldItem, Question
from eval.traces import collect_traces
from eval.uris import UriNormalization
from retrieval.errors import ConfigurationError, GroundTruthError

# All are mlflow's own: of its type hints and its use of SQLAlchemy 2.1, when parts of it are first imported,
# and of its use of pandas 3.
# Of pandas, about what mlflow.genai.evaluate does with its table.
pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0:DeprecationWarning")

METRICS = ["recall@1", "recall@2", "mrr", "ndcg@2", "citation_recall", "token_f1", "abstention_accuracy"]

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
RETRIEVED = {"tides": ["https://docs/moon", "https://docs/sun/"], "wind": ["https://docs/sea"], "soup": []}


def as_scorers(*arguments: Any, **named: Any) -> Any:
    from eval.scorers import as_mlflow_scorers  # its import warns, as said above

    return as_mlflow_scorers(*arguments, **named)


def response(text: str, *cited: str, abstained: bool = False) -> dict[str, Any]:
    notes = [
        {"type": "url_citation", "url": url, "title": url, "start_index": 0, "end_index": 1} for url in cited
    ]
    content = {"type": "output_text", "text": text, "annotations": notes}
    message = {"type": "message", "id": "m", "role": "assistant", "content": [content]}
    return {"output": [message], "custom_outputs": {"abstained": abstained}}


@mlflow.trace(span_type=SpanType.AGENT)
def answer(question: str) -> dict[str, Any]:
    found = RETRIEVED[question]
    with mlflow.start_span("retrieve", span_type=SpanType.RETRIEVER) as span:
        span.set_outputs([{"page_content": "x", "metadata": {"doc_uri": uri}, "id": uri} for uri in found])
    return response(f"about {question}", *found[:1], abstained=not found)


def row(question: str, *gold: str, expected_response: str = "") -> dict[str, Any]:
    context = [{"doc_uri": uri} for uri in gold]
    return {
        "inputs": {"question": question},
        "expectations": {"expected_retrieved_context": context, "expected_response": expected_response},
    }


ROWS = [
    row("tides", "https://docs/sun", "https://docs/moon", expected_response="tides and the moon"),
    row("wind", "https://docs/wind"),
    row("soup"),
]

QUESTIONS = [
    Question(
        id=r["inputs"]["question"],
        question=r["inputs"]["question"],
        gold=tuple((GoldItem(item["doc_uri"]),) for item in r["expectations"]["expected_retrieved_context"]),
        expected_response=r["expectations"]["expected_response"],
    )
    for r in ROWS
]

OBSERVATIONS = {
    name: Observation(
        retrieved=[RetrievedDocument(uri, uri) for uri in uris],
        cited_uris=uris[:1],
        answer=f"about {name}",
        abstained=not uris,
    )
    for name, uris in RETRIEVED.items()
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}/mlflow.db")
        environment.setenv("MLFLOW_EXPERIMENT_ID", mlflow.create_experiment("scorers", str(path)))
        environment.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "true")
        yield path
    mlflow.tracing.reset()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_MAX_SCORER_WORKERS": "1",
        "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
        "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    }.items():
        monkeypatch.setenv(name, value)


def values_by_question(evaluated: Any) -> dict[str, dict[str, Any]]:
    """What mlflow.genai.evaluate kept of each row, by question and metric name."""
    table = {}
    for _, kept in evaluated.result_df.iterrows():
        feedback = {a["assessment_name"]: a for a in kept["assessments"] if "feedback" in a}
        table[kept["request"]["question"]] = {
            name: a["feedback"].get("value") for name, a in feedback.items()
        }
    return table


def test_mlflow_evaluate_gives_the_values_of_our_metrics_and_none_where_they_do_not_apply(
    store: Path,
) -> None:
    metrics = parse_metrics(METRICS)
    ours = score_questions(QUESTIONS, OBSERVATIONS, metrics)
    evaluated = mlflow.genai.evaluate(data=ROWS, predict_fn=answer, scorers=as_scorers(METRICS))
    assert values_by_question(evaluated) == {
        id_: {m.mlflow_name: scores[m.name] for m in metrics if scores[m.name] is not None}
        for id_, scores in ours.items()
    }
    recalls = [scores["recall@2"] for scores in ours.values() if scores["recall@2"] is not None]
    assert recalls == [1.0, 0.0]
    assert evaluated.metrics["recall_at_2/mean"] == 0.5


def test_traces_that_are_there_already_are_scored_without_asking_again(store: Path) -> None:
    with collect_traces() as collector:
        (trace,) = collector.call(answer, "tides").traces
    from program.trace_store import write_traces

    experiment = mlflow.get_experiment_by_name("scorers").experiment_id
    write_traces([trace], experiment_id=experiment)
    rows = [{"trace": mlflow.get_trace(trace.info.trace_id), "expectations": ROWS[0]["expectations"]}]
    evaluated = mlflow.genai.evaluate(data=rows, scorers=as_scorers(["recall@1", "citation_recall"]))
    assert values_by_question(evaluated) == {"tides": {"recall_at_1": 0.5, "citation_recall": 0.5}}


def call(name: str, **arguments: Any) -> Feedback | None:
    (scorer,) = as_scorers([name])
    result: Feedback | None = scorer(**arguments)
    return result


def test_outputs_may_be_plain_text() -> None:
    expectations = ROWS[0]["expectations"]
    feedback = call("token_f1", outputs="tides and the moon", expectations=expectations)
    assert feedback is not None
    assert feedback.value == 1.0
    assert call("citation_recall", outputs="text", expectations=expectations).value == 0.0  # type: ignore[union-attr]


def test_a_trace_without_a_search_scores_zero_and_says_why() -> None:
    @mlflow.trace
    def unsearched() -> str:
        return "from memory"

    with collect_traces() as collector:
        (trace,) = collector.call(unsearched).traces
    feedback = call("recall@5", outputs="from memory", expectations=ROWS[0]["expectations"], trace=trace)
    assert feedback is not None
    assert (feedback.value, feedback.rationale) == (
        0.0,
        "The trace has no RETRIEVER span: nothing was searched for, so nothing was found.",
    )


def test_normalization_reaches_the_metrics() -> None:
    with collect_traces() as collector:
        (trace,) = collector.call(answer, "tides").traces
    arguments = {"outputs": "", "expectations": ROWS[0]["expectations"], "trace": trace}
    strict = UriNormalization(strip_trailing_slash=False)
    (lenient_recall,), (strict_recall,) = as_scorers(["recall@2"]), as_scorers(["recall@2"], strict)
    assert (lenient_recall(**arguments).value, strict_recall(**arguments).value) == (1.0, 0.5)


@pytest.mark.parametrize(
    "expectations", [None, {}, {"expected_facts": ["x"]}, {"expected_retrieved_context": 3}]
)
def test_rows_without_usable_gold_are_errors_not_zeros(expectations: Any) -> None:
    with pytest.raises(GroundTruthError, match="expected_retrieved_context"):
        call("recall@5", outputs="x", expectations=expectations)


def test_an_unknown_metric_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="recall"):
        as_scorers(["recal@5"])


def test_cost_and_tokens_are_what_mlflow_counted_in_the_trace(store: Path) -> None:
    @mlflow.trace(span_type=SpanType.AGENT)
    def ask() -> str:
        with mlflow.start_span("model", span_type=SpanType.CHAT_MODEL) as span:
            span.set_attribute(SpanAttributeKey.CHAT_USAGE, USAGE)
        return "x"

    with collect_traces() as collector:
        [trace] = collector.call(ask).traces
    # By the tracking store, when it takes the trace.
    trace.info.trace_metadata[TraceMetadataKey.COST] = json.dumps({"total_cost": 0.5})
    scorers = as_scorers(["usd", "tokens"])
    gold = {"expected_retrieved_context": []}
    found = [scorer(outputs="x", expectations=gold, trace=trace) for scorer in scorers]
    assert [feedback.value for feedback in found] == [0.5, 18]
    assert [scorer(outputs="x", expectations=gold) for scorer in scorers] == [None, None]

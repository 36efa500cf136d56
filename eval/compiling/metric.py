"""A weighted mix of eval's metrics as DSPy's optimizers call a metric: the very value that a sweep ranks by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dspy

from eval.compiling.examples import gold_question
from eval.compiling.feedback import FAILED, explain
from eval.compiling.retrieval_notes import SearchScope
from eval.metric_names import Metric, parse_metric
from eval.metrics import score_questions
from eval.mixes import Mix
from eval.observations import Observation
from eval.questions import Question
from eval.records import AnswerRecord, Retrieved
from eval.uris import UriNormalization, uri_normalizer
from program.prices import answer_usd, usd
from program.qa import CitedQA
from program.settings import LanguageModelSettings
from program.types import CitedAnswer
from retrieval.errors import ConfigurationError

_FREE = Observation(usd=0.0, tokens=0)
_SAME = 1e-9


def build_metric(
    mix: Mix,
    normalization: UriNormalization | None = None,
    price: LanguageModelSettings | None = None,
    program: CitedQA | None = None,
) -> MixMetric:
    """The mix as an `eval.compiling.task.CompilingMetric`.

    `price` names the model that answers, for a mix that has `usd`. Feedback looks for gold that was not found in the
    index of `program`, deeper than it looks; give it a retriever that remembers.

    Raises:
        ConfigurationError: if a metric of the mix cannot be computed from an answer alone, or its price is not known.
    """
    metrics = tuple(parse_metric(name) for name in mix.weights)
    for metric in metrics:
        _check(metric, price)
    scope = None
    if program is not None:
        scope = SearchScope(program.retriever, program.k, program.filters)
    return MixMetric(mix, metrics, normalization or UriNormalization(), price, scope)


def _check(metric: Metric, price: LanguageModelSettings | None) -> None:
    if metric.is_judged:
        raise ConfigurationError(
            f"metric: {metric.name} is a language model's verdict, for which compiling asks none. Use metrics that are "
            "computed, such as fact_recall, and judge the result with `citeqa eval`."
        )
    if metric.measure == "latency_ms":
        raise ConfigurationError(
            "metric: latency_ms is another each time, and of calls that are replayed it says nothing. Use tokens, "
            "which most of the time goes into."
        )
    if metric.measure == "usd" and (
        price is None or usd({"input_tokens": 1, "output_tokens": 1}, price) is None
    ):
        raise ConfigurationError(
            f"metric: usd needs a price, and none is known of {price.model if price else 'the language model'}. Set "
            "language_model.price, or use tokens."
        )


@dataclass(frozen=True)
class MixMetric:
    """Scores a prediction of `CitedQA`; many threads may. See `build_metric` and `CompilingMetric`.

    A program that failed, or a question that the mix does not apply to (`applies`), scores 0.
    """

    mix: Mix
    metrics: Sequence[Metric]
    normalization: UriNormalization
    price: LanguageModelSettings | None
    scope: SearchScope | None

    def __call__(
        self,
        example: dspy.Example,
        prediction: dspy.Prediction | None,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """The score; with `pred_name`, a `dspy.Prediction` of `score` and `feedback` on that predictor's part.

        An empty `pred_name` asks for feedback on the program as a whole.
        """
        question, cited = gold_question(example), _cited(prediction)
        row = self.row(question, cited) if cited else {}
        score = self.mix.value(row) or 0.0
        if pred_name is None:
            return score
        feedback = FAILED
        if cited:
            feedback = explain(
                question, cited, row, score, self._normalize, scope=self.scope, predictor=pred_name
            )
        return dspy.Prediction(score=score, feedback=feedback)

    def row(self, question: Question, cited: CitedAnswer) -> dict[str, float | None]:
        """The metrics of the mix for one answer, by name."""
        return self._score(question, self._observe(question, cited))

    def applies(self, question: Question) -> bool:
        """Whether any metric of the mix applies to the question, whatever is answered."""
        return self.mix.value(self._score(question, _FREE)) is not None

    @cached_property
    def _normalize(self) -> Callable[[str], str]:
        return uri_normalizer(self.normalization)

    def _score(self, question: Question, observation: Observation) -> dict[str, float | None]:
        scores = score_questions(
            [question], {question.id: observation}, list(self.metrics), self.normalization
        )
        return scores[question.id]

    def _observe(self, question: Question, cited: CitedAnswer) -> Observation:
        """What a run would keep of the answer: by its own record, so that there is one reading of usage and price."""
        usage = _usage(cited)
        found = dict.fromkeys((passage.doc_uri, passage.chunk_id) for passage in cited.passages)
        record = AnswerRecord(
            id=question.id,
            answer=cited.text,
            abstained=cited.abstained,
            retrieved=tuple(Retrieved(doc_uri=uri, chunk_id=chunk_id) for uri, chunk_id in found),
            cited_uris=tuple(cited.cited_uris),
            dropped_markers=cited.dropped_markers,
            reader=cited.reader,
            usage=usage,
            usd=None if self.price is None else answer_usd(cited.reader, usage, self.price),
        )
        return record.observation() or Observation()


def is_constant(scores: Iterable[float]) -> bool:
    """Whether all scores are the same, up to rounding: then there is nothing to choose by. None are, too."""
    values = list(scores)
    return not values or max(values) - min(values) <= _SAME


def check_varies(mix: Mix, scores: Iterable[float]) -> None:
    """Refuse a metric that is the same for every example and candidate that was scored.

    Raises:
        ConfigurationError: saying what it always is, and what may be the cause.
    """
    values = list(scores)
    if not values or not is_constant(values):
        return
    weighted = ", ".join(f"{name}: {weight:g}" for name, weight in mix.weights.items())
    if values[0] >= 1 - _SAME:
        cause = "There is nothing left to gain by it: use harder questions, or a metric that asks for more."
    else:
        cause = (
            "No optimizer can tell better from worse by it. Check with `citeqa dataset check` that the gold names "
            "documents of the index, or use another metric."
        )
    raise ConfigurationError(
        f"metric ({weighted}) is {values[0]:.3g} for each of {len(values)} answers. {cause}"
    )


def check_prompts_matter(mix: Mix, program: CitedQA) -> None:
    """Refuse a mix of retrieval metrics alone for a program whose prompts do not write what is searched for.

    Raises:
        ConfigurationError: saying what to set.
    """
    if not program.writes_queries and all(parse_metric(name).is_ranking for name in mix.weights):
        raise ConfigurationError(
            f"metric: {', '.join(mix.weights)} depends on what is retrieved alone, which no prompt of this program "
            "changes. Set program.rewrite_query: true, or add a metric of the answer such as fact_recall."
        )


def _cited(prediction: dspy.Prediction | None) -> CitedAnswer | None:
    """What the program answered; None where it failed, and DSPy hands over nothing, or something else."""
    cited = prediction.get("cited") if isinstance(prediction, dspy.Prediction) else None
    return cited if isinstance(cited, CitedAnswer) else None


def _usage(cited: CitedAnswer) -> dict[str, int]:
    names = {
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "total_tokens": "total_tokens",
    }
    return {ours: cited.usage[theirs] for theirs, ours in names.items() if theirs in cited.usage}

"""The metric that is optimized is the objective that is reported, for any answer; and it says when it is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.compiling.examples import QuestionExample, to_examples
from eval.compiling.metric import (
    MixMetric,
    build_metric,
    check_prompts_matter,
    check_varies,
    is_constant,
)
from eval.compiling.remembering_retriever import RememberingRetriever
from eval.ground_truth import GroundTruth
from eval.metrics import score_questions
from eval.mixes import parse_mix
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved
from eval.replies import read_response
from eval.sweep.answering import StagedAgent
from eval.uris import UriNormalization
from program.assembly import build_program
from program.citations import cite
from program.content_store import ContentStore
from program.extractive import ExtractiveReader
from program.language_models import build_lm
from program.prices import answer_usd
from program.qa import CitedQA
from program.readers import LMReader
from program.responses import render_response
from program.retrievers import open_retriever
from program.settings import LanguageModelSettings
from program.types import CitedAnswer
from retrieval.errors import ConfigurationError
from retrieval.local_index import LocalIndex
from retrieval.types import Passage

SITE = "https://library.example/"
PRICED = LanguageModelSettings(
    model="openai/test", price={"input_usd_per_million": 100.0, "output_usd_per_million": 1000.0}
)
UPWARD = (
    "recall@2",
    "ndcg@3",
    "passage_mrr",
    "citation_precision",
    "citation_recall",
    "fact_recall",
    "token_f1",
    "abstention_accuracy",
)
DOWNWARD = ("usd", "tokens", "dropped_markers", "answered_unanswerable", "abstained_answerable")
PIECES = (
    "Water boils at 100 degrees. ",
    "鉄は1538度で溶けます。",
    "[1]",
    "[2]",
    "[9]",
    " [1, 3] ",
    "`[2]`",
    "carbon",
)

names = st.sampled_from("abcd")
passages = st.lists(
    st.builds(
        lambda name, chunk: Passage(f"{name}#{chunk}", SITE + name, f"about {name}"), names, st.integers(0, 1)
    ),
    max_size=4,
)
gold = st.lists(
    st.builds(lambda name: (GoldItem(SITE + name, chunk_id=f"{name}#0"),), names), max_size=2, unique=True
)
questions = st.builds(
    Question,
    id=st.just("q"),
    question=st.just("What boils?"),
    gold=gold.map(tuple),
    expected_facts=st.lists(st.sampled_from(("100 degrees", "1538度")), unique=True, max_size=2).map(tuple),
    accepted_answers=st.sampled_from(((), ("carbon", "iron"))),
    expected_response=st.sampled_from(("", "Water boils.")),
)
usages = st.sampled_from(({}, {"prompt_tokens": 900, "completion_tokens": 70, "total_tokens": 970}))
weights = st.dictionaries(st.sampled_from(UPWARD), st.floats(0.1, 5), min_size=1, max_size=4)
costs = st.dictionaries(st.sampled_from(DOWNWARD), st.floats(-2, -0.0001), max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> CitedAnswer:
    text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=6)))
    reader = draw(st.sampled_from(("openai/test", "openai/other", "extractive")))
    cited = cite(text, draw(passages), reader=reader, query="boils", abstained=draw(st.booleans()))
    return replace(cited, usage=draw(usages))


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """As while compiling: nothing is traced."""
    with mlflow.tracing.context(enabled=False):
        yield


@pytest.fixture
def index(library: Path) -> LocalIndex:
    return LocalIndex.open(library)


def as_example(question: Question) -> dspy.Example:
    return QuestionExample(gold_question=question, question=question.question, history=()).with_inputs(
        "question", "history"
    )


def as_a_run_keeps_it(cited: CitedAnswer) -> AnswerRecord:
    """What a sweep makes of the same answer: by way of the response that an agent gives."""
    rows = dict.fromkeys((passage.doc_uri, passage.chunk_id) for passage in cited.passages)
    retrieved = tuple(Retrieved(doc_uri=uri, chunk_id=chunk) for uri, chunk in rows)
    record = AnswerRecord(id="q", retrieved=retrieved, **read_response(render_response(cited, "msg")))
    return record.model_copy(update={"usd": answer_usd(record.reader, record.usage, PRICED)})


@given(questions, answers(), weights, costs)
def test_it_is_the_objective_of_a_sweep_for_the_same_answer(
    question: Question, cited: CitedAnswer, up: dict[str, float], down: dict[str, float]
) -> None:
    mix = parse_mix("metric", {**up, **down})
    metric = build_metric(mix, None, PRICED)
    observed = as_a_run_keeps_it(cited).observation()
    row = score_questions([question], {"q": observed}, metric.metrics)["q"]
    value = metric(as_example(question), dspy.Prediction(answer=cited.text, cited=cited))
    assert value == (mix.value(row) or 0.0)
    if not metric.applies(question):
        assert mix.value(row) is None


@given(questions, answers(), weights)
def test_feedback_never_changes_the_score_and_always_says_something(
    question: Question, cited: CitedAnswer, up: dict[str, float]
) -> None:
    metric = build_metric(parse_mix("metric", up))
    example, prediction = as_example(question), dspy.Prediction(answer=cited.text, cited=cited)
    score = metric(example, prediction)
    assert isinstance(score, float)
    assert metric(example, prediction, trace=[]) == score
    for name in ("", "rewrite", "condense", "reader.answer", "something.else"):
        explained = metric(example, prediction, [], name, [])
        assert explained.score == score
        assert explained.feedback.startswith(f"Score {score:.3g}")


def test_tokens_and_money_of_a_real_call_are_those_of_a_sweep(
    quiz: GroundTruth, make_settings: Any, language_model: Any, tmp_path: Path
) -> None:
    language_model.fills({"answerable": True, "answer": "Steel is iron with a little carbon [1]."})
    settings = make_settings(
        language_model={**PRICED.model_dump(exclude_none=True), "api_base": language_model.url},
        reader={"kind": "lm"},
    )
    mix = parse_mix("metric", {"citation_precision": 1, "tokens": -0.001, "usd": -1})
    question = next(question for question in quiz.questions if question.id == "q03")
    with ContentStore(tmp_path / "stages.db") as store:
        with StagedAgent(settings, store, 3) as agent:
            record = agent.answer(question).record
        record = record.model_copy(
            update={"usd": answer_usd(record.reader, record.usage, settings.language_model)}
        )
        program = build_program(settings, open_retriever(settings), record_in=store)
        program.set_lm(None)
        metric = build_metric(mix, None, settings.language_model, program)
        (example,) = to_examples([question], program, demonstrate=False)
        with dspy.context(lm=build_lm(settings.language_model, record_in=store)):
            prediction = program(**example.inputs())
    row = score_questions([question], {question.id: record.observation()}, metric.metrics)[question.id]
    assert row["tokens"] == 18
    assert row["usd"] == pytest.approx((11 * 100 + 7 * 1000) / 1e6)
    assert metric.row(question, prediction.cited) == row
    assert metric(example, prediction) == mix.value(row)
    assert len(language_model.requests) == 1


def test_uris_are_compared_as_the_settings_say() -> None:
    question = Question("q", "What boils?", ((GoldItem(SITE + "water#boiling"),),))
    cited = cite("Water [1].", [Passage("1", SITE + "water", "Water boils.")], reader="", query="")
    prediction = dspy.Prediction(cited=cited)
    mix = parse_mix("metric", {"recall@1": 1, "citation_recall": 1})
    assert build_metric(mix)(as_example(question), prediction) == 0.0
    stripping = build_metric(mix, UriNormalization(strip_fragment=True))
    assert stripping(as_example(question), prediction) == 1.0
    assert "Wrong" not in stripping(as_example(question), prediction, pred_name="").feedback


@pytest.mark.parametrize("prediction", [None, dspy.Prediction(answer="?"), dspy.Prediction(), object()])
def test_a_program_that_failed_scores_nothing_and_is_told_so(prediction: Any) -> None:
    metric = build_metric(parse_mix("metric", {"abstention_accuracy": 1}))
    example = as_example(Question("q", "What boils?", ()))
    assert metric(example, prediction) == 0.0
    explained = metric(example, prediction, pred_name="reader.answer")
    assert (explained.score, explained.feedback) == (
        0.0,
        "The program failed on this question and gave no answer.",
    )


def test_it_applies_where_any_of_its_metrics_does(quiz: GroundTruth) -> None:
    def applies_to(**mixed: float) -> list[str]:
        metric = build_metric(parse_mix("metric", mixed), None, PRICED)
        return [question.id for question in quiz.questions if metric.applies(question)]

    unanswerable = ["q04", "q12"]
    everything = [question.id for question in quiz.questions]
    assert applies_to(abstention_accuracy=1) == everything
    assert applies_to(tokens=-1) == applies_to(usd=-1) == everything
    assert applies_to(citation_recall=1) == [id_ for id_ in everything if id_ not in unanswerable]
    assert applies_to(fact_recall=1) == []
    assert applies_to(answered_unanswerable=-1) == unanswerable


@pytest.mark.parametrize(
    ("mixed", "price", "says"),
    [
        ({"judge_correctness": 1}, None, "judge_correctness is a language model's verdict"),
        ({"fact_recall": 1, "latency_ms": -1}, None, "latency_ms is another each time"),
        ({"usd": -1}, LanguageModelSettings(model="openai/unheard-of"), "none is known of openai/unheard-of"),
        ({"usd": -1}, None, "language_model.price"),
    ],
)
def test_metrics_that_cannot_be_computed_from_an_answer_are_refused(
    mixed: dict[str, float], price: LanguageModelSettings | None, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        build_metric(parse_mix("metric", mixed), None, price)


def test_a_metric_that_is_always_the_same_is_refused_with_what_it_is() -> None:
    mix = parse_mix("metric", {"fact_recall": 1, "recall@5": 0.5})
    with pytest.raises(
        ConfigurationError, match=r"fact_recall: 1, recall@5: 0.5\) is 0 for each of 3 answers"
    ):
        check_varies(mix, [0.0, 0.0, 0.0])
    with pytest.raises(ConfigurationError, match="nothing left to gain"):
        check_varies(mix, [1.0, 1.0])
    check_varies(mix, [0.0, 0.0, 0.1])
    check_varies(mix, [])


@given(st.lists(st.floats(0, 1), max_size=6))
def test_scores_are_constant_when_none_differs(scores: list[float]) -> None:
    apart = max((abs(one - other) for one in scores for other in scores), default=0.0)
    assert is_constant(scores) == (apart <= 1e-9)


def test_retrieval_metrics_alone_need_a_program_that_writes_its_query(index: LocalIndex) -> None:
    plain = CitedQA(index, LMReader())
    rewriting = CitedQA(index, LMReader(), rewrite_with=dspy.LM("openai/test"))
    retrieval, both = (
        parse_mix("metric", mixed) for mixed in ({"recall@5": 1}, {"recall@5": 1, "fact_recall": 1})
    )
    with pytest.raises(ConfigurationError, match=r"Set program\.rewrite_query"):
        check_prompts_matter(retrieval, plain)
    check_prompts_matter(retrieval, rewriting)
    check_prompts_matter(both, plain)


def scored_library(quiz: GroundTruth, index: LocalIndex) -> tuple[MixMetric, list[tuple[Any, Any]]]:
    program = CitedQA(index, ExtractiveReader(weigh=index.idf), k=3)
    program.retriever = RememberingRetriever(index)
    mix = parse_mix("metric", {"recall@3": 1, "citation_precision": 1, "abstention_accuracy": 1})
    examples = to_examples(quiz.questions, program, demonstrate=False)
    return build_metric(mix, program=program), [(e, program(**e.inputs())) for e in examples]


def test_many_threads_get_what_one_gets_and_copies_are_alike(quiz: GroundTruth, index: LocalIndex) -> None:
    metric, pairs = scored_library(quiz, index)
    alone = [metric(example, said, pred_name="").feedback for example, said in pairs]
    copied = deepcopy(metric)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: copied(pair[0], pair[1], pred_name="").feedback, pairs * 8))
    assert together == alone * 8


def test_a_score_takes_less_than_two_milliseconds(quiz: GroundTruth, index: LocalIndex) -> None:
    metric, pairs = scored_library(quiz, index)
    took = []
    for _ in range(3):
        began = time.process_time()
        for pair in pairs * 5:
            metric(*pair)
        took.append((time.process_time() - began) / (5 * len(pairs)))
    assert min(took) < 0.002

import pytest

from eval.ground_truth import GoldItem, Question
from eval.metrics import (
    Metric,
    Observation,
    RetrievedDocument,
    default_metrics,
    parse_metric,
    parse_metrics,
    score_questions,
)
from retrieval.errors import ConfigurationError, GroundTruthError

ANSWERABLE = Question(
    "q1",
    "Where are traces kept?",
    gold=((GoldItem("a"), GoldItem("b")), (GoldItem("c"),), (GoldItem("x", 0),)),
    expected_facts=("traces are kept in SQLite", "the default port is 5000"),
    expected_response="Traces are kept in SQLite.",
)
UNANSWERABLE = Question("q2", "Who won?", gold=(), expected_response="The passages do not say.")


def score(question: Question, observation: Observation, *names: str) -> list[float | None]:
    row = score_questions([question], {question.id: observation}, parse_metrics(names))[question.id]
    return [row[name] for name in names]


@pytest.mark.parametrize(
    "name", ["recall@5", "passage_ndcg@10", "mrr", "mrr@10", "map", "passage_map@3", "token_f1", "latency_ms"]
)
def test_a_metric_has_one_spelling(name: str) -> None:
    assert parse_metric(name).name == str(parse_metric(name)) == name


def test_mlflow_gets_a_name_that_it_allows() -> None:
    assert parse_metric("passage_recall@5").mlflow_name == "passage_recall_at_5"
    assert parse_metric("token_f1").mlflow_name == "token_f1"


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("recal@5", "Did you mean 'recall@5'"),
        ("nDCG@10", "Did you mean 'ndcg@10'"),
        ("recall_at_5", "Did you mean 'recall@5'"),
        ("recall@05", "Did you mean 'recall@5'"),
        ("recall@0", "Did you mean 'recall@5'"),
        ("MRR", "Did you mean 'mrr'"),
        ("pasage_mrr@10", "Did you mean 'passage_mrr@10'"),
        ("passage_token_f1", "Did you mean"),
        ("citation_recal", "Did you mean 'citation_recall'"),
        ("recall", "needs a cutoff, for example 'recall@5'"),
        ("passage_hit", "needs a cutoff, for example 'passage_hit@5'"),
        ("token_f1@5", "takes no cutoff. Write 'token_f1'"),
        ("bleurt", "Metrics are: recall@k, precision@k"),
        ("", "Metrics are: recall@k, precision@k"),
    ],
)
def test_an_unknown_metric_names_the_nearest_valid_spelling(wrong: str, advice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_metrics(["mrr", wrong])
    assert repr(wrong) in str(caught.value)
    assert advice in str(caught.value)


def test_a_metric_asked_for_twice_is_computed_once_and_the_order_is_kept() -> None:
    assert parse_metrics(["mrr", "hit@1", "mrr"]) == [Metric("mrr"), Metric("hit", 1)]


def test_the_default_metrics_hold_each_k_once_at_both_levels() -> None:
    names = [metric.name for metric in default_metrics([5, 1, 5])]
    assert [name for name in names if "recall@" in name] == [
        *("recall@1", "recall@5"),
        *("passage_recall@1", "passage_recall@5"),
    ]
    assert {"mrr", "map", "passage_mrr", "fact_recall", "latency_ms"} < set(names)
    assert parse_metrics(names) == default_metrics([1, 5])


def test_a_k_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="k = 0"):
        default_metrics([5, 0])


def test_citations_are_compared_with_the_relevant_gold_groups() -> None:
    names = ("citation_precision", "citation_recall")
    assert score(ANSWERABLE, Observation(cited_uris=["a", "c"]), *names) == [1.0, 1.0]
    assert score(ANSWERABLE, Observation(cited_uris=["a", "b"]), *names) == [1.0, 0.5]
    assert score(ANSWERABLE, Observation(cited_uris=["a", "x", "y", "a"]), *names) == [1 / 3, 0.5]
    assert score(ANSWERABLE, Observation(), *names) == [0.0, 0.0]


def test_citations_are_compared_under_normalized_uris() -> None:
    question = Question("q", "?", gold=((GoldItem("https://a/p/"),),))
    cited = Observation(cited_uris=["http://A/p?utm_source=x", "https://a/p"])
    assert score(question, cited, "citation_precision", "citation_recall") == [1.0, 1.0]


def test_the_answer_is_compared_with_the_expected_response_and_facts() -> None:
    observation = Observation(answer="Traces are kept in SQLite [1].")
    assert score(ANSWERABLE, observation, "token_f1", "fact_recall") == [1.0, 0.5]


def test_of_several_accepted_answers_the_best_counts() -> None:
    question = Question("q", "?", ((GoldItem("a"),),), accepted_answers=("in 1999", "two delegates"))
    assert score(question, Observation(answer="Two delegates."), "token_f1", "fact_recall") == [1.0, 1.0]


def test_an_abstention_on_an_answerable_question_scores_zero_and_is_not_missing() -> None:
    abstained = Observation(
        retrieved=[RetrievedDocument("a")],
        cited_uris=["a", "c"],
        answer="Traces are kept in SQLite, but the passages do not say.",
        abstained=True,
    )
    names = ("citation_precision", "citation_recall", "token_f1", "fact_recall", "abstention_accuracy")
    assert score(ANSWERABLE, abstained, *names) == [0.0] * 5
    assert score(ANSWERABLE, abstained, "hit@1", "abstained_answerable") == [1.0, 1.0]


def test_on_an_unanswerable_question_only_abstention_is_judged() -> None:
    observation = Observation([RetrievedDocument("a")], ["a"], "Nobody.", False, 2, 12.5)
    row = score_questions([UNANSWERABLE], {"q2": observation}, default_metrics())["q2"]
    assert {name: value for name, value in row.items() if value is not None} == {
        "abstention_accuracy": 0.0,
        "answered_unanswerable": 1.0,
        "dropped_markers": 2.0,
        "latency_ms": 12.5,
    }


@pytest.mark.parametrize("abstained", [True, False])
def test_abstention_is_right_exactly_when_nothing_answers_the_question(abstained: bool) -> None:
    observation = Observation(abstained=abstained)
    assert score(UNANSWERABLE, observation, "abstention_accuracy") == [float(abstained)]
    assert score(ANSWERABLE, observation, "abstention_accuracy") == [float(not abstained)]
    assert score(UNANSWERABLE, observation, "answered_unanswerable") == [float(not abstained)]
    assert score(ANSWERABLE, observation, "answered_unanswerable") == [None]


def test_a_question_without_expected_texts_has_no_text_scores() -> None:
    question = Question("q", "?", gold=((GoldItem("a"),),))
    assert score(question, Observation(answer="x"), "token_f1", "fact_recall") == [None, None]


def test_a_question_that_failed_or_was_not_run_is_unscored_and_never_zero() -> None:
    questions = [ANSWERABLE, UNANSWERABLE, Question("q3", "?", ((GoldItem("a"),),))]
    scores = score_questions(questions, {"q1": None, "q3": Observation()}, parse_metrics(["mrr", "token_f1"]))
    assert scores == {"q1": {}, "q2": {}, "q3": {"mrr": 0.0, "token_f1": None}}


def test_scores_keep_the_order_of_questions_and_metrics() -> None:
    names = ["latency_ms", "mrr", "token_f1", "hit@1"]
    observations = {"q1": Observation(), "q2": Observation()}
    scores = score_questions([UNANSWERABLE, ANSWERABLE], observations, parse_metrics(names))
    assert list(scores) == ["q2", "q1"]
    assert all(list(row) == names for row in scores.values())


def test_nothing_asked_is_nothing_scored() -> None:
    assert score_questions([], {}, default_metrics()) == {}


def test_groups_that_overlap_once_normalized_are_refused_with_the_question() -> None:
    question = Question("q7", "?", ((GoldItem("https://a/p"), GoldItem("b")), (GoldItem("http://a/p/"),)))
    with pytest.raises(GroundTruthError, match=r"'q7'.*count twice"):
        score_questions([question], {"q7": Observation()}, parse_metrics(["mrr"]))

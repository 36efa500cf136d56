"""Against pytrec_eval itself, the binding to NIST's trec_eval, asked as its documentation does."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metric_names import Metric, parse_metrics
from eval.metrics import score_questions
from eval.observations import Observation, RetrievedDocument
from eval.questions import GoldItem, Question

TREC_NAMES = {
    "recall@1": "recall_1",
    "recall@3": "recall_3",
    "precision@3": "P_3",
    "precision@10": "P_10",
    "hit@1": "success_1",
    "hit@5": "success_5",
    "mrr": "recip_rank",
    "ndcg@3": "ndcg_cut_3",
    "ndcg@10": "ndcg_cut_10",
    "ndcg": "ndcg",
    "map": "map",
    "map@3": "map_cut_3",
}
DOCUMENTS = [f"d{i}" for i in range(8)]
LISTS = st.lists(
    st.tuples(st.sampled_from(DOCUMENTS), st.sampled_from([0.0, 0.5, 1.0, 1.00000001, 2.0])), max_size=14
)
GRADES = st.dictionaries(st.sampled_from([*DOCUMENTS, "unretrievable"]), st.integers(0, 3), min_size=1)


def ask(gold: Sequence[Sequence[GoldItem | str]], id_: str = "q") -> Question:
    groups = tuple(tuple(GoldItem(i) if isinstance(i, str) else i for i in group) for group in gold)
    return Question(id_, f"question {id_}", groups)


def retrieve(*uris: str) -> Observation:
    return Observation([RetrievedDocument(uri) for uri in uris])


def score(question: Question, observation: Observation, *names: str) -> list[float | None]:
    row = score_questions([question], {question.id: observation}, parse_metrics(names))[question.id]
    return [row[name] for name in names]


def in_trec_order(results: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Without duplicates, as trec_eval sorts: 32-bit scores, ties by document id from the end."""
    best: dict[str, float] = {}
    for uri, value in results:
        best.setdefault(uri, value)
    ordered = sorted(best.items(), key=lambda pair: pair[0], reverse=True)
    return sorted(ordered, key=lambda pair: np.float32(pair[1]), reverse=True)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LISTS, GRADES), min_size=1, max_size=4), st.data())
def test_every_ranking_metric_agrees_with_trec_eval(
    cases: list[tuple[list[tuple[str, float]], dict[str, int]]], data: st.DataObject
) -> None:
    questions, observations, run, judgements = [], {}, {}, {}
    for number, (results, grades) in enumerate(cases):
        id_ = f"q{number}"
        ranking = in_trec_order(results)
        repeats = data.draw(st.lists(st.sampled_from(ranking), max_size=3)) if ranking else []
        questions.append(ask([[GoldItem(uri, grade)] for uri, grade in grades.items()], id_))
        observations[id_] = Observation([RetrievedDocument(uri, None, s) for uri, s in [*ranking, *repeats]])
        judgements[id_] = grades
        run |= {id_: dict(ranking)} if ranking else {}

    ours = score_questions(questions, observations, parse_metrics(TREC_NAMES))
    theirs = pytrec_eval.RelevanceEvaluator(judgements, set(TREC_NAMES.values())).evaluate(run)

    for question in questions:
        for name, trec_name in TREC_NAMES.items():
            if not question.answerable:
                assert ours[question.id][name] is None
            else:
                expected = theirs[question.id][trec_name] if question.id in theirs else 0.0
                assert ours[question.id][name] == pytest.approx(expected, abs=1e-9)


@given(LISTS, st.integers(1, 12))
def test_reciprocal_rank_with_a_cutoff_is_zero_beyond_it(results: list[tuple[str, float]], k: int) -> None:
    uris = [uri for uri, _ in results]
    whole, cut = score(ask([["d0"]]), retrieve(*uris), "mrr", f"mrr@{k}")
    distinct = list(dict.fromkeys(uris))
    assert cut == (whole if "d0" in distinct[:k] else 0.0)


def test_a_cutoff_of_any_size_keeps_the_rank_that_equals_it() -> None:
    for rank in range(1, 120):
        uris = [f"x{i}" for i in range(rank - 1)] + ["a"]
        assert score(ask([["a"]]), retrieve(*uris), f"mrr@{rank}", f"mrr@{rank + 1}") == [1 / rank] * 2


@pytest.mark.parametrize(
    ("retrieved", "gold", "expected"),
    [
        ("aax", "ab", {"ndcg@3": 0.6131, "precision@3": 1 / 3, "recall@3": 0.5}),
        ("a", "abc", {"ndcg@5": 0.4693, "precision@5": 0.2, "recall@5": 1 / 3}),
        ("aa", "a", {"ndcg@5": 1.0, "map": 1.0}),
        ("axb", "ab", {"mrr": 1.0, "map": 5 / 6}),
        ("", "a", {"ndcg@5": 0.0, "precision@5": 0.0, "recall@5": 0.0, "hit@5": 0.0, "mrr": 0.0, "map": 0.0}),
        ("xya", "a", {"mrr": 1 / 3, "mrr@2": 0.0, "hit@2": 0.0, "hit@3": 1.0}),
    ],
)
def test_known_rankings_score_as_trec_eval_says(
    retrieved: str, gold: str, expected: dict[str, float]
) -> None:
    assert score(ask([[uri] for uri in gold]), retrieve(*retrieved), *expected) == pytest.approx(
        list(expected.values()), abs=5e-5
    )


def test_a_grade_is_a_linear_gain() -> None:
    question = ask([[GoldItem("a", 3)], [GoldItem("b", 1)]])
    ideal = 3 + 1 / math.log2(3)
    assert score(question, retrieve("b", "a"), "ndcg@10") == [pytest.approx((1 + 3 / math.log2(3)) / ideal)]


def test_the_order_decides_whatever_the_scores_say() -> None:
    observation = Observation([RetrievedDocument("a", None, 0.1), RetrievedDocument("b", None, 0.9)])
    assert score(ask([["a"]]), observation, "mrr") == [1.0]


def test_documents_judged_irrelevant_count_as_the_unjudged_do() -> None:
    judged, unjudged = ask([["a"], [GoldItem("x", 0)]]), ask([["a"]])
    names = ("recall@2", "precision@2", "ndcg@2", "map")
    assert score(judged, retrieve("x", "a"), *names) == score(unjudged, retrieve("x", "a"), *names)


def test_one_alternative_satisfies_its_group_and_the_other_is_then_a_duplicate() -> None:
    question = ask([["a", "b"], ["c"]])
    retrieved = retrieve("b", "x", "a", "b", "c")
    assert score(question, retrieved, "recall@1", "recall@3", "precision@3", "mrr", "map") == pytest.approx(
        [0.5, 1.0, 2 / 3, 1.0, (1 + 2 / 3) / 2]
    )


@given(st.lists(st.sampled_from("abcdxy")), st.permutations("ab"))
def test_it_does_not_matter_which_alternative_is_found(uris: list[str], swapped: list[str]) -> None:
    names = ("recall@3", "precision@3", "ndcg@3", "mrr", "map")
    question = ask([["a", "b"], ["c"]])
    renamed = [dict(zip("ab", swapped, strict=True)).get(uri, uri) for uri in uris]
    assert score(question, retrieve(*uris), *names) == score(question, retrieve(*renamed), *names)


@given(st.lists(st.sampled_from(DOCUMENTS)), st.lists(st.sets(st.sampled_from(DOCUMENTS), min_size=1)))
def test_values_lie_between_zero_and_one(uris: list[str], drawn: list[set[str]]) -> None:
    disjoint = [group for i, group in enumerate(drawn) if not any(group & other for other in drawn[:i])]
    row = score(ask([sorted(group) for group in disjoint]), retrieve(*uris), *TREC_NAMES)
    assert all((value is None) if not disjoint else 0 <= value <= 1 for value in row)


def test_passages_roll_up_to_their_document_at_its_first_occurrence() -> None:
    passages = [("x", "x-1"), ("a", "a-1"), ("a", "a-2"), ("b", "b-1")]
    observation = Observation([RetrievedDocument(uri, chunk) for uri, chunk in passages])
    assert score(ask([["b"]]), observation, "mrr") == [pytest.approx(1 / 3)]


def test_passage_level_asks_for_the_very_passage() -> None:
    question = ask([[GoldItem("a", 1, "a-2")]])
    observation = Observation([RetrievedDocument("a", "a-1"), RetrievedDocument("a", "a-2")])
    assert score(question, observation, "mrr", "passage_mrr", "passage_recall@1") == [1.0, 0.5, 0.0]


def test_a_passage_id_counts_within_its_document_only() -> None:
    question = ask([[GoldItem("a", 1, "0")]])
    observation = Observation([RetrievedDocument("b", "0"), RetrievedDocument("a", "0")])
    assert score(question, observation, "passage_mrr") == [0.5]


def test_passages_without_an_id_hold_their_ranks_and_match_nothing() -> None:
    question = ask([[GoldItem("a", 1, "a-1")]])
    observation = Observation([RetrievedDocument("a"), RetrievedDocument("a"), RetrievedDocument("a", "a-1")])
    assert score(question, observation, "passage_mrr") == [pytest.approx(1 / 3)]


def test_passage_level_applies_only_where_all_gold_names_passages() -> None:
    partly = ask([[GoldItem("a", 1, "a-1")], ["b"]])
    assert score(partly, retrieve("a"), "passage_recall@5", "recall@5") == [None, 0.5]


def test_gold_passages_of_one_document_are_one_document_with_the_best_grade() -> None:
    question = ask([[GoldItem("a", 1, "a-1")], [GoldItem("a", 2, "a-2")], [GoldItem("b", 1, "b-1")]])
    assert score(question, retrieve("a"), "recall@1", "passage_recall@1") == [0.5, 0.0]
    ideal = 2 + 1 / math.log2(3)
    assert score(question, retrieve("a"), "ndcg@5") == [pytest.approx(2 / ideal)]


def test_gold_and_results_are_compared_under_normalized_uris() -> None:
    question = ask([["http://Docs.a/p/"]])
    observation = retrieve("https://docs.a/x", "https://docs.a/p?utm_source=s", "https://docs.a/p")
    assert score(question, observation, "mrr", "precision@2") == [0.5, 0.5]


def test_metric_values_are_hashable_and_equal_by_spelling() -> None:
    assert {Metric("recall", 5)} == set(parse_metrics(["recall@5"]))


@pytest.mark.parametrize("odd", ["b\0c", "\ud800", "", "gold0", "other0"])
def test_any_text_can_name_a_document_or_a_question(odd: str) -> None:
    gold = ask([["a"]], odd or "q")
    observation = Observation([RetrievedDocument(odd), RetrievedDocument(odd + "\0"), RetrievedDocument("a")])
    assert score(gold, observation, "mrr", "passage_mrr") == [pytest.approx(1 / 3), None]

"""Which questions are compared, in which families, and what a reader is warned of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.comparison.comparison import compare_runs, improvement
from eval.comparison.pairing import pair_questions
from eval.comparison.score_files import read_run_directory
from eval.paired import compare_paired, holm
from eval.scored_runs import ScoredRun
from retrieval.errors import ConfigurationError, DataError

MakeRun = Callable[..., ScoredRun]


def test_two_runs_on_disk_are_compared_on_what_both_scored(baseline: Path, candidate: Path) -> None:
    comparison = compare_runs(read_run_directory(baseline), read_run_directory(candidate), by=("lang",))
    assert list(comparison.headline) == ["recall@2", "ndcg@2", "citation_recall", "abstention_accuracy"]
    assert list(comparison.others) == ["recall@1", "latency_ms"]
    recall = comparison.headline["recall@2"]
    assert (recall.n, recall.wins, recall.losses, recall.ties) == (3, 0, 1, 2)
    assert recall.difference.mean == pytest.approx(-1 / 3)
    assert comparison.unscored_b == {"q4": "The model is out."}
    assert comparison.settings == {"retrieval.k": (2, 3)}
    assert comparison.slice_sizes == {"lang": {"en": 3, "ja": 1}}
    assert comparison.slices["lang"]["en"]["recall@2"].difference.mean == pytest.approx(-0.5)
    assert "1 of the 4 common questions are unscored in B" in " ".join(comparison.warnings())


def test_the_figures_are_those_of_the_paired_statistics(make_run: MakeRun) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 40))
    found = compare_runs(make_run("a", recall_at_5=a), make_run("b", recall_at_5=b)).headline["recall@5"]
    assert found == compare_paired("recall@5", a, b)


def test_the_headline_and_the_rest_are_corrected_each_as_a_family(make_run: MakeRun) -> None:
    rng = np.random.default_rng(2)
    names = ["recall_at_5", "recall_at_1", "fact_recall", "mrr", "token_f1"]
    a, b = (
        make_run(name, **{metric: rng.random(30) + 0.1 * place for metric in names})
        for place, name in [(0, "a"), (1, "b")]
    )
    comparison = compare_runs(a, b)
    assert set(comparison.headline) == {"recall@5", "fact_recall"}
    for family in (comparison.headline, comparison.others):
        assert [d.p_adjusted for d in family.values()] == holm([d.p_value for d in family.values()])


def test_metrics_that_are_asked_for_are_the_family(make_run: MakeRun) -> None:
    a = make_run("a", recall_at_5=[0, 1, 1], mrr=[0, 1, 0.5], usd=[1, 1, 1])
    comparison = compare_runs(a, replace(a, name="b"), ["usd", "mrr", "usd"])
    assert list(comparison.headline) == ["usd", "mrr"]
    assert not comparison.others


@pytest.mark.parametrize(("k_a", "k_b", "cutoff"), [(3, "5", 5), (3, 3, 3), (2, 1, 3), (5, None, 10)])
def test_the_headline_cutoff_is_none_that_no_run_reaches(
    make_run: MakeRun, k_a: object, k_b: object, cutoff: int
) -> None:
    run = make_run("a", recall_at_3=[1], recall_at_5=[1], recall_at_10=[1])
    a, b = (replace(run, settings={"retrieval.k": k} if k else {}) for k in (k_a, k_b))
    assert list(compare_runs(a, b).headline) == [f"recall@{cutoff}"]


def test_another_programs_metrics_are_the_headline_where_none_is_ours(make_run: MakeRun) -> None:
    a = make_run("a", correctness=[0, 1], relevance=[1, 1])
    assert list(compare_runs(a, a).headline) == ["correctness", "relevance"]


def test_a_metric_that_one_run_lacks_names_the_run_and_the_nearest(make_run: MakeRun) -> None:
    a, b = make_run("a", recall_at_5=[1, 0], mrr=[1, 0]), make_run("b", recall_at_5=[1, 0])
    with pytest.raises(ConfigurationError, match=r"'b' has no metric 'mrr'. Both have: recall@5"):
        compare_runs(a, b, ["mrr"])
    with pytest.raises(ConfigurationError, match=r"'a' has no metric 'recal@5'. Did you mean 'recall@5'\?"):
        compare_runs(a, b, ["recal@5"])
    with pytest.raises(DataError, match="no metric in common: recall@5, mrr there, map here"):
        compare_runs(a, make_run("c", map=[1, 0]))


def test_different_question_sets_are_compared_on_the_intersection_and_it_is_said(make_run: MakeRun) -> None:
    a = make_run("a", ["1", "2", "3", "4"], mrr=[0.1, 0.2, 0.3, 0.4])
    b = make_run("b", ["3", "9", "2"], mrr=[0.35, 0.9, 0.2])
    comparison = compare_runs(a, b)
    assert comparison.headline["mrr"].n == 2
    assert comparison.headline["mrr"].difference.mean == pytest.approx(0.025)
    assert comparison.warnings() == [
        "The runs are not over the same questions: 2 are compared, 2 are only in A, 1 only in B."
    ]


def test_nothing_in_common_is_an_error_that_shows_an_id_of_each(make_run: MakeRun) -> None:
    with pytest.raises(DataError, match=r"have no question in common \(such as 'q0' and 'z'\)"):
        compare_runs(make_run("a", mrr=[1]), make_run("b", ["z"], mrr=[1]))


def test_an_id_with_another_text_is_another_question(make_run: MakeRun) -> None:
    a = make_run("a", mrr=[0, 0, 0])
    texts = {"q0": "question  q0?", "q1": "another question?", "q2": "question q2?"}
    b = replace(make_run("b", mrr=[1, 1, 1]), questions=texts)
    comparison = compare_runs(a, b)
    assert comparison.headline["mrr"].n == 2
    assert comparison.pairing.changed == ["q1"]
    assert "1 questions have the same id and another text, such as 'q1'" in comparison.warnings()[0]


def test_made_up_ids_are_matched_by_the_text_of_the_question(make_run: MakeRun) -> None:
    a = make_run("a", mrr=[0.1, 0.2, 0.3, 0.4])
    texts = {"h3": "question q3?", "h0": "question\nq0?", "hx": "something else?", "h1": "question q1?"}
    b = replace(make_run("b", mrr=[0.5, 0.6, 0.7, 0.8]), questions=texts, matched_by="question")
    pairing = pair_questions(a, b)
    assert pairing.pairs == [("q0", "h0"), ("q1", "h1"), ("q3", "h3")]
    assert (pairing.only_a, pairing.only_b, pairing.by_text) == (["q2"], ["hx"], True)
    assert compare_runs(a, b).headline["mrr"].difference.mean == pytest.approx((0.5 + 0.6 + 0.1) / 3)
    assert compare_runs(b, a).headline["mrr"].difference.mean == pytest.approx(-(0.5 + 0.6 + 0.1) / 3)


def test_a_japanese_question_in_another_unicode_form_is_the_same(make_run: MakeRun) -> None:
    a = replace(make_run("a", mrr=[0]), questions={"1": "データベース"})
    b = replace(make_run("b", mrr=[1]), questions={"h": "データベース"}, matched_by="question")
    assert pair_questions(a, b).pairs == [("1", "h")]


def test_a_question_that_is_asked_twice_and_has_no_id_is_not_compared(make_run: MakeRun) -> None:
    a = replace(make_run("a", mrr=[0, 0, 0]), questions={"1": "why?", "2": "why?", "3": "how?"})
    b = replace(make_run("b", mrr=[1, 1]), questions={"h": "why?", "i": "how?"}, matched_by="question")
    comparison = compare_runs(a, b)
    assert comparison.pairing.pairs == [("3", "i")]
    assert "1 questions are asked more than once" in comparison.warnings()[0]


def test_a_value_in_one_run_alone_is_counted_and_not_compared(make_run: MakeRun) -> None:
    a = make_run("a", mrr=[0.1, None, 0.3], fact_recall=[1, None, None])
    b = make_run("b", mrr=[0.1, 0.2, None], fact_recall=[1, None, None])
    comparison = compare_runs(a, b, ["mrr", "fact_recall"])
    assert comparison.headline["mrr"].n == 1
    assert comparison.warnings() == ["mrr: 2 questions have a value in one run alone, and are not compared."]


def test_the_same_questions_from_two_versions_of_a_dataset_are_warned_of(make_run: MakeRun) -> None:
    a = replace(make_run("a", mrr=[0, 1]), dataset="0123456789abc")
    assert "two versions of the dataset" in compare_runs(a, replace(a, dataset="fff")).warnings()[0]
    assert not compare_runs(a, a).warnings()


def test_lower_is_better_turns_a_difference_round(make_run: MakeRun) -> None:
    comparison = compare_runs(
        make_run("a", latency_ms=[10, 20, 30, 5], mrr=[1, 1, 1, 1]),
        make_run("b", latency_ms=[9, 18, 27, 6], mrr=[1, 1, 0, 1]),
        ["latency_ms", "mrr"],
    )
    latency, mrr = comparison.headline["latency_ms"], comparison.headline["mrr"]
    assert latency.difference.mean == pytest.approx(-1.25)
    turned = improvement(latency)
    assert turned.difference.mean == pytest.approx(1.25)
    assert turned.difference.low <= turned.difference.mean <= turned.difference.high
    assert (turned.wins, turned.losses) == (3, 1)
    assert improvement(mrr) is mrr


@pytest.mark.parametrize(
    ("a", "b", "differing"),
    [
        ({"k": 5, "t": 60.0}, {"k": "5", "t": "60"}, {}),
        ({"states": {}, "model": None}, {"states": "{}", "model": "None"}, {}),
        ({"k": 5}, {"k": 6, "reader": "lm"}, {"k": (5, 6), "reader": (None, "lm")}),
        ({"on": True}, {"on": "True"}, {}),
        ({}, {"k": 5}, {}),
    ],
)
def test_settings_differ_where_their_meaning_does(
    make_run: MakeRun, a: dict[str, Any], b: dict[str, Any], differing: dict[str, Any]
) -> None:
    run = make_run("a", mrr=[1])
    assert compare_runs(replace(run, settings=a), replace(run, settings=b)).settings == differing


def test_ten_thousand_questions_take_seconds(make_run: MakeRun) -> None:
    rng = np.random.default_rng(3)
    names = [
        "recall_at_5",
        "ndcg_at_5",
        "citation_recall",
        "fact_recall",
        "mrr",
        "map",
        "token_f1",
        "latency_ms",
    ]
    a = make_run("a", **{name: rng.random(10_000) for name in names})
    b = make_run("b", **{name: rng.random(10_000) for name in names})
    tags = {id_: {"lang": "ja" if place % 3 else "en"} for place, id_ in enumerate(a.questions)}
    began = time.process_time()
    compare_runs(replace(a, tags=tags), b)
    assert time.process_time() - began < 10, "seconds of CPU; it is 2 where nothing else runs"

"""Documents that runs agree on and nobody judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from eval.curation.pooling import find_unjudged
from eval.ground_truth import GoldItem, Question
from retrieval.errors import ConfigurationError, DataError

Ask = Callable[..., Question]


def rankings(**questions: str) -> Mapping[str, Mapping[str, str]]:
    """`q1="a b"`: documents in order, each under its own spelling in lower case."""
    return {id_: {uri.lower(): uri for uri in uris.split()} for id_, uris in questions.items()}


RUNS = {
    "bm25": rankings(q1="a x y", q2="n"),
    "dense": rankings(q1="X a z", q2="m n"),
    "hybrid": rankings(q1="x a y", q3="x"),
}


def test_what_most_runs_agree_on_comes_first_then_the_best_ranks(ask: Ask) -> None:
    questions = [ask("q1", "One?", "A"), ask("q2", "Two?")]
    found = find_unjudged(questions, RUNS, str.lower, depth=3)
    assert [(gap.question.id, gap.doc_uri, gap.runs, gap.best_rank) for gap in found] == [
        ("q1", "x", 3, 1),
        ("q2", "n", 2, 1),
        ("q1", "y", 2, 3),
    ]
    assert found[0].mean_rank == pytest.approx(4 / 3)


def test_depth_and_agreement_are_the_callers(ask: Ask) -> None:
    questions = [ask("q1", "One?", "a")]
    assert [gap.doc_uri for gap in find_unjudged(questions, RUNS, str.lower, depth=1)] == ["X"]
    found = find_unjudged(questions, RUNS, str.lower, depth=3, at_least=1)
    assert [gap.doc_uri for gap in found] == ["x", "y", "z"]


def test_what_was_judged_not_relevant_was_judged() -> None:
    question = Question("q1", "One?", ((GoldItem("a"),), (GoldItem("X", 0),)))
    assert [gap.doc_uri for gap in find_unjudged([question], RUNS, str.lower)] == ["y"]


def test_runs_that_cannot_agree_and_runs_over_other_questions_are_refused(ask: Ask) -> None:
    with pytest.raises(ConfigurationError, match="of 1 runs cannot be pooled where 2 runs must agree"):
        find_unjudged([ask("q1", "?")], {"bm25": RUNS["bm25"]}, str)
    with pytest.raises(DataError, match="'hybrid' has none of these questions"):
        find_unjudged([ask("q2", "?")], RUNS, str)

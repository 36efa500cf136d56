"""Splits: alike, apart, and steady."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.curation.leaks import find_leaks, relevant_documents
from eval.curation.splitting import Division, divide, parse_shares
from eval.ground_truth import GoldItem, Question, read_ground_truth
from retrieval.errors import ConfigurationError

Ask = Callable[..., Question]
HALVES = {"dev": 0.5, "test": 0.5}


def sample() -> tuple[Question, ...]:
    return read_ground_truth("datasets/agent_docs/ground_truth.jsonl").questions


def many(count: int, seed: int = 0) -> list[Question]:
    """Questions of random words, each with gold of its own, of four strata."""
    rng = random.Random(seed)
    return [
        Question(
            f"q{i}",
            " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(6)),
            ((GoldItem(f"d{i}"),),),
            tags={"type": rng.choice(["lookup", "two"]), "lang": rng.choice(["en", "ja"])},
        )
        for i in range(count)
    ]


def split_of(division: Division) -> dict[str, str]:
    return {question.id: question.tags["split"] for question in division.questions}


def test_each_split_has_its_share_of_every_stratum() -> None:
    division = divide(many(400), {"train": 0.6, "dev": 0.1, "test": 0.3})
    sizes = Counter(stratum for (stratum, _), n in division.strata.items() for _ in range(n))
    for (stratum, split), n in division.strata.items():
        share = {"train": 0.6, "dev": 0.1, "test": 0.3}[split]
        assert abs(n - share * sizes[stratum]) <= 1, (stratum, split)


def test_on_the_sample_no_duplicate_and_no_gold_is_on_both_sides() -> None:
    division = divide(sample(), HALVES)
    sides = [[q for q in division.questions if q.tags["split"] == split] for split in HALVES]
    assert find_leaks(*sides) == []
    assert not set.intersection(*({relevant_documents(q) for q in side if q.answerable} for side in sides))
    assert abs(len(sides[0]) - len(sides[1])) <= 0.1 * len(division.questions)
    assert {q.id: (q.question, q.gold) for q in division.questions} == {
        q.id: (q.question, q.gold) for q in sample()
    }


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_questions_changes_nothing(count: int, seed: int, rng: random.Random) -> None:
    questions = many(count)
    shuffled = rng.sample(questions, count)
    assert split_of(divide(questions, HALVES, seed=seed)) == split_of(divide(shuffled, HALVES, seed=seed))


def test_another_seed_divides_otherwise() -> None:
    questions = many(100)
    assert split_of(divide(questions, HALVES)) != split_of(divide(questions, HALVES, seed=1))


def test_questions_that_are_added_move_few_others() -> None:
    questions = many(300)
    before = split_of(divide(questions[:290], HALVES))
    after = split_of(divide(questions, HALVES))
    moved = [id_ for id_ in before if before[id_] != after[id_]]
    assert len(moved) <= 15, "ten were added, in four strata"


def test_shares_are_right_over_many_small_strata() -> None:
    # Each question a stratum of its own: chance decides, and must be fair.
    questions = [
        Question(f"q{i}", text.question, text.gold, tags={"type": str(i)}) for i, text in enumerate(many(400))
    ]
    counts = Counter(split_of(divide(questions, {"a": 0.25, "b": 0.75})).values())
    assert 65 <= counts["a"] <= 135, "100 are expected, 9 are a standard deviation"


def test_what_belongs_together_stays_together_and_is_counted(ask: Ask) -> None:
    questions = [ask(f"q{i}", question.question, f"d{i // 5}") for i, question in enumerate(many(50))]
    division = divide(questions, HALVES)
    sides: dict[str, set[str]] = {}
    for question in division.questions:
        sides.setdefault(question.gold[0][0].doc_uri, set()).add(question.tags["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    assert (division.groups, division.largest, division.moved) == (10, 5, 0)
    apart = divide(questions, HALVES, gold_together=False)
    assert apart.groups == 0


def test_a_split_that_was_there_is_replaced_and_said_to_be(ask: Ask) -> None:
    questions = [ask(str(i), q.question, split="old", team="x") for i, q in enumerate(many(10))]
    division = divide(questions, {"all": 1.0})
    assert {tuple(sorted(q.tags.items())) for q in division.questions} == {(("split", "all"), ("team", "x"))}
    assert division.moved == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dev=.5,test=.6", "dev=0.5, test=0.6 add up to 1.1, not to 1"),
        ("dev=half", "'dev=half' is not understood. Write dev=.5,test=.5"),
        ("dev", "'dev' is not understood"),
        ("=1", "'=1' is not understood"),
        ("a=.5,a=.5", "'a=.5' is not understood"),
        ("a=1.5,b=-.5", "a = 1.5 must be above 0 and at most 1"),
        ("a=1,b=0", "b = 0 must be above 0"),
        ("a=nan", "'a=nan' is not understood"),
    ],
)
def test_shares_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_shares(text)
    assert message in str(caught.value)


def test_shares_may_have_spaces() -> None:
    shares: Sequence[tuple[str, float]] = list(parse_shares(" train = .7 , test=.3").items())
    assert shares == [("train", 0.7), ("test", 0.3)]

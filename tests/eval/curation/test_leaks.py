"""Near duplicates: what counts as one question, and that none is missed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.curation.leaks import find_leaks, find_near_duplicates, group_questions, leaks_between_splits
from eval.ground_truth import Question, read_ground_truth
from retrieval import similarity
from retrieval.similarity import similar_pairs

Ask = Callable[..., Question]

REWORDED = [
    ("How many moons does Mars have?", "how many moons has Mars"),
    (
        "What is the maximum number of versions an endpoint can hold?",
        "What's the max number of versions that an endpoint can hold?",
    ),
    ("In DSPy, which optimizer needs a validation set?", "which optimizer needs a validation set in DSPy"),
    ("富士山の高さは何メートルですか？", "富士山の高さは何メートルか"),
]
DIFFERENT = [
    ("How many moons does Mars have?", "How many moons does Saturn have?"),
    ("How do I deploy an agent with agents.deploy?", "How do I delete an agent with agents.delete?"),
    ("富士山の高さは何メートルですか？", "北岳の高さは何メートルですか？"),
    ("Which rivers drain from the west?", "Which rivers drain from the east?"),
]
OTHERS = [
    *("Where is the key kept?", "Who wrote the manual?", "When was it released?", "What rises in the east?"),
    *(
        "日本で一番高い山は？",
        "何メートルまで潜れますか",
        "Why does a trace have no spans?",
        "Which rivers are long?",
    ),
]


def leaks_of(ask: Ask, first: str, second: str, gold: tuple[str, str]) -> int:
    background = [ask(f"o{i}", text, f"other{i}") for i, text in enumerate(OTHERS)]
    return len(
        find_leaks([ask("a", first, gold[0]), *background[:4]], [ask("b", second, gold[1]), *background[4:]])
    )


@pytest.mark.parametrize(("first", "second"), REWORDED)
def test_one_question_in_other_words_about_the_same_document_is_found(
    ask: Ask, first: str, second: str
) -> None:
    assert leaks_of(ask, first, second, ("d", "d")) == 1


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_two_questions_of_one_form_about_two_documents_are_two(ask: Ask, first: str, second: str) -> None:
    assert leaks_of(ask, first, second, ("d", "e")) == 0


@pytest.mark.parametrize("second", ["WHERE IS THE API-KEY KEPT", "Ｗｈｅｒｅ is  the\nAPI key kept?!"])
def test_writing_it_otherwise_makes_no_other_question_whatever_its_gold(ask: Ask, second: str) -> None:
    (leak,) = find_leaks([ask("a", "Where is the API key kept?", "d")], [ask("b", second, "e")])
    assert (leak.first.id, leak.second.id, leak.same_gold) == ("a", "b", False)
    assert leak.similarity == pytest.approx(1)


def test_the_threshold_is_the_callers(ask: Ask) -> None:
    a, b = [ask("a", "Where is the key kept?", "d")], [ask("b", "Where is the old key kept now?", "e")]
    assert not find_leaks(a, b)
    assert find_leaks(a, b, threshold=0.3)[0].similarity > 0.3
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1, not 0"):
        find_leaks(a, b, threshold=0)


def test_a_follow_up_is_compared_with_what_was_said_before(ask: Ask) -> None:
    def follow_up(id_: str, before: str) -> Question:
        return Question(id_, "And then?", (), history=({"role": "user", "content": before},))

    one, other = follow_up("a", "How do I deploy an agent?"), follow_up("b", "Who is the king of Atlantis?")
    assert not find_leaks([one], [other])
    assert find_leaks([one], [follow_up("c", "How do I deploy an agent?")])


def test_no_questions_and_questions_of_punctuation_do_no_harm(ask: Ask) -> None:
    assert find_leaks([], [ask("a", "A?")]) == find_leaks([ask("a", "A?")], []) == []
    assert len(find_near_duplicates([ask("a", "?!"), ask("b", "?!"), ask("c", "…")])) == 1


def test_leaks_are_between_splits_and_the_rest_within(ask: Ask) -> None:
    text = "Where is the key kept?"
    questions = [
        *(
            ask("a", text, split="dev"),
            ask("b", text, split="test"),
            ask("c", text, split="test"),
            ask("d", text),
        ),
        ask("e", "Who wrote the manual?", split="dev"),
    ]
    across, within = leaks_between_splits(questions)
    assert [(leak.first.id, leak.second.id) for leak in across] == [("a", "b"), ("a", "c")]
    assert {(leak.first.id, leak.second.id) for leak in within} == {
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
        ("c", "d"),
    }


WORDS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "山の高さ", "海", "x"]), min_size=1, max_size=6
).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, min_size=1, max_size=12), st.floats(0.05, 1))
def test_blocks_find_what_comparing_all_at_once_finds(
    left: list[str], right: list[str], threshold: float
) -> None:
    rows, columns = similarity._vectors(left, right)
    cosines = (rows @ columns.T).toarray()
    expected = {(int(i), int(j)) for i, j in zip(*np.where(cosines >= threshold - 1e-5), strict=True)}
    at_once, similarity._PAIRS_AT_ONCE = similarity._PAIRS_AT_ONCE, 2 * len(right)
    try:
        found = list(similar_pairs(left, right, threshold))
    finally:
        similarity._PAIRS_AT_ONCE = at_once
    assert {(i, j) for i, j, _ in found} == expected
    assert found == sorted(found, key=lambda pair: pair[:2])
    assert all(threshold - 1e-4 <= cosine <= 1 for _, _, cosine in found)


@settings(max_examples=30, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=10), st.floats(0.3, 1))
def test_pairs_within_a_set_come_once_and_never_with_themselves(texts: list[str], threshold: float) -> None:
    rows, columns = similarity._vectors(texts, None)
    cosines = np.triu((rows @ columns.T).toarray(), 1)
    expected = {(int(i), int(j)) for i, j in zip(*np.where(cosines >= threshold - 1e-5), strict=True)}
    assert {(i, j) for i, j, _ in similar_pairs(texts, None, threshold)} == expected


def test_groups_are_what_duplicates_and_gold_connect(ask: Ask) -> None:
    questions = [
        ask("a", "Where is the key kept?", "d1"),
        ask("b", "Who wrote the manual?", "d2"),
        ask("c", "Where is the key kept?!", "d3"),
        ask("d", "When was it released?", "d3"),
        ask("e", "Why?"),
        ask("f", "Whence?"),
    ]
    groups = [[q.id for q in group] for group in group_questions(questions, gold_together=True)]
    assert groups == [["a", "c", "d"], ["b"], ["e"], ["f"]]
    apart = [[q.id for q in group] for group in group_questions(questions, gold_together=False)]
    assert apart == [["a", "c"], ["b"], ["d"], ["e"], ["f"]]


def test_the_sample_set_leaks_nothing_and_a_leak_put_into_it_is_found() -> None:
    path = "datasets/agent_docs/ground_truth.jsonl"
    dev, test = (read_ground_truth(path, split=split).questions for split in ("dev", "test"))
    assert find_leaks(dev, test) == []
    (leak,) = find_leaks(dev, [*test, dev[3]])
    assert leak.first is leak.second is dev[3]


def test_thousands_of_questions_take_seconds(ask: Ask) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(3000)]
    questions = [ask(str(i), " ".join(rng.choice(words, 9))) for i in range(3000)]
    before = time.process_time()
    leaks = find_leaks(questions[:1500], [*questions[1500:], questions[7]])
    assert [(leak.first.id, leak.second.id) for leak in leaks] == [("7", "7")]
    assert time.process_time() - before < 10, "seconds of CPU; it is 0.5 where nothing else runs"

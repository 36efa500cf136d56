"""Likeness letter by letter: laws, and what it is there for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrieval.ranking.letters import letter_likeness

TEXTS = [
    "Water boils at 100 degrees.",
    "Iron is heated.",
    "",
    "富士山の高さは3776メートルです。",
    "?!",
    "water",
]
anything = st.text(max_size=40) | st.sampled_from(TEXTS)


@given(question=anything, texts=st.lists(anything, max_size=6))
def test_any_texts_have_a_likeness_from_0_to_1_each(question: str, texts: list[str]) -> None:
    likeness = letter_likeness(question, texts)
    assert len(likeness) == len(texts)
    assert all(0 <= value <= 1 for value in likeness)


@given(question=anything, texts=st.lists(anything, min_size=1, max_size=6), data=st.data())
def test_the_order_of_the_texts_changes_nothing(question: str, texts: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    alone = letter_likeness(question, texts)
    assert letter_likeness(question, [texts[i] for i in order]) == [alone[i] for i in order]


def test_a_text_is_most_like_itself() -> None:
    for number, text in enumerate(TEXTS):
        if text not in ("", "?!"):
            likeness = letter_likeness(text, TEXTS)
            assert likeness[number] == max(likeness) == 1.0


def test_parts_of_words_and_misspellings_are_like_their_words() -> None:
    texts = ["a password manager", "the boiling point", "a database"]
    assert (
        letter_likeness("passwordmanagement", texts).index(max(letter_likeness("passwordmanagement", texts)))
        == 0
    )
    assert letter_likeness("boilling", texts)[1] > 0
    assert letter_likeness("data bases", texts)[2] > 0


def test_japanese_is_compared_by_single_characters_and_pairs() -> None:
    likeness = letter_likeness("山の高さ", ["富士山の標高です", "海の深さです", "water"])
    assert likeness[0] > likeness[1] > likeness[2] == 0


def test_case_width_and_punctuation_do_not_count() -> None:
    assert letter_likeness("ＷＡＴＥＲ-boils", ["water boils!"]) == [1.0]

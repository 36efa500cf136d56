from __future__ import annotations

import tantivy
from hypothesis import given
from hypothesis import strategies as st

from retrieval.analysis import analyze, content_terms
from retrieval.lexical import build_schema, register_tokenizers, to_index_document
from retrieval.types import Passage


def test_words_are_lower_cased_folded_and_stemmed() -> None:
    assert analyze("Running tests at the Café") == ["run", "test", "at", "the", "cafe"]


def test_full_width_and_half_width_forms_match_their_ordinary_ones() -> None:
    assert analyze("ＤＳＰｙ ｶｰﾄﾞ") == analyze("DSPy カード")


def test_a_decomposed_accent_is_the_same_as_a_composed_one() -> None:
    assert analyze("cafe\u0301") == analyze("café") == ["cafe"]


def test_names_are_found_whole_and_by_their_parts() -> None:
    assert analyze("dspy.LM") == ["dspi", "lm", "dspy.lm"]
    assert analyze("set_retriever_schema") == ["set", "retriev", "schema", "set_retriever_schema"]
    assert analyze("k=5, Python 3.11.") == ["k", "5", "python", "3", "11", "3.11"]


def test_a_full_stop_after_a_word_makes_no_name() -> None:
    assert "end.next" not in analyze("The end. Next")


def test_cjk_runs_give_bigrams_and_a_lone_character_itself() -> None:
    assert analyze("検索器 と LM") == ["lm", "検索", "索器", "と"]
    assert analyze("スーパー")[-3:] == ["スー", "ーパ", "パー"]
    assert analyze("한국어") == ["한국", "국어"]


def test_text_without_letters_or_digits_has_no_terms() -> None:
    assert analyze("?! … 😀 \0 --- 。、") == []


def test_a_lone_surrogate_is_no_error() -> None:
    assert analyze("left \ud800 right") == ["left", "right"]


def test_a_word_too_long_to_be_one_is_left_out() -> None:
    assert analyze("x" * 10_000 + " ok") == ["ok"]


def test_function_words_are_left_out_of_a_question_unless_it_has_nothing_else() -> None:
    assert content_terms(analyze("What is the trace of a span?")) == ["trace", "span"]
    assert content_terms(analyze("検索できますか")) == ["検索", "索で"]
    assert content_terms(analyze("to be or not to be")) == ["to", "be", "or", "not", "to", "be"]
    assert content_terms(analyze("おにぎり")) == ["おに", "にぎ", "ぎり"]


def test_the_index_holds_exactly_the_terms_that_analyze_gives() -> None:
    text = "Running dspy.LM with max_tokens=5: 検索器のテスト、カード Ｘ naïve 3.11 e\u0301"
    index = tantivy.Index(build_schema())
    register_tokenizers(index)
    writer = index.writer(15_000_000, 1)
    writer.add_document(to_index_document(Passage("u#c0000", "u", text), 0))
    writer.commit()
    index.reload()
    searcher = index.searcher()
    for term in analyze(text):
        assert sum(searcher.doc_freq(field, term) for field in ("words", "names", "grams")) == 1, term


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_is_safe_and_its_terms_hold_no_white_space(text: str) -> None:
    for term in analyze(text):
        assert term
        assert term.split() == [term]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_analysis_does_not_depend_on_surrounding_space(text: str) -> None:
    assert analyze(f"  {text}\n") == analyze(text)


def test_japanese_question_words_are_not_what_a_question_is_about() -> None:
    assert content_terms(analyze("トークンとは何ですか")) == ["トー", "ーク", "クン", "ンと"]
    assert content_terms(analyze("何")) == ["何"]

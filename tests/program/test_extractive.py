"""Answers without a language model: sentences of the passages, word for word, or an honest abstention."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from program.extractive import ExtractiveReader, ExtractiveSettings
from program.streaming import emitting
from program.types import CitedAnswer, Piece
from retrieval.local_index import LocalIndex
from retrieval.types import Passage

PASSAGES = [
    Passage(
        "c1", "https://e.org/water", "Water boils at 100 degrees. Ice melts at zero.", "Water", score=9.0
    ),
    Passage(
        "c2",
        "https://e.org/iron",
        "# Iron\n\n- Iron melts at 1538 degrees.\n- Steel has carbon.",
        "Iron",
        score=6.0,
    ),
    Passage(
        "c3", "https://e.org/fuji", "富士山の高さは3776メートルです。山頂は寒いです。", "富士山", score=3.0
    ),
]
WORDS = ["water", "boils", "iron", "melts", "degrees", "富士山", "高さ", "は", "zzz", "100", "?", "the"]
ENDS = [". ", "。", "\n", "\n\n- ", "! ", " ", "\n```\ncode\n```\n", "\n# ", "| ", ": "]
prose = st.lists(st.sampled_from(WORDS + ENDS), max_size=30).map(" ".join) | st.text(max_size=60)


def read(question: str, passages: list[Passage] = PASSAGES, **settings: float) -> CitedAnswer:
    return ExtractiveReader(ExtractiveSettings(**settings))(question, passages)  # type: ignore[arg-type]


def said(answer: CitedAnswer) -> list[str]:
    """The text before each marker."""
    bounds = [0, *(citation.end for citation in answer.citations)]
    return [answer.text[start:end] for start, end in itertools.pairwise(bounds)]


def test_the_sentence_that_speaks_to_the_question_is_the_answer() -> None:
    answer = read("When does water boil?", max_sentences=1)
    assert answer.text == "Water boils at 100 degrees. [1]"
    assert answer.citations[0].quote == "Water boils at 100 degrees."
    assert answer.citations[0].passage is PASSAGES[0]


def test_a_japanese_sentence_is_followed_by_its_marker_without_a_space() -> None:
    answer = read("富士山の高さは？", max_sentences=1)
    assert answer.text == "富士山の高さは3776メートルです。[3]"


def test_list_marks_are_not_a_part_of_the_answer() -> None:
    answer = read("At how many degrees does iron melt?", max_sentences=1)
    assert answer.text == "Iron melts at 1538 degrees. [2]"


def test_every_answer_is_labelled_extractive() -> None:
    assert read("When does water boil?").reader == "extractive"
    assert read("Who was Napoleon?").reader == "extractive"


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Who was Napoleon Bonaparte?", "The documents do not seem"),
        ("ナポレオンは誰ですか？", "見つかりませんでした"),
    ],
)
def test_below_the_threshold_it_abstains_in_the_language_of_the_question(question: str, words: str) -> None:
    answer = read(question)
    assert answer.abstained
    assert words in answer.text
    assert answer.citations == ()
    assert list(answer.passages) == PASSAGES


def test_the_threshold_decides() -> None:
    reader = ExtractiveReader()
    confidence = reader.confidence("Does water melt Napoleon?", PASSAGES)
    assert 0 < confidence < 1
    assert not read("Does water melt Napoleon?", abstain_below=confidence).abstained
    assert read("Does water melt Napoleon?", abstain_below=confidence + 0.01).abstained


@pytest.mark.parametrize("abstain_below", [0.0, 0.35])
@pytest.mark.parametrize("passages", [[], [Passage("c", "u", "")], [Passage("c", "u", "```\nwater\n```")]])
def test_without_a_sentence_to_choose_it_abstains(passages: list[Passage], abstain_below: float) -> None:
    assert read("water", passages, abstain_below=abstain_below).abstained


def test_terms_weigh_what_the_corpus_says(index: LocalIndex) -> None:
    question = "What boils on Everest?"
    passages = index.search(question, 3)
    weighed = ExtractiveReader(weigh=index.idf)
    assert weighed.confidence(question, passages) == 1.0
    assert weighed(question, passages).cited_uris[0] == "https://docs.example/mountains"
    assert weighed.confidence("What is the price of Everest tickets?", passages) < 0.6


def test_the_same_sentence_in_two_passages_is_said_once() -> None:
    twice = [PASSAGES[0], Passage("c9", "https://e.org/copy", PASSAGES[0].text, score=8.0)]
    assert read("When does water boil?", twice, max_sentences=5).text.count("Water boils") == 1


@given(
    st.lists(prose, max_size=4),
    prose,
    st.integers(1, 4),
    st.lists(st.floats(0, 50), min_size=4, max_size=4),
)
def test_it_says_only_what_a_passage_says_where_its_citation_points(
    texts: list[str], question: str, max_sentences: int, scores: list[float]
) -> None:
    passages = [
        Passage(f"c{number}", f"https://e.org/{number}", text, score=score)
        for number, (text, score) in enumerate(zip(texts, scores, strict=False))
    ]
    pieces: list[Piece] = []
    with emitting(pieces.append):
        answer = read(question, passages, max_sentences=max_sentences, abstain_below=0.2)

    assert answer == read(question, passages, max_sentences=max_sentences, abstain_below=0.2)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == answer.text
    assert answer.abstained == (not answer.citations)
    assert len(answer.citations) <= max_sentences
    if not answer.abstained:
        for text, citation in zip(said(answer), answer.citations, strict=True):
            sentence = text.removesuffix(f"[{citation.number}]").strip()
            assert answer.text[citation.start : citation.end] == f"[{citation.number}]"
            assert sentence
            assert citation.quote.endswith(sentence)
            assert citation.passage is passages[citation.number - 1]


@pytest.mark.parametrize("wrong", [{"max_sentences": 0}, {"max_sentences": 11}, {"abstain_below": 1.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExtractiveSettings(**wrong)  # type: ignore[arg-type]


class OneDirectionForEach:
    """Texts about heat point one way, all others another."""

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self.embed_query(text) for text in texts], dtype=np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        is_hot = any(word in text.lower() for word in ("boil", "hot"))
        return np.array([1, 0] if is_hot else [0, 1], dtype=np.float32)


def test_a_sentence_that_shares_no_word_is_found_by_its_meaning() -> None:
    for scoring in ("auto", "both", "embedding"):
        reader = ExtractiveReader(
            ExtractiveSettings(max_sentences=1, abstain_below=0, scoring=scoring),  # type: ignore[arg-type]
            embedder=OneDirectionForEach(),
        )
        assert reader("How hot?", PASSAGES).text == "Water boils at 100 degrees. [1]"


def test_words_alone_are_scored_where_that_is_asked_for_or_nothing_else_is_there() -> None:
    question = "How hot is iron when it melts?"
    asked = ExtractiveReader(
        ExtractiveSettings(max_sentences=1, scoring="overlap"), embedder=OneDirectionForEach()
    )
    assert asked(question, PASSAGES) == ExtractiveReader(ExtractiveSettings(max_sentences=1))(
        question, PASSAGES
    )


def test_scoring_by_vectors_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="embedder"):
        ExtractiveReader(ExtractiveSettings(scoring="both"))


@given(scores=st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_scores_of_any_retriever_are_borne(scores: list[float]) -> None:
    passages = [replace(passage, score=score) for passage, score in zip(PASSAGES, scores, strict=True)]
    assert not read("When does water boil?", passages).abstained

"""Markers become checked citations, however the text is cut into deltas."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from program.citations import CitationParser, cite, find_quote
from program.types import Citation, CitedAnswer, Piece
from retrieval.types import Passage

PASSAGES = [
    Passage("c1", "https://e.org/1", "Water boils at 100 degrees. Ice melts at zero degrees."),
    Passage("c2", "https://e.org/2", "富士山の高さは3776メートルです。山頂は寒いです。"),
    Passage("c3", "https://e.org/3", ""),
]
INGREDIENTS = [
    *(
        "[1]",
        "[2]",
        "[3]",
        "[4]",
        "[0]",
        "[01]",
        "[404]",
        "[1, 3]",
        "[1,9]",
        "[2、1]",
        "［1］",
        "【2】",
        "[１]",
    ),
    *("[", "]", "［", "【", "1", "[[1]]", "[1](https://e.org)", "[^1]", "[1", ", ", "、"),
    *("`", "``", "```", "````", "```python\nx[1]\n```", "`a[2]`", "\n", "\n\n", " ", "  ", "\t"),
    *("Water boils.", "水は沸騰します。", "富士山", ".", "。", "x", "|", "#", "\u3000"),
]
texts = st.lists(st.sampled_from(INGREDIENTS), max_size=14).map("".join) | st.text(
    "[]`1, ［】\n水", max_size=30
)
cuts = st.lists(st.integers(0, 80), max_size=12)


def cut(text: str, places: list[int]) -> list[str]:
    bounds = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def cited(text: str | list[str], passages: list[Passage] = PASSAGES) -> CitedAnswer:
    return cite(text, passages, reader="test", query="q")


@given(texts, cuts)
@example("```x````[1]\n[2]", [7])
def test_the_outcome_does_not_depend_on_how_the_text_was_cut(text: str, places: list[int]) -> None:
    assert cited(cut(text, places)) == cited(text) == cited(list(text))


@given(texts, cuts)
def test_pieces_add_up_to_the_answer_and_each_citation_follows_its_marker(
    text: str, places: list[int]
) -> None:
    pieces: list[Piece] = []
    answer = cite(cut(text, places), PASSAGES, reader="test", query="q", emit=pieces.append)

    said = ""
    for piece in pieces:
        if isinstance(piece, Citation):
            assert said.endswith(f"[{piece.number}]")
            assert piece.end == len(said)
        else:
            said += piece
    assert said == answer.text
    assert tuple(piece for piece in pieces if isinstance(piece, Citation)) == answer.citations


@given(texts)
def test_every_citation_points_at_its_marker_and_at_a_part_of_its_passage(text: str) -> None:
    for citation in cited(text).citations:
        assert cited(text).text[citation.start : citation.end] == f"[{citation.number}]"
        assert citation.passage is PASSAGES[citation.number - 1]
        assert 0 <= citation.quote_start <= citation.quote_end <= len(citation.passage.text)


@given(texts)
def test_text_without_a_valid_marker_loses_nothing_but_markers(text: str) -> None:
    answer = cited(text, [])
    assert answer.citations == ()
    if answer.dropped_markers == 0:
        assert answer.text == text


@pytest.mark.parametrize(
    ("text", "expected", "numbers"),
    [
        ("Yes [1].", "Yes [1].", [1]),
        ("Both [1, 3].", "Both [1][3].", [1, 3]),
        ("Both [1,2] here.", "Both [1][2] here.", [1, 2]),
        ("両方［1、2］です。", "両方[1][2]です。", [1, 2]),
        ("はい【2】。", "はい[2]。", [2]),
        ("Twice [1, 1].", "Twice [1].", [1]),
        ("One is not there [1, 9].", "One is not there [1].", [1]),
    ],
)
def test_markers_are_written_one_way(text: str, expected: str, numbers: list[int]) -> None:
    answer = cited(text)
    assert answer.text == expected
    assert [citation.number for citation in answer.citations] == numbers


@pytest.mark.parametrize(
    "text", ["Error [404] again", "in [2024]", "a list [x]", "[ 1 ] box", "[]", "[1", "1]"]
)
def test_brackets_that_hold_no_passage_number_are_text(text: str) -> None:
    answer = cited(text)
    assert (answer.text, answer.citations, answer.dropped_markers) == (text, (), 0)


@pytest.mark.parametrize(
    "text",
    [
        "Use `row[1]` here",
        "```python\nprint(row[1])\n```",
        "``a ` [2]``",
        "~~~\nunmarked\n~~~\n`x[1]`",
        "```\n[1]",
    ],
)
def test_markers_in_code_are_code(text: str) -> None:
    answer = cited(text)
    assert (answer.text, answer.citations) == (text, ())


def test_a_stray_backtick_does_not_hide_the_markers_of_later_lines() -> None:
    assert [c.number for c in cited("It's a ` sign [1].\nTrue [2].").citations] == [2]


@pytest.mark.parametrize(
    ("text", "expected", "dropped"),
    [
        ("Gone [9].", "Gone.", 1),
        ("Gone [9] and on", "Gone and on", 1),
        ("[7] Gone", " Gone", 1),
        ("Both gone [8, 9].", "Both gone.", 2),
        ("Zero [0] too", "Zero too", 1),
    ],
)
def test_a_marker_of_no_passage_is_removed_with_the_space_before_it(
    text: str, expected: str, dropped: int
) -> None:
    answer = cited(text)
    assert (answer.text, answer.dropped_markers) == (expected, dropped)


def test_text_is_handed_on_at_once_unless_it_may_become_a_marker() -> None:
    parser = CitationParser(PASSAGES)
    assert parser.feed("Water boils") == ["Water boils"]
    assert parser.feed(" [") == []
    assert parser.feed("note]") == [" [note]"]
    assert parser.feed(" [1") == []
    marker = parser.feed("]")
    assert marker[0] == " [1]"
    assert isinstance(marker[1], Citation)


def test_the_quote_is_the_sentence_that_the_claim_shares_most_with() -> None:
    text = PASSAGES[0].text
    start, end = find_quote("Ice melts at zero", text)
    assert text[start:end] == "Ice melts at zero degrees."
    assert cited("高さは3776メートルです[2]。").citations[0].quote == "富士山の高さは3776メートルです。"


def test_documents_are_cited_in_order_of_first_citation() -> None:
    assert cited("b [2] a [1] b [2]").cited_uris == ["https://e.org/2", "https://e.org/1"]

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.sentences import split_sentences

PIECES = st.sampled_from(
    [
        "A word. ",
        "e.g. this ",
        "v1.2.3 ",
        "これは文です。",
        "「はい。」と",
        "\n",
        "\n\n",
        "- item\n",
        "# Title\n",
        "```\n",
        "  ",
        "!?",
        "\t",
    ]
)


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Use it, e.g. with tools, i.e. with functions of yours.",
        "The default is 3.5 and not 4.",
        "It needs Python 3.11.7 or newer.",
        "See https://example.org/a.b/c.html?x=1.2 for more.",
        "Call dspy.LM with mlflow.start_span inside.",
        "By J. Smith et al. in Fig. 5 of No. 7.",
        "Lists, tables, etc. are kept.",
        "1. Install it first.",
        "- a. the first case",
        "Dr. Ada and Mr. Babbage vs. the engine.",
    ],
)
def test_full_stops_that_end_no_sentence_do_not_split(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Lists, etc. The rest is text.", ["Lists, etc.", "The rest is text."]),
        ("It returns. mlflow logs it.", ["It returns.", "mlflow logs it."]),
        ("Is it safe? No. It is not.", ["Is it safe?", "No.", "It is not."]),
        ("Wait... What?", ["Wait...", "What?"]),
    ],
)
def test_english_sentences_end_at_their_punctuation(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("これは文です。次の文です！本当？はい", ["これは文です。", "次の文です！", "本当？", "はい"]),
        ("終わりです（完了。）次です。", ["終わりです（完了。）", "次です。"]),
        ("「はい。」と答えました。次です。", ["「はい。」と答えました。", "次です。"]),
        ("値は３．５です。", ["値は３．５です。"]),
        (
            "mlflow.start_span を使います。k=5 が既定です。",
            ["mlflow.start_span を使います。", "k=5 が既定です。"],
        ),
    ],
)
def test_japanese_sentences_end_at_their_punctuation_and_closing_brackets(
    text: str, expected: list[str]
) -> None:
    assert sentences(text) == expected


def test_headings_bullets_and_short_lines_are_sentences_of_their_own() -> None:
    text = "# A title\nShort line\n- first\n- second. Third\n\nText"
    assert sentences(text) == ["# A title", "Short line", "- first", "- second.", "Third", "Text"]


def test_a_line_that_was_only_wrapped_goes_on() -> None:
    text = "This sentence was wrapped by its author at sixty columns or\nso, and ends here. Next."
    assert sentences(text) == [text[: text.index(" Next")], "Next."]


def test_a_code_fence_is_one_sentence_and_an_open_one_runs_to_the_end() -> None:
    fence = "```python\n# a. b\n\nx = 1.\n```"
    assert sentences(f"Text.\n{fence}\nMore. Text.") == ["Text.", fence, "More.", "Text."]
    assert sentences("Text.\n~~~\na. b\n\nc. d") == ["Text.", "~~~\na. b\n\nc. d"]


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_spans_are_ordered_stripped_and_cover_all_but_white_space(text: str) -> None:
    position = 0
    for start, end in split_sentences(text):
        assert not text[position:start].strip()
        assert text[start:end]
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()


@pytest.mark.parametrize("piece", [".", "e.g. ", "```\n", "!)", "漢", "a\n", "`" * 9 + "\n", "word "])
def test_a_hostile_text_takes_no_more_than_linear_time(piece: str) -> None:
    started = time.process_time()
    split_sentences(piece * (200_000 // len(piece)) + "x")
    assert time.process_time() - started < 5


def test_a_backtick_after_a_japanese_full_stop_belongs_to_the_code_that_it_opens() -> None:
    text = "`k` は省けます。`filters` を渡すと絞れます。**既定**は5です。"
    assert [text[start:end] for start, end in split_sentences(text)] == [
        "`k` は省けます。",
        "`filters` を渡すと絞れます。",
        "**既定**は5です。",
    ]


def test_marks_that_were_opened_in_the_sentence_close_with_it() -> None:
    text = "**必ず確認します。**次に進みます。"
    sentences = [text[start:end] for start, end in split_sentences(text)]
    assert sentences == ["**必ず確認します。**", "次に進みます。"]


def test_nothing_inside_code_ends_a_sentence() -> None:
    text = "A key passed to `dspy.LM(api_key=...)` is not written. Set it again."
    assert [text[start:end] for start, end in split_sentences(text)] == [
        "A key passed to `dspy.LM(api_key=...)` is not written.",
        "Set it again.",
    ]

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunking import ChunkingSettings, chunk, count_tokens
from retrieval.headings import find_anchors, first_heading
from retrieval.sentences import split_sentences
from retrieval.types import Document

SETTINGS = ChunkingSettings(max_tokens=40, overlap_tokens=12)
PIECES = st.sampled_from(
    [
        "# Top\n",
        "## Part\n\n",
        "One sentence of some words. ",
        "日本語の文です。",
        "\n\n",
        "```\ncode # x\n\n",
        "```\n",
        "- item\n",
        "x" * 90,
        "漢字" * 30,
        " ",
        "\n# Same\n",
    ]
)


def passages(text: str, settings: ChunkingSettings = SETTINGS) -> list[str]:
    return [passage.text for passage in chunk(Document("u", text), settings)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0, 0), "max_tokens must be at least 1, got 0"), ((10, 10), "got 10"), ((10, -1), "got -1")],
)
def test_impossible_settings_are_refused_by_value(arguments: tuple[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ChunkingSettings(*arguments)


def test_tokens_are_characters_in_japanese_and_a_quarter_of_them_in_english() -> None:
    assert count_tokens("") == 0
    assert count_tokens("a") == 1
    assert count_tokens("word" * 10) == 10
    assert count_tokens("日本語") == 3
    assert count_tokens("日本語 text") == 5


@given(st.text(), st.text())
def test_the_count_never_falls_when_text_is_appended(first: str, second: str) -> None:
    assert count_tokens(first) <= count_tokens(first + second) <= count_tokens(first) + count_tokens(second)


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_an_empty_document_has_no_passage(text: str) -> None:
    assert passages(text) == []


def test_a_passage_carries_what_its_document_is() -> None:
    document = Document("https://example.org/a", "# Top\n\nText here.", "Title", "en", {"year": 2024})
    (passage,) = chunk(document, SETTINGS)
    assert passage.chunk_id == "https://example.org/a#c0000"
    assert (passage.doc_uri, passage.title, passage.lang, passage.metadata) == (
        "https://example.org/a",
        "Title",
        "en",
        {"year": 2024},
    )
    assert passage.headings == ("Top",)


def test_sections_are_not_mixed_and_know_their_path() -> None:
    text = "".join(
        f"{mark} {name}\n\n{f'All about {name} in words. ' * 4}\n\n"
        for mark, name in [("#", "A"), ("##", "B"), ("##", "C")]
    )
    found = chunk(Document("u", text), SETTINGS)
    assert [passage.headings for passage in found] == [("A",), ("A", "B"), ("A", "C")]
    assert all(f"about {passage.headings[-1]} in" in passage.text for passage in found)


def test_tiny_neighbouring_sections_share_a_passage_under_their_common_heading() -> None:
    found = chunk(Document("u", "# Glossary\n\n## A\n\nFirst.\n\n## B\n\nSecond."), SETTINGS)
    assert [(passage.headings, passage.text[-7:]) for passage in found] == [(("Glossary",), "Second.")]


def test_a_heading_without_text_belongs_to_what_follows() -> None:
    found = chunk(Document("u", f"# Top\n\n## Part\n\n{'Some words here. ' * 9}"), SETTINGS)
    assert found[0].text.startswith("# Top\n\n## Part")
    assert found[0].headings == ("Top", "Part")


def test_a_hash_in_a_code_fence_is_no_heading() -> None:
    (passage,) = chunk(Document("u", "# Top\n\n```\n# comment\n```\n"), SETTINGS)
    assert passage.headings == ("Top",)
    assert first_heading("```\n# comment\n```\n## Real ##\n") == "Real"


def test_long_sections_are_cut_between_sentences_and_overlap_by_whole_ones() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(12))
    found = passages(text)
    whole = {text[start:end] for start, end in split_sentences(text)}
    assert len(found) > 2
    for one, other in pairwise(found):
        last = one[one.rindex("Sentence") :]
        assert last in whole
        assert other.startswith(last)


def test_without_overlap_nothing_is_repeated() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(12))
    assert " ".join(passages(text, ChunkingSettings(40, 0))) == text


def test_a_code_fence_that_fits_is_kept_whole() -> None:
    fence = "```python\n" + "\n\n".join(f"line_{number} = 1." for number in range(6)) + "\n```"
    assert any(
        fence in passage
        for passage in passages(f"{'Some words here. ' * 8}\n\n{fence}\n\n{'And more. ' * 8}")
    )


def test_a_code_fence_that_does_not_fit_is_cut_between_lines() -> None:
    lines = [f"value_{number} = {number}" for number in range(40)]
    found = passages("```\n" + "\n".join(lines) + "\n```", ChunkingSettings(40, 0))
    assert [line for passage in found for line in passage.splitlines() if line in lines] == lines


@pytest.mark.parametrize("text", ["漢" * 200, "x" * 900, "word " * 200])
def test_one_enormous_sentence_is_cut_at_the_budget(text: str) -> None:
    found = passages(text)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert all(count_tokens(passage) <= SETTINGS.max_tokens for passage in found)
    assert min(map(count_tokens, found[:-1])) >= SETTINGS.max_tokens // 2 - 1


@given(
    st.one_of(st.text(), st.lists(PIECES).map("".join)),
    st.integers(1, 60).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most - 1))),
)
def test_offsets_are_exact_nothing_is_lost_and_the_budget_holds(text: str, sizes: tuple[int, int]) -> None:
    settings = ChunkingSettings(*sizes)
    covered, previous = 0, -1
    for ordinal, passage in enumerate(chunk(Document("u", text), settings)):
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert passage.chunk_id == f"u#c{ordinal:04d}"
        assert count_tokens(passage.text) <= settings.max_tokens
        assert passage.start > previous
        assert not text[covered : passage.start].strip()
        covered, previous = max(covered, passage.end), passage.start
    assert not text[covered:].strip()


@given(
    st.lists(PIECES | st.text(max_size=20), max_size=30).map("".join),
    st.tuples(st.integers(2, 60), st.integers(0, 30)).filter(lambda sizes: sizes[1] < sizes[0]),
)
def test_the_semantic_chunker_keeps_offsets_budget_and_words(text: str, sizes: tuple[int, int]) -> None:
    settings = ChunkingSettings(*sizes, chunker="semantic")
    document = Document("u", text, anchors=find_anchors(text))
    found = chunk(document, settings)
    for passage in found:
        assert text[passage.start : passage.end] == passage.text
        assert passage.text.strip()
        assert count_tokens(passage.text) <= settings.max_tokens
    assert [passage.start for passage in found] == sorted(passage.start for passage in found)
    covered = bytearray(len(text))
    for passage in found:
        covered[passage.start : passage.end] = b"x" * (passage.end - passage.start)
    assert not "".join(character for character, seen in zip(text, covered, strict=True) if not seen).strip()

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunking import ChunkingSettings, chunk
from retrieval.headings import find_anchors, find_headings, first_heading
from retrieval.types import Anchor, Document, Passage


def fragments(text: str) -> list[str]:
    return [anchor.fragment for anchor in find_anchors(text)]


@pytest.mark.parametrize(
    ("title", "fragment"),
    [
        ("Getting started", "getting-started"),
        ("What's new in 2.0?", "whats-new-in-20"),
        ("`LM(api_key=...)` and friends", "lmapi_key-and-friends"),
        ("Generic `List<int>` &amp; co", "generic-listint--co"),
        ("A [link](https://e.org/x) and ![an image](i.png) here", "a-link-and--here"),
        ("**Bold**, *slanted* and _low_ with snake_case", "bold-slanted-and-low-with-snake_case"),
        ("<b>Tagged</b> \\_escaped\\_", "tagged-_escaped_"),
        ("はじめに", "はじめに"),
        ("インストール（pip 版）、そして実行", "インストールpip-版そして実行"),
        ("Über Größe", "über-größe"),
        ("C# and F# #", "c-and-f"),
    ],
)
def test_a_heading_has_the_name_that_github_gives_it(title: str, fragment: str) -> None:
    assert fragments(f"## {title}\n\nText.") == [fragment]


def test_headings_of_one_name_are_numbered_and_never_meet() -> None:
    assert fragments("# A\n\n# A\n\n# A 1\n\n# A\n") == ["a", "a-1", "a-1-1", "a-2"]


@pytest.mark.parametrize(
    "text",
    [
        "## Title here {#own}\n",
        "## Title here {: #own .class }\n",
        "## Title here {/* #own */}\n",
        '## <a id="own"></a>Title here\n',
        '## <a name="own">Title here</a>\n',
        "<a id='own'></a>\n\n## Title here\n",
        '<a name="own"/>\n## Title here ##\n',
        "(Own)=\n# Title here\n",
    ],
)
def test_an_id_that_is_written_there_is_the_anchor_of_the_heading(text: str) -> None:
    (heading,) = find_headings(text)
    assert heading.title == "Title here"
    assert find_anchors(text)[-1] == Anchor(heading.start, "own")


def test_an_id_in_the_text_is_an_anchor_of_its_own() -> None:
    text = '# Top\n\nSome words.\n\n<a id="detail"></a>More words.\n\n## Next\n'
    assert [(text[a.start : a.start + 5], a.fragment) for a in find_anchors(text)] == [
        ("# Top", "top"),
        ("<a id", "detail"),
        ("## Ne", "next"),
    ]


def test_what_stands_in_a_code_fence_is_neither_heading_nor_anchor() -> None:
    assert fragments('# Top\n\n```\n# comment\n<a id="x"></a>\nTitle\n=====\n```\n') == ["top"]


def test_an_underlined_line_is_a_heading_and_a_rule_is_none() -> None:
    text = (
        "Title\n=====\n\nText that\n\nPart two\n---\n\nMore.\n\n---\n\nlast line\nof two\n---\n- item\n---\n"
    )
    assert [(h.level, h.title, text[h.start : h.end]) for h in find_headings(text)] == [
        (1, "Title", "Title\n====="),
        (2, "Part two", "Part two\n---"),
    ]


def test_closing_hashes_are_no_part_of_a_title_and_others_are() -> None:
    assert [first_heading(text) for text in ("# A ##", "# C#", "no", "# A #  ")] == ["A", "C#", "", "A"]


def test_a_passage_opens_at_its_section() -> None:
    text = "Before.\n\n" + "\n\n".join(f"## Part {n}\n\n{'Some words here. ' * 20}" for n in "AB")
    document = Document("https://e.org/a", text, anchors=find_anchors(text))
    found = chunk(document, ChunkingSettings(40, 8))
    assert list(dict.fromkeys(passage.url for passage in found)) == [
        "https://e.org/a",
        "https://e.org/a#part-a",
        "https://e.org/a#part-b",
    ]
    assert all(passage.fragment.endswith(passage.headings[0][-1].lower()) for passage in found[1:])


def test_the_url_is_one_that_any_program_can_open() -> None:
    assert Passage("c", "https://e.org/a", "", fragment="概要 (1)").url == (
        "https://e.org/a#%E6%A6%82%E8%A6%81%20%281%29"
    )
    assert Passage("c", "https://e.org/a.pdf", "", fragment="page=7").url == "https://e.org/a.pdf#page=7"
    assert Passage("c", "https://e.org/a#own", "", fragment="x").url == "https://e.org/a#own"
    assert Passage("c", "https://e.org/a", "").url == "https://e.org/a"


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "# A\n",
            "## B {#b}\n",
            "Title\n===\n",
            "\n",
            "```\n",
            "text ",
            "<a id='x'>",
            "(l)=\n",
            "#",
            "`",
            "{#",
        ]
    )
    | st.text(max_size=8)
).map("".join)


@given(MARKDOWN)
def test_anchors_are_in_order_within_the_text_and_headings_are_where_they_say(text: str) -> None:
    anchors = find_anchors(text)
    assert list(anchors) == sorted(anchors, key=lambda anchor: anchor.start)
    assert all(0 <= anchor.start < len(text) and anchor.fragment for anchor in anchors)
    for heading in find_headings(text):
        assert (
            text[heading.start : heading.end].strip() == text[heading.start : heading.end].lstrip().rstrip()
        )
        assert heading.title in text[heading.start : heading.end] or heading.id

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrieval.documents.html import read_html


def test_a_page_gives_its_text_with_block_structure() -> None:
    page = read_html(
        "<h1>Head <i>line</i></h1><p>Some <b>bold</b>\n  text.<br>New line</p><ul><li>one<li><p>two</p></ul>"
        "<table><tr><th>a</th><td>b</td></tr></table>"
    )
    assert page.text == "# Head line\n\nSome bold text.\nNew line\n\n- one\n\n- two\n\na | b |"


def test_what_a_reader_does_not_see_is_left_out() -> None:
    page = read_html(
        "<nav>menu</nav><!-- note --><script>alert(1)</script><style>p{}</style><p>Text</p>"
        "<footer>legal</footer>"
        "<div hidden>secret</div><noscript>enable it</noscript><template><p>x</p></template>"
    )
    assert page.text == "Text"


def test_code_keeps_its_lines_and_spaces() -> None:
    page = read_html("<p>Run</p><pre><code>if x:\n    y  = 1\n\n\n    z()</code></pre>")
    assert page.text == "Run\n\n```\nif x:\n    y  = 1\n\n\n    z()\n```"


def test_the_main_part_is_preferred_to_its_surroundings() -> None:
    assert read_html("<div>banner</div><main><p>Text</p></main>").text == "Text"
    assert read_html("<div>banner</div><article><p>Text</p></article>").text == "Text"


def test_a_page_says_its_title_language_and_address() -> None:
    page = read_html(
        "<html lang='ja-JP'><head><title> A\n title </title>"
        "<link rel='canonical' href=' https://e.org/a '></head>"
    )
    assert (page.title, page.lang, page.doc_uri, page.text) == ("A title", "ja", "https://e.org/a", "")


def test_the_first_heading_is_the_title_of_a_page_without_one() -> None:
    assert read_html("<h1>Head</h1>").title == "Head"


def test_entities_are_characters() -> None:
    assert read_html("<p>a &lt; b &amp; c&nbsp;d</p>").text == "a < b & c d"


def test_a_page_may_be_nested_as_deeply_as_its_author_likes() -> None:
    assert read_html("<div>" * 5000 + "deep").text == "deep"


@given(st.text())
def test_any_text_is_a_page(text: str) -> None:
    read_html(text)

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


SITE = """<html><body>
<div class="cookie-banner">We use cookies</div><a class="skip-to-content_x" href="#m">Skip</a>
<header>Site name</header><nav>menu</nav>
<div class="body"><div class="breadcrumbs">Home > Docs</div>
<section id="top"><h1>Title<a class="headerlink" href="#top">¶</a></h1><p>First.</p>
<span id="label"></span><h2 id="own">Own id<a class="hash-link">#</a></h2><p>Second.</p>
<div class="section" id="old"><h2>Old style</h2><pre>code</pre></div>
<a name="loose"></a><p> Loose text.</p>
<dl><dt id="pkg.run"><code>run</code>(x)</dt><dd>Runs.</dd></dl>
<h3><a id="inner"></a>Inner</h3><p>Last. \ufdd2\ufdd0</p></section>
<div class="theme-edit-this-page">Edit this page</div></div>
<footer>legal</footer></body></html>"""


def test_what_surrounds_the_text_is_left_out_and_ids_are_anchors() -> None:
    page = read_html(SITE)
    assert page.text == (
        "# Title\n\nFirst.\n\n## Own id\n\nSecond.\n\n## Old style\n\n```\ncode\n```\n\nLoose text.\n\n"
        "run(x)\n\nRuns.\n\n### Inner\n\nLast."
    )
    assert {a.fragment: page.text[a.start :].split("\n")[0] for a in page.anchors} == {
        "top": "# Title",
        "own": "## Own id",
        "old": "## Old style",
        "loose": "Loose text.",
        "pkg.run": "run(x)",
        "inner": "### Inner",
    }


def test_several_articles_are_all_read_and_the_date_is_metadata() -> None:
    page = read_html(
        "<head><meta property='article:published_time' content='2024-05-06T08:00:00Z'></head>"
        "<body><article>One</article><article>Two</article></body>"
    )
    assert page.text == "One\n\nTwo"
    assert page.metadata == {"date": "2024-05-06"}


@given(
    st.lists(
        st.sampled_from(
            ["<h1 id=a>", "</h1>", "<a name=b>", "<pre>", "<p>", "x ", "<section id=c>", "\ufdd2"]
        )
    )
)
def test_anchors_stand_within_the_text(pieces: list[str]) -> None:
    page = read_html("".join(pieces))
    assert all(0 <= anchor.start < len(page.text) and anchor.fragment for anchor in page.anchors)
    assert not any(mark in page.text for mark in "\ufdd0\ufdd1\ufdd2")


def test_a_relative_canonical_link_is_no_identity_and_a_page_that_leads_elsewhere_no_document() -> None:
    assert read_html("<link rel=canonical href='other.html'><p>Text").doc_uri == ""
    moved = read_html("<meta http-equiv='Refresh' content='0; URL=other.html'><p>Redirecting to other.html")
    assert moved.is_moved
    assert not read_html("<meta http-equiv=refresh content=60><p>Text").is_moved


def test_signs_of_permalinks_are_no_part_of_a_heading_and_fences_hold_whatever_code() -> None:
    page = read_html("<h2><a href='#x'>§</a>Examples</h2><h3>C# ¶</h3><pre>a\n```\n# no heading\n```</pre>")
    assert page.text == "## Examples\n\n### C#\n\n````\na\n```\n# no heading\n```\n````"

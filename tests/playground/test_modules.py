"""The page's modules by themselves, in the browser: links, Markdown, the event stream, code points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Fixture = Callable[..., Any]


@pytest.fixture(scope="module")
def page(browser: Any, extractive_server: Any) -> Iterator[Any]:
    page = browser.new_page()
    page.goto(extractive_server.url)
    yield page
    page.close()


@pytest.fixture(scope="module")
def call(page: Any) -> Fixture:
    """Calls a function that a module exports."""
    script = "async ([module, name, given]) => (await import(`/playground/${module}.js`))[name](...given)"
    return lambda module, name, *given: page.evaluate(script, [module, name, given])


@pytest.mark.parametrize(
    ("uri", "quote", "address"),
    [
        (
            "https://a.example/x",
            "Short, sweet - & done",
            "https://a.example/x#:~:text=Short%2C%20sweet%20%2D%20%26%20done",
        ),
        ("https://a.example/x?y=1#part", "Water boils", "https://a.example/x?y=1#part:~:text=Water%20boils"),
        ("https://a.example/#", "Water", "https://a.example/#:~:text=Water"),
        ("https://a.example/#:~:text=a", "Water", "https://a.example/#:~:text=a&text=Water"),
        ("https://a.example/x", "", "https://a.example/x"),
        ("https://a.example/x", "— …", "https://a.example/x"),
        ("https://a.example/x", "## Head\n\nCall `f(x)` and **then** [go](https://b.example)", None),
        ("HTTP://A.example/x", "日本", "http://a.example/x#:~:text=%E6%97%A5%E6%9C%AC"),
    ],
)
def test_a_web_link_carries_the_quote_as_a_text_fragment(
    call: Fixture, uri: str, quote: str, address: str | None
) -> None:
    expected = address or "https://a.example/x#:~:text=Call%20f(x)%20and%20then%20go"
    assert call("links", "quoteAddress", uri, quote) == expected


def test_a_long_quote_is_named_by_its_first_and_last_words(call: Fixture) -> None:
    quote = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
    assert call("links", "textDirective", quote) == (
        "text=One%20two%20three%20four%20five,ten%20eleven%20twelve%20thirteen%20fourteen."
    )
    japanese = call(
        "links",
        "textDirective",
        "富士山の高さは三千七百七十六メートルであり、日本でいちばん高い山である。" * 2,
    )
    start, end = japanese.removeprefix("text=").split(",")
    assert start.startswith("%E5%AF%8C%E5%A3%AB")
    assert end.endswith("%E3%80%82")


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)", " JaVaScRiPt:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "vbscript:x",
        "file:///etc/passwd", "blob:https://a.example/x", "//a.example/x", "notes/iron.md", "", "https://", "ftp://a.example",
    ],
)  # fmt: skip
def test_only_web_addresses_become_web_links(call: Fixture, uri: str) -> None:
    assert call("links", "quoteAddress", uri, "Water") is None
    assert call("links", "documentAddress", uri, "c1", "").startswith("/?document=")


def test_names_cannot_turn_or_hide_the_text_around_them(call: Fixture) -> None:
    assert call("links", "plain", "Gallium \u202egpj.exe\u2069\n\x00x") == "Gallium gpj.exe x"
    assert call("links", "placeName", "https://good.example@evil.example/%E2%80%AEa") == "evil.example/a"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a **b *c* d** `e`", "p(a ,strong(b ,em(c), d), ,code(e))"),
        ("snake_case_name and 2 * 3", "p(snake_case_name and 2 * 3)"),
        ("# T\n\n- a\n  - b\n- c\n\n3. d", "h3(T),ul(li(a,ul(li(b))),li(c)),ol(li(d))"),
        ("```js\n<b>[1]</b>\n```", "pre(code(<b>[1]</b>))"),
        ("```\nstill written", "pre(code(still written))"),
        ("| a | b |\n|---|--:|\n| c |", "div(table(thead(tr(th(a),th(b))),tbody(tr(td(c),td()))))"),
        ("> a\n> b", "blockquote(p(a,br(),b))"),
        ("<script>x</script> &lt;", "p(<script>x</script> &lt;)"),
        ("[x](javascript:alert) ![i](data:x)", "p(x i)"),
        ("[x](https://a.example/?b=(c)) 見https://b.example。", "p(a(x), 見,a(https://b.example),。)"),
        ("**open `and", "p(**open `and)"),
    ],
)
def test_markdown_becomes_a_tree_of_what_is_allowed(call: Fixture, text: str, shape: str) -> None:
    assert ",".join(map(_shape, call("markdown", "parseMarkdown", text))) == shape


def test_hostile_markdown_takes_no_more_than_linear_patience(call: Fixture) -> None:
    for piece in (
        "*",
        "_a ",
        "**a ",
        "`a``b",
        "[",
        "![a](",
        "> ",
        "- ",
        "| a ",
        "1. ",
        "~~",
        "\\",
        "<http://",
    ):
        assert call("markdown", "parseMarkdown", piece * 5000)


# 𠮷 and the emoji are one code point and two UTF-16 units.
@given(text=st.text(alphabet="a𠮷🦀é \u0301*", max_size=12))
@settings(max_examples=20, deadline=None)
def test_astral_characters_before_a_marker_do_not_shift_it(call: Fixture, text: str) -> None:
    annotation = {
        "type": "url_citation", "number": 1, "start_index": len(text), "end_index": len(text) + 3,
        "url": "u", "title": "t", "chunk_id": "c", "quote": "q",
    }  # fmt: skip
    whole = f"{text}[1] [1]"
    citation = call("answering", "readAnnotation", annotation, whole)
    units = len(text.encode("utf-16-le")) // 2
    assert (citation["start"], citation["end"]) == (units, units + 3)


def test_a_citation_opens_a_section_and_knows_its_document(call: Fixture) -> None:
    annotation = {"type": "url_citation", "number": 1, "url": "https://e.org/a#part", "title": "t"}
    read = [
        call("answering", "readAnnotation", annotation | more, "")
        for more in ({"doc_uri": "https://e.org/a"}, {})
    ]
    assert [(citation["uri"], citation["url"]) for citation in read] == [
        ("https://e.org/a", "https://e.org/a#part"),
        ("https://e.org/a#part", "https://e.org/a#part"),
    ]


def test_an_annotation_that_names_no_marker_makes_no_link(call: Fixture) -> None:
    annotation = {"type": "url_citation", "number": 2, "start_index": 0, "end_index": 3, "url": "u"}
    assert call("answering", "readAnnotation", annotation, "[1]")["start"] == -1
    assert call("answering", "readAnnotation", {"type": "file_citation"}, "[1]") is None


@given(cuts=st.lists(st.integers(1, 40), max_size=8), ending=st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=20, deadline=None)
def test_events_are_read_however_the_stream_is_cut(page: Any, cuts: list[int], ending: str) -> None:
    lines = [
        ": hello",
        "event: x",
        'data: {"a": "𠮷"}',
        "",
        ":",
        "data: one",
        "data:two",
        "",
        "data: [DONE]",
        "",
        "data: cut",
    ]
    body = list(ending.join(lines).encode())
    script = """async ([bytes, cuts]) => {
      const { readEvents } = await import("/playground/stream.js");
      const stream = new ReadableStream({ start(controller) {
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          controller.enqueue(new Uint8Array(bytes.slice(at, at + cut)));
          at += cut;
        }
        controller.close();
      }});
      const events = [];
      for await (const event of readEvents(stream)) events.push(event);
      return events;
    }"""
    assert page.evaluate(script, [body, cuts]) == ['{"a": "𠮷"}', "one\ntwo", "[DONE]"]


def _shape(node: Any) -> str:
    if isinstance(node, str):
        return node
    return f"{node['tag']}({','.join(map(_shape, node.get('children', [])))})"

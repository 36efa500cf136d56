"""matplotlib's SVG as a part of the page: any text, the page's colours, no styles."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.html_report import drawing as colours
from eval.html_report.drawing import Drawing, drawing_style
from eval.html_report.formatting import shorten, width


def draw(text: str, colour: str = colours.INK) -> ElementTree.Element:
    with drawing_style():
        drawing = Drawing("figure", 200, 100)
        ax = drawing.axes(10, 10, 10, 10)
        ax.plot([0, 1], [0, 1], "o", color=colour, gid=drawing.tip(text))
        ax.text(0, 0, drawing.text(text), color=colour)
        ax.xaxis.set_major_formatter(lambda value, _: drawing.text(f"{value:g}"))
        return ElementTree.fromstring(drawing.to_svg(text))


@settings(max_examples=10, deadline=None)
@given(st.text(min_size=1, max_size=30).filter(str.strip))
def test_any_text_is_in_the_drawing_as_it_is(text: str) -> None:
    # XML has no control characters, and reads every line break as one kind.
    expected = "".join(
        "\ufffd" if (ord(c) < 32 and c not in "\t\n\r") or c in "\ufffe\uffff" else c for c in text
    )
    svg = draw(text)
    shown = [element.text for element in svg.iter("text")]
    assert _one_line(expected) in [_one_line(one or "") for one in shown]
    assert _one_line(svg.find(".//title").text) == _one_line(expected)  # type: ignore[union-attr]
    assert _one_line(svg.get("aria-label")) == _one_line(expected)


def _one_line(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").replace("\r", "\n")


def test_text_that_looks_like_a_stand_in_or_like_mathematics_stays_as_it_is() -> None:
    assert "T00001 $x^2$ <b>" in [element.text for element in draw("T00001 $x^2$ <b>").iter("text")]


def test_colours_are_classes_of_the_page() -> None:
    svg = draw("a", colours.DANGER)
    assert {"fill-danger", "fill-danger stroke-danger"} <= {element.get("class") for element in svg.iter()}
    assert not [
        element for element in svg.iter() if "style" in element.attrib or "#0000" in str(element.attrib)
    ]


def test_a_colour_that_is_not_the_pages_is_refused() -> None:
    with pytest.raises(KeyError):
        draw("a", "#ff0000")


@given(st.text(max_size=60), st.integers(4, 30))
def test_a_shortened_text_fits(text: str, em: int) -> None:
    short = shorten(text, em)
    assert width(short) <= em
    assert short == " ".join(text.split()) or short.endswith("…")

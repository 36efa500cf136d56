"""A matplotlib figure as SVG that belongs to the page: its colours, its fonts, its language.

matplotlib knows neither the reader's theme nor the reader's fonts. So it is given stand-ins: a colour that
stands for a variable of the page's style sheet, and a short name that stands for a text. Both are put in
when the SVG is written. No text of others passes through matplotlib, which would read mathematics in it,
and warn of every Japanese character that its own font lacks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from program.well_formed import well_formed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE, EDGE = "#000001", "#000002", "#000003", "#000004"
ACCENT, DANGER, SURFACE = "#000005", "#000006", "#000007"

TEXT_SIZE = 12
_SCALE = 1.2  # so that text comes out at the size of the page's small print
_NARROW = 450  # points; a drawing up to this width fits a phone

_CLASSES = {
    INK: "ink",
    SOFT: "soft",
    LINE: "line",
    EDGE: "edge",
    ACCENT: "accent",
    DANGER: "danger",
    SURFACE: "surface",
}
_TOKEN = re.compile(r"T(\d{5})")
_TIP = re.compile(r"tip-(\d+)")
_REFERENCE = re.compile(r"#([\w.-]+)")
_REFERRED_TO = re.compile(r'(?:href="|url\()#([\w.-]+)')
_NOT_WELL_FORMED_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_LEFT_OUT = ("metadata", "style")
_KEPT = ("stroke-width", "stroke-dasharray", "stroke-dashoffset", "text-anchor", "font-weight", "font-size")


class Drawing:
    """A figure of `width` by `height` points, to be drawn on with matplotlib and written once.

    Every text goes through `text`, and every colour is one of this module's. `name` is unique on the page.
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self._name = name
        self._texts: list[str] = []
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self._figure.patch.set_visible(False)

    def text(self, text: str) -> str:
        """What to give to matplotlib for it."""
        self._texts.append(_NOT_WELL_FORMED_XML.sub("\ufffd", well_formed(text)))
        return f"T{len(self._texts) - 1:05d}"

    def tip(self, text: str) -> str:
        """A `gid` that has `text` show where a pointer rests on the artist that carries it."""
        return f"tip-{int(self.text(text)[1:])}"

    def axes(self, left: float, top: float, right: float, bottom: float) -> Axes:
        """Axes with these margins in points, without a frame but for a line below."""
        ax = self._figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                (self.width - left - right) / self.width,
                (self.height - top - bottom) / self.height,
            )
        )
        ax.patch.set_visible(False)
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.spines["bottom"].set_color(EDGE)
        ax.tick_params(length=0, labelsize=TEXT_SIZE, labelcolor=SOFT, pad=6)
        return ax

    def to_svg(self, label: str) -> Markup:
        """The SVG element, read out as `label`. The same drawing gives the same text, always."""
        written = io.BytesIO()
        self._figure.savefig(
            written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
        svg = _OnPage(self._name, self._texts, written.getvalue().decode()).element
        svg.attrib = {
            "viewBox": f"0 0 {self.width:g} {self.height:g}",
            "width": f"{self.width * _SCALE:.0f}",
            "height": f"{self.height * _SCALE:.0f}",
            "class": "chart" if self.width > _NARROW else "chart narrow",
            "role": "img",
            "aria-label": _NOT_WELL_FORMED_XML.sub("\ufffd", well_formed(label)),
        }
        return Markup(ElementTree.tostring(svg, encoding="unicode"))


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw with matplotlib's own defaults and real text, whatever the reader's matplotlibrc says."""
    import matplotlib

    settings: dict[Any, Any] = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if not name.startswith(("backend", "interactive"))
    }
    settings |= {"svg.fonttype": "none", "svg.hashsalt": "citeqa", "font.family": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings):
        yield


class _OnPage:
    """Rewrites matplotlib's elements for an HTML page: no styles, no ids but those that are referred to."""

    def __init__(self, name: str, texts: list[str], svg: str) -> None:
        self._texts = texts
        referred_to = dict.fromkeys(_REFERRED_TO.findall(svg))
        self._ids = {id_: f"{name}-{number}" for number, id_ in enumerate(referred_to)}
        self.element = self._convert(ElementTree.fromstring(svg))

    def _convert(self, element: ElementTree.Element) -> ElementTree.Element:
        made = ElementTree.Element(_local(element.tag), self._attributes(element.attrib))
        made.text = _TOKEN.sub(lambda found: self._texts[int(found[1])], (element.text or "").strip()) or None
        tip = _TIP.fullmatch(element.get("id", ""))
        if tip:
            ElementTree.SubElement(made, "title").text = self._texts[int(tip[1])]
        # A list: an exception inside a generator would come out of `extend` as another one.
        made.extend([self._convert(child) for child in element if _local(child.tag) not in _LEFT_OUT])
        return made

    def _attributes(self, found: dict[str, str]) -> dict[str, str]:
        made: dict[str, str] = {}
        for qualified, value in found.items():
            match _local(qualified):
                case "style":
                    made |= self._from_style(value)
                case "id" if value in self._ids:
                    made["id"] = self._ids[value]
                case "id":
                    pass
                case "href" | "clip-path" as name:
                    made[name] = _REFERENCE.sub(lambda one: f"#{self._ids[one[1]]}", value)
                case "d":
                    made["d"] = " ".join(value.split())
                case "transform" if value.startswith("rotate(-0 "):
                    pass
                case name:
                    made[name] = value
        return made

    def _from_style(self, style: str) -> dict[str, str]:
        """Style attributes, which the page's policy forbids, as attributes and classes."""
        pairs = [
            (name.strip(), value.strip())
            for name, _, value in (part.partition(":") for part in style.split(";"))
        ]
        classes = [
            f"{name}-{'none' if value == 'none' else _CLASSES[value]}"
            for name, value in pairs
            if name in ("fill", "stroke")
        ]
        made = {name: value.removesuffix("px") for name, value in pairs if name in _KEPT}
        return {**made, "class": " ".join(classes)} if classes else made


def _local(name: str) -> str:
    return name.rpartition("}")[2]

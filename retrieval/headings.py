"""Headings of Markdown text, and the anchors that pages made of it have."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.sentences import FENCE, Span
from retrieval.types import Anchor

_HASHES = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S[^\n]*)$", re.MULTILINE)
_UNDERLINE = re.compile(r"\n(={3,}|-{3,})[ \t]*$", re.MULTILINE)
_IS_TITLE = re.compile(r" {0,3}(?![#>|<*+=~`-]|\d+[.)])\S")
_CODE = re.compile(r"(?P<mark>`+)(?P<code>[^\n]*?)(?P=mark)")

# `{#id}` of kramdown, pandoc and Docusaurus (`{/* #id */}` in its MDX), a bare `<a id>`, and MyST's `(label)=`.
_ATTRIBUTE = re.compile(r"[ \t]*\{(?:/\*)?[ \t]*:?[ \t]*#([\w.:-]{1,200})[^{}\n]{0,200}\}$")
_HTML_ANCHOR = re.compile(
    r"""<a\s+(?:id|name)\s*=\s*["']?([^"'\s<>]{1,200})["']?\s*(?:/>|>(?:\s*</a>)?)""", re.IGNORECASE
)
_MARKED_LINE = re.compile(r"\n(?:===|---)|\)=\n")
_LABEL = re.compile(r"^\(([\w.:-]{1,200})\)=[ \t]*$", re.MULTILINE)

_IMAGE = re.compile(r"!\[[^\]\n]*\](?:\([^()\n]*\)|\[[^\]\n]*\])")
_LINK = re.compile(r"\[([^\]\n]*)\](?:\([^()\n]*\)|\[[^\]\n]*\])")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_EMPHASIS = re.compile(r"(?<![\w\\])(_{1,2})(?=\S)(.+?)(?<![\s\\])\1(?!\w)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_PLAIN = re.compile(r"[^`*_\\&<\[]*")
_NOT_IN_SLUGS = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Heading:
    """`text[start:end]` is the heading, with its underline if it has one; `id` is "" unless one is written there."""

    start: int
    end: int
    level: int
    title: str
    id: str = ""


class Slugs:
    """GitHub's names of headings, each once on a page: `title`, `title-1`, …; letters of every script stay."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def __call__(self, title: str) -> str:
        """The slug of the next heading on the page."""
        plain = slug = _NOT_IN_SLUGS.sub("", plain_title(title).lower()).replace(" ", "-")
        while slug in self._used:
            self._used[plain] += 1
            slug = f"{plain}-{self._used[plain]}"
        self._used[slug] = 0
        return slug


def find_headings(text: str) -> list[Heading]:
    """The headings of Markdown text in their order; what looks like one within a code fence is none."""
    found = []
    if "#" in text:
        found = [
            _heading(match.start(), match.end(), len(match[1]), match[2]) for match in _HASHES.finditer(text)
        ]
    if "\n" in text and ("\n===" in text or "\n---" in text):
        found += _underlined(text)
        found.sort(key=lambda heading: heading.start)
    fences = _fences(text) if found else ()
    return [heading for heading in found if not _is_within(fences, heading.start)] if fences else found


def first_heading(text: str) -> str:
    """The title of the first heading of Markdown text, or ""."""
    return next((heading.title for heading in find_headings(text)), "")


def find_anchors(text: str) -> tuple[Anchor, ...]:
    """The anchors of Markdown text: of each heading the id that is written there, else GitHub's slug of it.

    An `<a id>` or a MyST label right before a heading is that heading's; others stand for themselves.
    """
    if "#" not in text and "<a" not in text and ("\n" not in text or not _MARKED_LINE.search(text)):
        return ()
    written = _written_anchors(text)
    starts = [span[0] for span, _ in written]
    slugs = Slugs()
    anchors: list[Anchor] = []
    for heading in find_headings(text):
        slug = slugs(heading.title)
        before = bisect_right(starts, heading.start) - 1
        name = heading.id or (_id_right_before(text, heading, written[before]) if before >= 0 else "") or slug
        if name:
            anchors.append(Anchor(heading.start, name))
    names = {anchor.fragment for anchor in anchors}
    anchors += (Anchor(start, name) for (start, _), name in written if name not in names)
    return tuple(sorted(anchors, key=lambda anchor: anchor.start))


def plain_title(title: str) -> str:
    """The words of a heading, without Markdown's marks, links' targets and HTML tags."""
    return title if _PLAIN.fullmatch(title) else "".join(_plain_parts(title)).strip()


def _plain_parts(title: str) -> Iterator[str]:
    position = 0
    for code in _CODE.finditer(title):
        yield _plain(title[position : code.start()])
        yield code["code"].strip()
        position = code.end()
    yield _plain(title[position:])


def _plain(words: str) -> str:
    words = _LINK.sub(r"\1", _IMAGE.sub("", words))
    words = _EMPHASIS.sub(r"\2", _TAG.sub("", words))
    return html.unescape(_ESCAPED.sub(r"\1", words)).replace("*", "")


def _underlined(text: str) -> Iterator[Heading]:
    """Headings by a line of `=` or `-` below them: a line of their own, with a blank one or nothing before it."""
    for underline in _UNDERLINE.finditer(text):
        start = text.rfind("\n", 0, underline.start()) + 1
        before = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start]
        if _IS_TITLE.match(text, start, underline.start()) and not before.strip():
            level = 1 if underline[1][0] == "=" else 2
            yield _heading(start, underline.end(), level, text[start : underline.start()].lstrip())


def _heading(start: int, end: int, level: int, line: str) -> Heading:
    title, explicit = line.rstrip(), ""
    if title[-1:] in ("#", "}") or "<a" in title:
        title, explicit = _without_marks(title)
    return Heading(start, end, level, title, explicit)


def _without_marks(title: str) -> tuple[str, str]:
    """The title alone, and the id that is written with it."""
    explicit = ""
    bare = title.rstrip("#")
    if bare != title and bare[-1:] in (" ", "\t"):
        title = bare.rstrip()
    if title.endswith("}") and (attribute := _ATTRIBUTE.search(title)):
        explicit, title = attribute[1], title[: attribute.start()].rstrip()
    if "<a" in title and (anchor := _HTML_ANCHOR.search(title)):
        explicit, title = explicit or anchor[1], _HTML_ANCHOR.sub("", title).replace("</a>", "").strip()
    return title, explicit


def _written_anchors(text: str) -> list[tuple[Span, str]]:
    """What the text itself gives an id, with the span of the mark."""
    found: list[tuple[Span, str]] = []
    if "<a" in text:
        found += [(match.span(), match[1]) for match in _HTML_ANCHOR.finditer(text)]
    if ")=\n" in text:
        found += [(match.span(), _label_id(match[1])) for match in _LABEL.finditer(text)]
    if not found:
        return found
    fences = _fences(text)
    return sorted(anchor for anchor in found if not _is_within(fences, anchor[0][0]))


def _label_id(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _id_right_before(text: str, heading: Heading, written: tuple[Span, str]) -> str:
    (_, end), name = written
    between = text[end : heading.start] if heading.start >= end else "within"
    return name if not between.replace("</a>", "").strip() else ""


def _fences(text: str) -> list[Span]:
    has_any = "```" in text or "~~~" in text
    return [fence.span() for fence in FENCE.finditer(text)] if has_any else []


def _is_within(spans: Sequence[Span], position: int) -> bool:
    before = bisect_right(spans, position, key=lambda span: span[0])
    return bool(before) and spans[before - 1][1] > position

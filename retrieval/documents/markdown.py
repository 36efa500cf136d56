"""Markdown and plain text."""

from __future__ import annotations

import re

from retrieval.documents.front_matter import split_front_matter
from retrieval.documents.parsed import Parsed
from retrieval.headings import find_anchors

_EMBEDDED_DATA = re.compile(r"\bdata:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=\s]{64,}?(?=[)\"'>]|\Z)")

_FENCE_MARKS = re.compile(r"`{3,}")


def read_markdown(text: str, place: str) -> Parsed:
    """What the front matter says, and the text after it; pictures that are embedded as data are left out.

    Raises:
        CorpusError: if the front matter is malformed.
    """
    front, body = split_front_matter(text, place)
    body = without_embedded_data(body)
    return Parsed(body, front.title, front.lang, front.doc_uri, front.metadata, find_anchors(body))


def without_embedded_data(text: str) -> str:
    """`text` without the base64 of `data:` addresses, which nobody reads or searches for."""
    return _EMBEDDED_DATA.sub("", text) if ";base64," in text else text


def code_fence(code: str, language: str = "") -> str:
    """`code` as a Markdown code fence, whose marks are longer than any in it."""
    longest = max(map(len, _FENCE_MARKS.findall(code)), default=2)
    mark = "`" * (longest + 1)
    return f"{mark}{language}\n{code}\n{mark}"

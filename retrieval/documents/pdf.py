"""PDF: the text of its pages, each of which is an anchor, `#page=7`."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrieval.documents.parsed import Parsed
from retrieval.errors import CorpusError
from retrieval.extras import needs_extra
from retrieval.types import Anchor, MetadataValue

_GAP = "\n\n"
_MOST_PAGES = 20_000
_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_NAME_OF_A_FILE = re.compile(
    r"\.(?:docx?|tex|dvi|indd|pptx?|xlsx?|odt|pdf)$|^(?:untitled|microsoft word)\b", re.I
)


def read_pdf(data: bytes, place: str, max_characters: int) -> Parsed:
    """The pages of a PDF. One that opens with the empty password is read; words divided at a line's end are joined.

    Raises:
        CorpusError: if it is encrypted, damaged, holds no text (as scans do), or more text than `max_characters`.
        ConfigurationError: if pypdf is not installed.
    """
    with needs_extra("documents", "a PDF"):
        import pypdf
        from pypdf.errors import DependencyError, PyPdfError
    with _silently():
        try:
            reader = pypdf.PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise CorpusError(f"{place}: encrypted: it opens with a password only. Save it without one.")
            text, anchors = _join(_pages(reader), place, max_characters)
            about: dict[str, Any] = reader.metadata or {}
            metadata = _metadata(about)
            title = str(about.get("/Title") or "").strip()
        except DependencyError as error:
            raise CorpusError(f"{place}: encrypted in a way that cannot be read here ({error}).") from None
        except (
            PyPdfError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
            RecursionError,
        ) as error:
            # pypdf raises whatever a damaged object happens to cause.
            raise CorpusError(
                f"{place}: not a PDF that can be read ({_said(error)}). Save it anew."
            ) from error
    if not text.strip():
        raise CorpusError(
            f"{place}: no text in its pages, as in scans. Have its text recognized (OCR) first."
        )
    return Parsed(text, "" if _NAME_OF_A_FILE.search(title) else title, metadata=metadata, anchors=anchors)


def _pages(reader: object) -> Iterator[str]:
    for number, page in enumerate(reader.pages):  # type: ignore[attr-defined]
        if number == _MOST_PAGES:
            raise ValueError(f"more than {_MOST_PAGES} pages")
        yield page.extract_text()


def _join(pages: Iterator[str], place: str, max_characters: int) -> tuple[str, tuple[Anchor, ...]]:
    pieces: list[str] = []
    anchors: list[Anchor] = []
    length = 0
    for number, page in enumerate(pages, start=1):
        words = _HYPHENATED.sub("", page.encode("utf-8", "replace").decode().replace("\r", "\n")).strip()
        if not words:
            continue
        anchors.append(Anchor(length, f"page={number}"))
        pieces.append(words)
        length += len(words) + len(_GAP)
        if length > max_characters:
            raise CorpusError(f"{place}: holds more than {max_characters} characters of text. Divide it.")
    return _GAP.join(pieces), tuple(anchors)


def _metadata(about: object) -> dict[str, MetadataValue]:
    dates = (getattr(about, name, None) for name in ("modification_date", "creation_date"))
    date = next((found.date().isoformat() for found in dates if found), "")
    return {"date": date} if date else {}


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _silently() -> Iterator[None]:
    """What pypdf logs of each oddity that it can cope with concerns nobody."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

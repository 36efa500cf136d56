"""DOCX: paragraphs, headings, lists and tables of a Word document."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from retrieval.documents.parsed import Parsed
from retrieval.errors import CorpusError
from retrieval.extras import needs_extra
from retrieval.types import Anchor, MetadataValue

_MOST_ENTRIES = 10_000
_GROWTH = 20
"""An archive may unpack to so many times the size that a file may have: pictures do not grow, XML does."""

_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)
_BOOKMARK = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}bookmarkStart"
_NAME = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}name"


def read_docx(data: bytes, place: str, max_bytes: int) -> Parsed:
    """What a Word document says, from top to bottom; without headers, footers, comments and pictures.

    Anchors are the bookmarks that somebody set: Word opens them, as links to its headings are not.

    Raises:
        CorpusError: if it is none, damaged, encrypted, or unpacks to much more than `max_bytes`.
        ConfigurationError: if python-docx is not installed.
    """
    with needs_extra("documents", "a Word document"):
        import docx
    _check_archive(data, place, max_bytes)
    try:
        document = docx.Document(io.BytesIO(data))
        text, anchors = _join(document)
        about = document.core_properties
        return Parsed(text, (about.title or "").strip(), metadata=_metadata(about), anchors=anchors)
    except Exception as error:
        # python-docx raises whatever a missing or damaged part happens to cause, lxml's errors among it.
        said = " ".join(str(error).split())[:200]
        raise CorpusError(f"{place}: not a Word document that can be read ({said}). Save it anew.") from error


def _check_archive(data: bytes, place: str, max_bytes: int) -> None:
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise CorpusError(
            f"{place}: encrypted, or of Word's format before 2007. Save it as .docx without a password."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise CorpusError(f"{place}: not a Word document ({error}). Save it anew as .docx.") from None
    # zipfile unpacks no more of an entry than it states here.
    unpacked = sum(entry.file_size for entry in entries)
    if (
        len(entries) > _MOST_ENTRIES
        or unpacked > _GROWTH * max_bytes
        or _grows_too_much(data, unpacked, max_bytes)
    ):
        raise CorpusError(
            f"{place}: unpacks to {unpacked / 1e6:.0f} MB in {len(entries)} files, far more than a document needs. "
            "Move it away."
        )


def _grows_too_much(data: bytes, unpacked: int, max_bytes: int) -> bool:
    return unpacked > max_bytes and unpacked > 200 * len(data)


def _join(document: Any) -> tuple[str, tuple[Anchor, ...]]:
    pieces: list[str] = []
    anchors: list[Anchor] = []
    length = 0
    for block in document.iter_inner_content():
        words, names = _block(block)
        if not words:
            continue
        anchors += (Anchor(length, name) for name in names)
        # Items of a list stand close together.
        gap = "\n" if words.startswith("- ") else "\n\n"
        if pieces and gap == "\n\n" and pieces[-1].startswith("- "):
            pieces[-1] += "\n"
            length += 1
        pieces.append(words + gap)
        length += len(words) + len(gap)
    return "".join(pieces).rstrip("\n"), tuple(anchors)


def _block(block: Any) -> tuple[str, list[str]]:
    if hasattr(block, "rows"):
        return "\n".join(_rows(block)), []
    words = block.text.strip()
    if not words:
        return "", []
    names = [node.get(_NAME) for node in block._p.iter(_BOOKMARK)]
    return _mark(block, words), [name for name in names if name and not name.startswith("_")]


def _mark(paragraph: Any, words: str) -> str:
    style = paragraph.style.name if paragraph.style is not None else ""
    if style == "Title":
        return f"# {' '.join(words.split())}"
    if heading := _HEADING.match(style):
        return f"{'#' * min(int(heading[1]), 6)} {' '.join(words.split())}"
    properties = paragraph._p.pPr
    is_item = style.startswith("List") or (properties is not None and properties.numPr is not None)
    return f"- {words}" if is_item else words


def _rows(table: Any) -> Iterator[str]:
    for row in table.rows:
        seen: list[Any] = []
        cells = []
        for cell in row.cells:
            # A merged cell is given once for each place that it covers.
            if cell._tc not in seen:
                seen.append(cell._tc)
                cells.append(" ".join(cell.text.split()))
        if any(cells):
            yield f"| {' | '.join(cells)} |"


def _metadata(about: Any) -> dict[str, MetadataValue]:
    found = about.modified or about.created
    return {"date": found.date().isoformat()} if found else {}

"""Jupyter notebooks: Markdown cells as they are, code in fences, what code printed in short."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from retrieval.documents.markdown import code_fence, without_embedded_data
from retrieval.documents.parsed import Parsed
from retrieval.errors import CorpusError
from retrieval.headings import find_headings, plain_title
from retrieval.types import Anchor

_MOST_LINES, _MOST_COLUMNS = 20, 400
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_MAGIC = re.compile(r"%%(\w+)")


def read_notebook(text: str, place: str) -> Parsed:
    """The cells of a notebook in their order. Anchors are those of nbconvert and nbviewer: `#Title-of-the-Section`.

    Of outputs, text alone is kept, at most its first and last lines.

    Raises:
        CorpusError: if it is not a notebook.
    """
    try:
        notebook = json.loads(text)
        cells = _cells(notebook)
        language = str(notebook.get("metadata", {}).get("kernelspec", {}).get("language") or "python")
        pieces = [piece for cell in cells for piece in _render(cell, language) if piece.strip()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorpusError(f"{place}: not a Jupyter notebook ({type(error).__name__}: {error}).") from None
    body = "\n\n".join(pieces)
    stated = notebook.get("metadata", {}).get("title")
    return Parsed(body, stated if isinstance(stated, str) else "", anchors=tuple(_anchors(body)))


def _cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "worksheets" in notebook:  # before format 4
        return [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
    cells: list[Mapping[str, Any]] = notebook["cells"]
    return cells


def _render(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input", "")))
    match cell["cell_type"]:
        case "markdown":
            yield without_embedded_data(source).strip("\n")
        case "heading":
            yield f"{'#' * int(cell.get('level', 1))} {source.strip()}"
        case "code":
            if source.strip():
                magic = _MAGIC.match(source)
                yield code_fence(source.strip("\n"), magic[1] if magic else language)
            printed = "\n".join(filter(None, map(_printed, cell.get("outputs", ()))))
            if printed.strip():
                yield code_fence(_shortened(printed), "text")


def _printed(output: Mapping[str, Any]) -> str:
    match output.get("output_type"):
        case "stream":
            return _joined(output.get("text", "")).rstrip("\n")
        case "error" | "pyerr":
            return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    data = output.get("data", output)
    return _joined(data.get("text/plain", "")).rstrip("\n") if isinstance(data, dict) else ""


def _joined(source: str | list[str]) -> str:
    whole = source if isinstance(source, str) else "".join(source)
    return whole.replace("\r\n", "\n").replace("\r", "\n")


def _shortened(printed: str) -> str:
    lines = [line[:_MOST_COLUMNS] for line in _ESCAPES.sub("", printed).split("\n")]
    if len(lines) <= _MOST_LINES:
        return "\n".join(lines)
    half = _MOST_LINES // 2
    return "\n".join([*lines[:half], "…", *lines[-half:]])


def _anchors(body: str) -> Iterator[Anchor]:
    for heading in find_headings(body):
        name = heading.id or re.sub(r"\s", "-", plain_title(heading.title))
        if name:
            yield Anchor(heading.start, name)

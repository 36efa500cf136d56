"""Documents from JSON Lines: ours, BEIR's `corpus.jsonl`, and LangChain's and MLflow's document shape."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import CorpusError
from retrieval.front_matter import scalars
from retrieval.headings import first_heading
from retrieval.types import Document

_TEXTS = ("text", "contents", "page_content")
_IDS = ("_id", "id")


def read_json_lines(path: Path, base_url: str | None) -> Iterator[tuple[str, Document]]:
    """Each document of `path` (`.gz` too) with its place, `file:line`.

    The text is `text`, `contents` or `page_content`; the `doc_uri` is the field of this name (or in
    `metadata`), else `_id` or `id`, with `base_url` before it when that is given.

    Raises:
        CorpusError: if a line is not JSON, not an object, or has a missing or mistyped field.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    place = f"{path}:{number}"
                    yield place, _to_document(_parse(line, place), place, base_url)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CorpusError(
            f"{path}: not a complete gzip file ({error}). Download or compress it again."
        ) from None


def _parse(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{place}: not UTF-8 ({error.reason} at byte {error.start}). Convert the file to UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{place}: not valid JSON ({error}). Each line must be one JSON object.") from None
    if not isinstance(record, dict):
        raise CorpusError(
            f"{place}: the line is {type(record).__name__}, not an object. Each line must be one JSON object."
        )
    return record


def _to_document(record: Mapping[str, Any], place: str, base_url: str | None) -> Document:
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise CorpusError(f'{place}: metadata is {metadata!r}, not an object. Write {{"name": value, …}}.')
    text = _text(record, place, _TEXTS, required=True)
    return Document(
        doc_uri=_doc_uri({**metadata, **record}, place, base_url),
        text=text,
        title=_text({**metadata, **record}, place, ("title",)) or first_heading(text),
        lang=_text({**metadata, **record}, place, ("lang",)),
        metadata={
            name: value
            for name, value in scalars(metadata).items()
            if name not in ("doc_uri", "title", "lang")
        },
    )


def _doc_uri(record: Mapping[str, Any], place: str, base_url: str | None) -> str:
    given = _text(record, place, ("doc_uri",)).strip()
    if given:
        return given
    for name in _IDS:
        value = record.get(name)
        if isinstance(value, str | int) and str(value).strip():
            return f"{base_url or ''}{str(value).strip()}"
    raise CorpusError(f"{place}: no doc_uri, _id or id. Give each document one of them: it is its identity.")


def _text(record: Mapping[str, Any], place: str, names: tuple[str, ...], *, required: bool = False) -> str:
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise CorpusError(f"{place}: {name} is {value!r}, which is not text. Put it in quotes.")
    if required:
        raise CorpusError(f"{place}: no text. Name the field one of: {', '.join(names)}.")
    return ""

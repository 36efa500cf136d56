"""Documents of records: the objects of JSON Lines, and the rows of CSV and Parquet.

JSON Lines are ours, BEIR's `corpus.jsonl`, or LangChain's and MLflow's document shape.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from retrieval.documents.languages import detect_language
from retrieval.documents.line_groups import lines_of, read_line_groups
from retrieval.documents.parsed import scalars
from retrieval.documents.reading import READER_VERSION, ReadingSettings, refused, too_large
from retrieval.errors import ConfigurationError, CorpusError
from retrieval.headings import find_anchors, first_heading
from retrieval.sources import Source, SourceGroup
from retrieval.tables import read_rows
from retrieval.types import Anchor, Document

_TEXTS = ("text", "contents", "page_content")
_IDS = ("_id", "id")
_OURS = ("doc_uri", "text", "title", "lang", "metadata", "anchors")

Record = Mapping[str, Any]


class Records:
    """Makes sources of records, each of which is a document."""

    def __init__(self, settings: ReadingSettings) -> None:
        unknown = [name for name in settings.columns if name not in _OURS]
        if unknown:
            raise ConfigurationError(
                f"corpus.columns: unknown field '{unknown[0]}'. There are: {', '.join(_OURS)}."
            )
        self._base_url = settings.base_url or ""
        self._has_anchors = settings.anchors == "auto"
        self._columns = settings.columns
        self._max_bytes = settings.max_bytes
        made_by = (
            f"{READER_VERSION} {settings.base_url} {settings.anchors} {sorted(settings.columns.items())}"
        )
        self._key = hashlib.blake2b(made_by.encode(errors="replace"), digest_size=32).digest()
        # Copied with its key, which costs half of making it anew: what is done for lines is done a million times.
        self._digest = hashlib.blake2b(key=self._key, digest_size=16).copy
        # Processors have instructions for this one: of long texts, it takes half of the time.
        self._group_digest = hashlib.sha256(self._key).copy

    def json_lines(self, path: Path) -> Iterator[Source | SourceGroup]:
        """A source of each line that is not blank, in groups; `path` may be gzipped.

        The text is `text`, `contents` or `page_content`; the `doc_uri` is the field of this name (or in
        `metadata`), else `_id` or `id`, with the base URL before it when that is given.
        """
        opener = gzip.open if path.suffix == ".gz" else open
        name, places, load = path.name, self._places, self._lines
        try:
            with opener(path, "rb") as file:
                for number, content in read_line_groups(cast(BinaryIO, file), self._max_bytes):
                    digest = self._group_digest()
                    digest.update(content)
                    group = name, number, content
                    yield SourceGroup(
                        f"{name}:{number}",
                        digest.hexdigest()[:32],
                        partial(places, *group),
                        partial(load, *group),
                    )
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            mend = "Download or compress it again."
            yield refused(name, CorpusError(f"{name}: not a complete gzip file ({error}). {mend}"))
        except OSError as error:
            yield refused(
                name, CorpusError(f"{name}: cannot be read ({error.strerror}). Check its permissions.")
            )

    def rows(self, path: Path) -> Iterator[Source]:
        """A source of each row of a CSV or Parquet file.

        The columns are named as the fields of JSON Lines; what other columns hold is metadata.
        """
        try:
            for place, row in read_rows(path, CorpusError):
                place = path.name + place.removeprefix(str(path))
                state = json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
                digest = hashlib.blake2b(state, key=self._key, digest_size=16).hexdigest()
                yield Source(place, digest, partial(self._load_row, row, len(state), place))
        except CorpusError as error:
            yield refused(path.name, CorpusError(str(error).replace(str(path), path.name)))

    def _places(self, name: str, first: int, content: bytes) -> list[str]:
        numbered = enumerate(lines_of(content), start=first)
        return [f"{name}:{number}" for number, line in numbered if not line.isspace()]

    def _lines(self, name: str, first: int, content: bytes) -> list[Source]:
        sources = []
        for number, line in enumerate(lines_of(content), start=first):
            if not line.isspace():
                place = f"{name}:{number}"
                digest = self._digest()
                digest.update(line)
                sources.append(Source(place, digest.hexdigest(), partial(self._load_line, line, place)))
        return sources

    def _load_line(self, line: bytes, place: str) -> list[Document]:
        if len(line) > self._max_bytes:
            raise too_large(place, self._max_bytes)
        return [self._document(self._renamed(_parse(line, place)), place)]

    def _load_row(self, row: Record, size: int, place: str) -> list[Document]:
        if size > self._max_bytes:
            raise too_large(place, self._max_bytes)
        record = self._renamed(row)
        known = {name: value for name, value in record.items() if name in (*_OURS, *_TEXTS, *_IDS)}
        others = {
            name: value for name, value in record.items() if name not in known and value not in (None, "")
        }
        return [self._document({**known, "metadata": {**others, **_stated_metadata(known, place)}}, place)]

    def _renamed(self, record: Record) -> Record:
        if not self._columns:
            return record
        names = {column: ours for ours, column in self._columns.items()}
        return {
            names.get(name, name): value
            for name, value in record.items()
            if name not in self._columns or name in names
        }

    def _document(self, record: Record, place: str) -> Document:
        metadata = record.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise CorpusError(
                f'{place}: metadata is {metadata!r}, not an object. Write {{"name": value, …}}.'
            )
        text = _text(record, place, _TEXTS, required=True)
        fields = {**metadata, **record}
        return Document(
            doc_uri=self._doc_uri(fields, place),
            text=text,
            title=_text(fields, place, ("title",)) or first_heading(text),
            lang=_text(fields, place, ("lang",)) or detect_language(text),
            metadata={
                name: value
                for name, value in scalars(metadata).items()
                if name not in ("doc_uri", "title", "lang")
            },
            anchors=_anchors(record.get("anchors"), text, place) if self._has_anchors else (),
        )

    def _doc_uri(self, record: Record, place: str) -> str:
        given = _text(record, place, ("doc_uri",)).strip()
        if given:
            return given
        for name in _IDS:
            value = record.get(name)
            if isinstance(value, str | int) and str(value).strip():
                return f"{self._base_url}{str(value).strip()}"
        raise CorpusError(
            f"{place}: no doc_uri, _id or id. Give each document one of them: it is its identity."
        )


def _parse(line: bytes, place: str) -> Record:
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


def _stated_metadata(record: Record, place: str) -> Record:
    """The metadata column: an object, also one that is written as JSON, as in CSV."""
    value = record.get("metadata")
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{place}: metadata is {value!r}, which is not JSON ({error}).") from None
    if isinstance(value, list) and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        value = dict(value)  # a map of Arrow
    if not isinstance(value, dict | None):
        raise CorpusError(f'{place}: metadata is {value!r}, not an object. Write {{"name": value, …}}.')
    return value or {}


def _anchors(given: Any, text: str, place: str) -> tuple[Anchor, ...]:
    """Those that the record has, as `[[offset, "fragment"], …]`, else those of the Markdown headings."""
    if given is None:
        return find_anchors(text)
    try:
        found = sorted(
            (Anchor(int(start), str(fragment)) for start, fragment in given), key=lambda a: a.start
        )
    except (TypeError, ValueError):
        raise CorpusError(f'{place}: anchors is {given!r}. Write [[offset, "fragment"], …].') from None
    return tuple(found)


def _text(record: Record, place: str, names: tuple[str, ...], *, required: bool = False) -> str:
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise CorpusError(f"{place}: {name} is {value!r}, which is not text. Put it in quotes.")
    if required:
        raise CorpusError(f"{place}: no text. Name the field one of: {', '.join(names)}.")
    return ""

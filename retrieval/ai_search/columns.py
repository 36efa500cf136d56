"""Which columns of an index hold what, and the passages that its rows are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from retrieval.types import MetadataValue, Passage

SCORE = "score"
"""How the service calls the last column of what it finds."""

_USUAL = {
    "title": "title",
    "lang": "lang",
    "url": "url",
    "start": "start_char",
    "end": "end_char",
    "headings": "headings",
    "metadata": "metadata",
}
"""What the corpus pipeline calls the columns that not every index has."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the index hold what. None: what `filled_in` takes; "": nothing does.

    Attributes:
        url: where the passage is to be opened: the `doc_uri`, with a fragment or without.
        headings: a list of section titles, or text with ` > ` between them.
        metadata: a JSON object, whose members are a passage's metadata.
        others: these are its metadata, too.
    """

    primary_key: str | None = None
    text: str | None = None
    doc_uri: str = "doc_uri"
    title: str | None = None
    lang: str | None = None
    url: str | None = None
    start: str | None = None
    end: str | None = None
    headings: str | None = None
    metadata: str | None = None
    others: tuple[str, ...] = ()

    def filled_in(self, primary_key: str, text: str | None, there: Collection[str] | None) -> Columns:
        """These columns where nothing was said, too.

        The index's own primary key; what it embeds, or `text`; and of what not every index has, the columns that are
        called as the corpus pipeline calls them, where they are `there`.
        """
        usual = {name: column for name, column in _USUAL.items() if there is not None and column in there}
        unsaid: dict[str, Any] = {
            name: column for name, column in usual.items() if getattr(self, name) is None
        }
        return replace(
            self, primary_key=self.primary_key or primary_key, text=self.text or text or "text", **unsaid
        )

    def names(self) -> dict[str, str]:
        """Each column that is read, by the name of what it holds."""
        said = {name: value for name, value in asdict(self).items() if name != "others" and value}
        return {**said, **{f"others.{name}": name for name in self.others}}

    def read(self) -> list[str]:
        """The columns that a search asks for, each once."""
        return list(dict.fromkeys(self.names().values()))

    def passage(self, row: Mapping[str, Any]) -> Passage | None:
        """The passage of a row; None where it has no text, or names no document to link to."""
        text, doc_uri = row.get(self.text or ""), row.get(self.doc_uri)
        if not text or not doc_uri:
            return None
        start = _whole(row.get(self.start or ""), 0)
        others = {name: _value(row[name]) for name in self.others if row.get(name) is not None}
        return Passage(
            chunk_id=_as_text(row.get(self.primary_key or "")),
            doc_uri=str(doc_uri),
            text=str(text),
            title=_as_text(row.get(self.title or "")),
            lang=_as_text(row.get(self.lang or "")),
            start=start,
            end=_whole(row.get(self.end or ""), start + len(str(text))),
            headings=_headings(row.get(self.headings or "")),
            metadata={**_members(row.get(self.metadata or "")), **others},
            score=float(row.get(SCORE) or 0.0),
            fragment=_fragment(row.get(self.url or ""), str(doc_uri)),
        )


def _as_text(value: Any) -> str:
    """A value as text; the service gives whole numbers as 1.0."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _whole(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, int | float) else otherwise


def _headings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part for part in value.split(" > ") if part)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _members(value: Any) -> dict[str, MetadataValue]:
    if not isinstance(value, str):
        return {}
    try:
        said = json.loads(value)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    return {
        str(name): member for name, member in said.items() if isinstance(member, str | int | float | bool)
    }


def _fragment(url: Any, doc_uri: str) -> str:
    """What the address of a passage adds to that of its document."""
    base, hash_mark, fragment = str(url or "").partition("#")
    return unquote(fragment) if hash_mark and base == doc_uri else ""


def _value(value: Any) -> MetadataValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) else ", ".join(map(_as_text, value))

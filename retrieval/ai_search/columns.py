"""Which columns of an index hold what, and the passages that its rows are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.types import MetadataValue, Passage

SCORE = "score"
"""How the service calls the last column of what it finds."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the index hold what.

    Attributes:
        primary_key: None: the index's own.
        text: None: what the index embeds, or `text`.
        headings: a list of section titles, or text with ` > ` between them.
        fragment: of the document's address, where the passage opens.
        others: these travel as a passage's metadata.
    """

    primary_key: str | None = None
    text: str | None = None
    doc_uri: str = "doc_uri"
    title: str | None = None
    lang: str | None = None
    start: str | None = None
    end: str | None = None
    headings: str | None = None
    fragment: str | None = None
    others: tuple[str, ...] = ()

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
        start = int(row.get(self.start or "") or 0)
        return Passage(
            chunk_id=_as_text(row.get(self.primary_key or "")),
            doc_uri=str(doc_uri),
            text=str(text),
            title=_as_text(row.get(self.title or "")),
            lang=_as_text(row.get(self.lang or "")),
            start=start,
            end=int(row.get(self.end or "") or start + len(str(text))),
            headings=_headings(row.get(self.headings or "")),
            metadata={name: _metadata(row[name]) for name in self.others if row.get(name) is not None},
            score=float(row.get(SCORE) or 0.0),
            fragment=_as_text(row.get(self.fragment or "")),
        )


def _as_text(value: Any) -> str:
    """A value as text; the service gives whole numbers as 1.0."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _headings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        if value.startswith("["):
            try:
                return tuple(map(str, json.loads(value)))
            except ValueError:
                pass
        return tuple(part for part in value.split(" > ") if part)
    return tuple(map(str, value or ()))


def _metadata(value: Any) -> MetadataValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) else ", ".join(map(_as_text, value))

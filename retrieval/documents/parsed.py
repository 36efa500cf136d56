"""What a reader makes of a file."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.types import Anchor, MetadataValue


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as its file gives it; "" for what the file does not say. Headings in `text` are Markdown's.

    A file that `is_moved` only leads to another address: it is no document.
    """

    text: str
    title: str = ""
    lang: str = ""
    doc_uri: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    anchors: tuple[Anchor, ...] = ()
    is_moved: bool = False


def scalars(fields: Mapping[object, object]) -> dict[str, MetadataValue]:
    """The fields that can be filtered on; dates become ISO text, lists, mappings and nulls are left out."""
    found: dict[str, MetadataValue] = {}
    for name, value in fields.items():
        if isinstance(value, str | int | float | bool):
            found[str(name)] = value
        elif isinstance(value, datetime.date):
            found[str(name)] = value.isoformat()
    return found

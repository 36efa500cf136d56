"""The YAML block at the top of a Markdown file."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from retrieval.errors import CorpusError
from retrieval.types import MetadataValue

_BLOCK = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_UNCLOSED = re.compile(r"---[ \t]*\n[A-Za-z_][\w-]*[ \t]*:(?:\s|$)")
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a file says of itself: "" for what it does not say. `metadata` holds all other scalars."""

    doc_uri: str = ""
    title: str = ""
    lang: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


def split_front_matter(text: str, path: Path) -> tuple[FrontMatter, str]:
    """The front matter of `text` and the body after it; `path` is for messages.

    Raises:
        CorpusError: if the block is not closed, not YAML, not a mapping, or has a field of a wrong type.
    """
    block = _BLOCK.match(text)
    if block:
        return _parse(block["yaml"], path), text[block.end() :]
    if _UNCLOSED.match(text):
        raise CorpusError(f"{path}:1: the front matter has no end. Close it with a line '---'.")
    return FrontMatter(), text


def _parse(block: str, path: Path) -> FrontMatter:
    try:
        fields = yaml.load(block, Loader=_Loader)
    except yaml.YAMLError as error:
        raise CorpusError(
            f"{path}:{_line(error)}: the front matter is not valid YAML ({_problem(error)}). {_QUOTE}"
        ) from None
    if fields is None:
        return FrontMatter()
    if not isinstance(fields, dict):
        raise CorpusError(f"{path}:2: the front matter is not a mapping. Write lines such as 'title: …'.")
    own = {name: _text(fields.pop(name, None), name, path) for name in ("doc_uri", "title", "lang")}
    return FrontMatter(**own, metadata=scalars(fields))


_QUOTE = "Quote a value that contains ': ' or starts with a special character."


def scalars(fields: Mapping[object, object]) -> dict[str, MetadataValue]:
    """The fields that can be filtered on; dates become ISO text, lists, mappings and nulls are left out."""
    found: dict[str, MetadataValue] = {}
    for name, value in fields.items():
        if isinstance(value, str | int | float | bool):
            found[str(name)] = value
        elif isinstance(value, datetime.date):
            found[str(name)] = value.isoformat()
    return found


def _text(value: object, name: str, path: Path) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise CorpusError(
            f"{path}: {name} in the front matter is {value!r}, which YAML does not read as text. Quote it."
        )
    return "" if value is None else str(value).strip()


def _line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None)
    return mark.line + 2 if mark else 1


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())

"""The YAML block at the top of a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from retrieval.documents.parsed import scalars
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


def split_front_matter(text: str, place: str) -> tuple[FrontMatter, str]:
    """The front matter of `text` and the body after it; `place` is for messages.

    Raises:
        CorpusError: if the block is not closed, not YAML, not a mapping, or has a field of a wrong type.
    """
    block = _BLOCK.match(text)
    if block:
        return _parse(block["yaml"], place), text[block.end() :]
    if _UNCLOSED.match(text):
        raise CorpusError(f"{place}:1: the front matter has no end. Close it with a line '---'.")
    return FrontMatter(), text


def _parse(block: str, place: str) -> FrontMatter:
    try:
        fields = yaml.load(block, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that is none
        raise CorpusError(
            f"{place}:{_line(error)}: the front matter is not valid YAML ({_problem(error)}). {_QUOTE}"
        ) from None
    if fields is None:
        return FrontMatter()
    if not isinstance(fields, dict):
        raise CorpusError(f"{place}:2: the front matter is not a mapping. Write lines such as 'title: …'.")
    own = {name: _text(fields.pop(name, None), name, place) for name in ("doc_uri", "title", "lang")}
    return FrontMatter(**own, metadata=scalars(fields))


_QUOTE = "Quote a value that contains ': ' or starts with a special character."


def _text(value: object, name: str, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise CorpusError(
            f"{place}: {name} in the front matter is {value!r}, which YAML does not read as text. Quote it."
        )
    return "" if value is None else str(value).strip()


def _line(error: Exception) -> int:
    mark = getattr(error, "problem_mark", None)
    return mark.line + 2 if mark else 1


def _problem(error: Exception) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())

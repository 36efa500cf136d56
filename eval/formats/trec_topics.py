"""TREC topics: lines of `id<TAB>text`, or the classic `<top>` form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, unescape

from program.well_formed import well_formed
from retrieval.errors import GroundTruthError
from retrieval.tables import read_lines

# White space of ASCII alone: a name may hold what Unicode calls a space, a Japanese text full-width ones.
SPACES = re.compile(r"[ \t\r\n]+")

_TAG = re.compile(r"<(/?)(top|num|title|desc|narr)>", re.IGNORECASE)
_LABEL = re.compile(r"^\s*(?:Number|Topic|Description)\s*:", re.IGNORECASE)


def read_topics(path: Path) -> Iterator[tuple[str, str, str]]:
    """Each topic's place, id and question.

    Raises:
        GroundTruthError: if a line or a topic is not usable, naming it.
    """
    lines = ((number, line) for number, line in read_lines(path, GroundTruthError) if line.strip())
    first = next(lines, None)
    if first is None:
        return

    def all_lines() -> Iterator[tuple[int, str]]:
        yield first
        yield from lines

    if re.match(r"\s*<top>", first[1], re.IGNORECASE):
        yield from _read_classic(path, all_lines())
        return
    for number, line in all_lines():
        id_, tab, text = line.strip("\r\n").partition("\t")
        if not tab or not id_.strip():
            raise GroundTruthError(
                f"{path}:{number}: expected an id, a tab and the question, not {line.strip()!r:.80}. "
                "Mend or remove the line."
            )
        yield f"{path}:{number}", id_.strip(), text.strip()


def _read_classic(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[str, str, str]]:
    start, field = 0, ""
    fields: dict[str, list[str]] = {}
    for number, line in lines:
        position = 0
        for tag in _TAG.finditer(line):
            fields.setdefault(field, []).append(line[position : tag.start()])
            position, name, closes = tag.end(), tag[2].lower(), bool(tag[1])
            if name == "top" and closes:
                yield _to_topic(f"{path}:{start}", fields)
                start = 0
            elif name == "top":
                if start:
                    raise GroundTruthError(
                        f"{path}:{number}: <top> within the topic of line {start}. Add </top>."
                    )
                start, fields = number, {}
            field = "" if closes or name == "top" else name
        fields.setdefault(field, []).append(line[position:])
    if start:
        raise GroundTruthError(f"{path}:{start}: the topic has no </top>. The file may have been cut short.")


def _to_topic(place: str, fields: dict[str, list[str]]) -> tuple[str, str, str]:
    texts = {name: SPACES.sub(" ", _LABEL.sub("", "".join(parts))).strip() for name, parts in fields.items()}
    if not texts.get("num"):
        raise GroundTruthError(f"{place}: the topic has no <num>. Give each topic its number.")
    text = texts.get("title") or texts.get("desc", "")
    return place, unescape(texts["num"]), unescape(text)


def topic_line(id_: str, text: str) -> bytes:
    """A topic in one line."""
    return f"{id_}\t{one_line(text)}".encode()


def classic_topic(id_: str, text: str) -> bytes:
    """A topic in the classic form."""
    title = escape(one_line(text))
    if _LABEL.match(title):
        title = f"Topic: {title}"
    return f"<top>\n<num> Number: {escape(id_)}\n<title> {title}\n</top>\n".encode()


def one_line(text: str) -> str:
    """The text as a topic holds it: without line breaks, runs of white space and broken characters."""
    return SPACES.sub(" ", well_formed(text)).strip()

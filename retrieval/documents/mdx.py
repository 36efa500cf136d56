"""MDX: Markdown with components. The text of components is kept, their code is not."""

from __future__ import annotations

import re

from retrieval.documents.markdown import read_markdown
from retrieval.documents.parsed import Parsed
from retrieval.sentences import FENCE

_CODE = re.compile(r"(?P<mark>`+)[^`\n][^\n]*?(?P=mark)(?!`)")
_STATEMENT = re.compile(r"^(?:import|export)\b[^\n]*(?:\n(?![ \t]*\n)[^\n]+)*\n?", re.MULTILINE)
_IS_STATEMENT = re.compile(
    r"import\s+(?:[\w*{][^;]*?\s+from\s+)?[\"']|export\s+(?:default\b|const\b|let\b|var\b|function\b|async\b|class\b|\{|\*)"
)
_COMMENT = re.compile(r"\{/\*(?!\s*#).*?\*/\}", re.DOTALL)
_TAG_START = re.compile(r"</?(?=[A-Za-z>])")
_NAMED = re.compile(r"""\b(?:title|label|summary)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_COMPONENT = re.compile(r"<[A-Z]")
_WRITTEN_ANCHOR = re.compile(r"<a\s+(?:id|name)\s*=|</a>", re.IGNORECASE)
_IN_TAGS = re.compile(r"[\"'`{}>]")
_BLANK_LINES = re.compile(r"(?:[ \t]*\n){3,}")
_EXPRESSION = re.compile(r"^[ \t]*\{(?!/\*\s*#)[^{}\n]*\}[ \t]*$", re.MULTILINE)


def read_mdx(text: str, place: str) -> Parsed:
    """The Markdown of an MDX file: without imports, exports, comments and the tags of components.

    What stands within a component, and its `title`, `label` or `summary`, are read as a reader of the page does.
    Code stays as it is, and so do `<a id>` and `<a name>`.

    Raises:
        CorpusError: if the front matter is malformed.
    """
    return read_markdown(_strip(text), place)


def _strip(text: str) -> str:
    pieces: list[str] = []
    position = 0
    for fence in FENCE.finditer(text):
        pieces += (_strip_prose(text[position : fence.start()]), fence[0])
        position = fence.end()
    pieces.append(_strip_prose(text[position:]))
    return "".join(pieces)


def _strip_prose(text: str) -> str:
    text = _STATEMENT.sub(lambda found: "" if _IS_STATEMENT.match(found[0]) else found[0], text)
    text = _EXPRESSION.sub("", _COMMENT.sub("", text))
    kept: list[str] = []
    position = 0
    for code in _CODE.finditer(text):
        kept += (_strip_tags(text[position : code.start()]), code[0])
        position = code.end()
    kept.append(_strip_tags(text[position:]))
    return _BLANK_LINES.sub("\n\n", "".join(kept))


def _strip_tags(text: str) -> str:
    kept: list[str] = []
    position = 0
    while start := _TAG_START.search(text, position):
        end = _end_of_tag(text, start.end())
        if not end:
            break
        tag = text[start.start() : end]
        kept += (text[position : start.start()], tag if _WRITTEN_ANCHOR.match(tag) else _words_of(tag))
        position = end
    return "".join((*kept, text[position:]))


def _end_of_tag(text: str, position: int) -> int:
    """Where the tag ends whose name begins at `position`, past quotes and nested braces; 0 if it does not."""
    depth, quote = 0, ""
    for found in _IN_TAGS.finditer(text, position):
        mark = found[0]
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "\"'`":
            quote = mark
        elif mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
        elif depth <= 0:
            return found.end()
    return 0


def _words_of(tag: str) -> str:
    """What a component shows of its attributes."""
    if not _COMPONENT.match(tag):
        return ""
    words = [double or single for double, single in _NAMED.findall(tag)]
    return f"\n\n{' — '.join(filter(None, words))}\n\n" if any(words) else ""

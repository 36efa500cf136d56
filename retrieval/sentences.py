"""Sentence boundaries in English and Japanese prose and Markdown, as character spans."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Half-open: `text[start:end]`."""

FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})[^\n]*"
    r"(?:\n(?:.*?\n)??[ \t]*(?P=mark)[`~]*[ \t]*$|.*)",
    re.MULTILINE | re.DOTALL,
)
"""A Markdown code fence with all that it holds; without a closing mark it runs to the end of the text."""

_CLOSERS = "\"'”’»)\\]*_`」』）】〉》］｝"
_END = re.compile(
    rf"(?<![.!?…])[.!?…]+[{_CLOSERS}]*(?=\s|$)|(?:[。！？｡]|．(?![0-9０-９A-Za-zＡ-Ｚａ-ｚ]))[。！？!?｡{_CLOSERS}]*"
)
_SYMMETRIC_RUN = re.compile(r"(?P<mark>[\"'*_`])(?P=mark)*")
_STARTS_BLOCK = re.compile(
    r"[ \t]*(?:$|[-*+•・◦‣▪●○■□※>|]|#{1,6}[ \t]|\d{1,3}[.)][ \t]|={3,}|:{3}|!!!|<)|[ ]{4}|\t"
)
_IS_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_OPENS_LINE = re.compile(r"\s*(?:[-*+•>][ \t]*)*\(?(?:\d{1,3}|[A-Za-z])\.$")
_INITIAL = re.compile(r"(?:^|[\s(])[A-Z]\.$")
_LAST_WORD = re.compile(r"[\w.]+\.$")

_NEVER_LAST = frozenset(
    {"e.g.", "eg.", "i.e.", "ie.", "cf.", "vs.", "mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "viz."}
)
_LAST_BEFORE_CAPITAL = frozenset(
    {
        "etc.",
        "al.",
        "inc.",
        "ltd.",
        "co.",
        "corp.",
        "approx.",
        "u.s.",
        "u.k.",
        "a.m.",
        "p.m.",
        "jr.",
        "sr.",
        "resp.",
    }
)
_NOT_BEFORE_DIGIT = frozenset(
    {"no.", "nos.", "fig.", "figs.", "eq.", "eqs.", "sec.", "ch.", "p.", "pp.", "vol.", "ver.", "v."}
)

_PARTICLES = "とのをがはにもへやで"
_WRAP_COLUMNS = 40
_LONGEST_ABBREVIATION = 16


def split_sentences(text: str) -> list[Span]:
    """The spans of the sentences of `text`, in order: stripped, disjoint, covering all but white space.

    A sentence ends at `.`, `!` or `?` before white space (not after an abbreviation, and so never inside
    a number, version, URL or dotted name), at `。`, `！` or `？` with the closing brackets that follow, and
    at the end of a line, heading, list item or table row. A line of prose that was only wrapped (at least
    40 columns, followed by another line of prose) goes on. A Markdown code fence is one sentence.
    """
    spans: list[Span] = []
    position = 0
    for fence in FENCE.finditer(text):
        spans += _split_prose(text, position, fence.start())
        spans += _strip(text, fence.start(), fence.end())
        position = fence.end()
    spans += _split_prose(text, position, len(text))
    return spans


def _split_prose(text: str, start: int, end: int) -> Iterator[Span]:
    for block_start, block_end in _blocks(text, start, end):
        position = block_start
        for match in _END.finditer(text, block_start, block_end):
            if _ends_sentence(text, position, match, block_end):
                sentence_end = _without_opening_marks(text, position, match)
                yield from _strip(text, position, sentence_end)
                position = sentence_end
        yield from _strip(text, position, block_end)


def _blocks(text: str, start: int, end: int) -> Iterator[Span]:
    """Runs of lines within which only punctuation ends a sentence."""
    block = position = start
    while position < end:
        newline = text.find("\n", position, end)
        following = end if newline < 0 else newline + 1
        if newline < 0 or not _is_wrapped(text, position, newline, end):
            yield block, following
            block = following
        position = following


def _is_wrapped(text: str, line_start: int, newline: int, end: int) -> bool:
    line = text[line_start:newline].rstrip()
    if _columns(line) < _WRAP_COLUMNS or line.endswith((":", "：", "|")) or _IS_HEADING.match(line):
        return False
    next_end = text.find("\n", newline + 1, end)
    return not _STARTS_BLOCK.match(text[newline + 1 : end if next_end < 0 else next_end])


def _columns(line: str) -> int:
    return len(line) if line.isascii() else sum(2 if character >= "\u2e80" else 1 for character in line)


def _ends_sentence(text: str, start: int, match: re.Match[str], end: int) -> bool:
    mark = match.group()
    if text.count("`", start, match.start()) % 2 and "`" in text[match.start() : end]:
        return False  # inside code: `LM(api_key=...)`
    if mark[0] in "。！？｡．":
        # 「はい。」と答えた: the quotation is a part of the sentence that goes on.
        return mark[-1] in "。！？!?｡．" or text[match.end() : match.end() + 1] not in tuple(_PARTICLES)
    if mark[0] != "." or mark.startswith(".."):
        return True
    last = text[max(start, match.start() - _LONGEST_ABBREVIATION) : match.start() + 1]
    return not _is_abbreviation(last, text[match.end() : min(end, match.end() + 8)].lstrip()[:1])


def _without_opening_marks(text: str, start: int, match: re.Match[str]) -> int:
    """Where the sentence ends: before marks such as ` that open what follows, as no space tells in Japanese."""
    for run in _SYMMETRIC_RUN.finditer(match.group()):
        if text.count(run.group(), start, match.start()) % 2 == 0:
            return match.start() + run.start()
    return match.end()


def _is_abbreviation(last: str, following: str) -> bool:
    """Whether the full stop that ends `last`, the last characters so far, is not that of a sentence."""
    if _OPENS_LINE.fullmatch(last) or _INITIAL.search(last):
        return True
    found = _LAST_WORD.search(last)
    word = found.group().lower() if found else ""
    return (
        word in _NEVER_LAST
        or (word in _LAST_BEFORE_CAPITAL and following.islower())
        or (word in _NOT_BEFORE_DIGIT and following.isdigit())
    )


def _strip(text: str, start: int, end: int) -> Iterator[Span]:
    piece = text[start:end]
    stripped = piece.lstrip()
    if stripped:
        start += len(piece) - len(stripped)
        yield start, start + len(stripped.rstrip())

"""Documents to passages: sections, sentences and a token budget, with character offsets kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from retrieval.analysis import CJK_RUN
from retrieval.extras import needs_extra
from retrieval.headings import find_headings
from retrieval.sentences import Span, split_sentences
from retrieval.types import Document, Passage

Chunker: TypeAlias = Literal["sentences", "semantic"]
_Piece: TypeAlias = tuple[Span, tuple[str, ...]]
"""Where a passage is, and the headings that it stands under."""

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class ChunkingSettings:
    """How long a passage may be, and how much of it the next one repeats, in tokens of `count_tokens`.

    The chunker is `sentences`, ours, or `semantic`: the Markdown splitter of semantic-text-splitter, which
    cuts at the largest unit that fits (section, paragraph, sentence, word, …) and heeds no boundary of sections
    where several fit.

    Raises:
        ValueError: unless `max_tokens >= 1` and `0 <= overlap_tokens < max_tokens`.
    """

    max_tokens: int = 200
    overlap_tokens: int = 40
    chunker: Chunker = "sentences"

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not 0 <= self.overlap_tokens < self.max_tokens:
            raise ValueError(
                f"overlap_tokens must be at least 0 and below max_tokens ({self.max_tokens}), "
                f"got {self.overlap_tokens}"
            )


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with the text up to the next heading; `headings` is its path from the top, `body` what follows it."""

    start: int
    body: int
    end: int
    headings: tuple[str, ...]


def count_tokens(text: str) -> int:
    """An estimate of a language model's tokens: one per CJK character, one per four other characters.

    Byte-pair vocabularies of today's models need about that for English and Japanese prose. It asks no
    tokenizer, so that chunks do not depend on a model, and never falls when text is appended.
    """
    wide = 0 if text.isascii() else sum(map(len, CJK_RUN.findall(text)))
    return wide - (wide - len(text)) // _CHARACTERS_PER_TOKEN


def chunk(document: Document, settings: ChunkingSettings) -> list[Passage]:
    """The passages of `document`, in order; none when it holds only white space.

    `document.text[p.start:p.end] == p.text`, and no passage exceeds `settings.max_tokens`. Each has the headings
    that it stands under and the fragment of the last anchor at or before it.

    A passage of the `sentences` chunker consists of whole sentences and code fences of one section; only what
    alone exceeds the budget is cut (a fence between lines). Sections that are tiny (together at most half the
    budget) share a passage. Consecutive passages of a section share whole sentences of at most
    `settings.overlap_tokens`.

    Raises:
        ConfigurationError: if the chunker is not installed.
    """
    pieces = _PIECES[settings.chunker](document.text, settings)
    starts = [anchor.start for anchor in document.anchors]
    return [
        _passage(document, ordinal, span, headings, bisect_right(starts, span[0]) - 1)
        for ordinal, (span, headings) in enumerate(pieces)
    ]


def _passage(document: Document, ordinal: int, span: Span, headings: tuple[str, ...], anchor: int) -> Passage:
    start, end = span
    return Passage(
        chunk_id=f"{document.doc_uri}#c{ordinal:04d}",
        doc_uri=document.doc_uri,
        text=document.text[start:end],
        title=document.title,
        lang=document.lang,
        start=start,
        end=end,
        headings=headings,
        metadata=document.metadata,
        fragment=document.anchors[anchor].fragment if anchor >= 0 else "",
    )


def _by_sentences(text: str, settings: ChunkingSettings) -> Iterable[_Piece]:
    if count_tokens(text) <= settings.max_tokens and not find_headings(text):
        # What the rest would find, too: most documents of large collections are one passage.
        start = len(text) - len(text.lstrip())
        return [((start, len(text.rstrip())), ())] if start < len(text) else []
    return (
        (span, section.headings)
        for section in _merge_tiny(text, _sections(text), settings)
        for span in _pack(text, section, settings)
    )


def _by_semantic_units(text: str, settings: ChunkingSettings) -> Iterable[_Piece]:
    with needs_extra("documents", "chunking.chunker: semantic"):
        from semantic_text_splitter import MarkdownSplitter
    splitter = MarkdownSplitter.from_callback(count_tokens, settings.max_tokens, settings.overlap_tokens)
    sections = _sections(text)
    starts = [section.start for section in sections]
    for start, piece in splitter.chunk_indices(text):
        # What a heading alone cuts off before its text belongs to it all the same.
        section = sections[max(0, bisect_right(starts, start) - 1)]
        yield (start, start + len(piece)), section.headings


_PIECES: Mapping[Chunker, Callable[[str, ChunkingSettings], Iterable[_Piece]]] = {
    "sentences": _by_sentences,
    "semantic": _by_semantic_units,
}


def _sections(text: str) -> list[Section]:
    sections: list[Section] = []
    start, body, path = 0, 0, [""] * 6
    for heading in find_headings(text):
        sections.append(Section(start, body, heading.start, tuple(filter(None, path))))
        path[heading.level - 1 :] = [heading.title, *[""] * (6 - heading.level)]
        start, body = heading.start, heading.end
    sections.append(Section(start, body, len(text), tuple(filter(None, path))))
    return [section for section in sections if text[section.start : section.end].strip()]


def _merge_tiny(text: str, sections: Sequence[Section], settings: ChunkingSettings) -> Iterator[Section]:
    """`sections`, neighbours joined while they are tiny; joined ones stand under their common headings."""
    joined: Section | None = None
    for section in sections:
        if joined is None:
            joined = section
        elif _is_bare_heading(text, joined):
            joined = Section(joined.start, section.body, section.end, section.headings)
        elif count_tokens(text[joined.start : section.end]) <= settings.max_tokens // 2:
            joined = Section(
                joined.start, joined.body, section.end, _common(joined.headings, section.headings)
            )
        else:
            yield joined
            joined = section
    if joined is not None:
        yield joined


def _is_bare_heading(text: str, section: Section) -> bool:
    return section.body > section.start and not text[section.body : section.end].strip()


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    length = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return first[:length]


def _pack(text: str, section: Section, settings: ChunkingSettings) -> Iterator[Span]:
    whole = text[section.start : section.end]
    if count_tokens(whole) <= settings.max_tokens:
        start = section.start + len(whole) - len(whole.lstrip())
        yield start, start + len(whole.strip())
        return
    units = [unit for span in split_sentences(whole) for unit in _fit(whole, span, settings.max_tokens)]
    for first, last in _windows(whole, units, settings):
        yield section.start + units[first][0], section.start + units[last][1]


def _windows(text: str, units: Sequence[Span], settings: ChunkingSettings) -> Iterator[tuple[int, int]]:
    """First and last unit of each passage."""
    first = 0
    while first < len(units):
        last = first
        while last + 1 < len(units) and _tokens(text, units, first, last + 1) <= settings.max_tokens:
            last += 1
        yield first, last
        if last + 1 == len(units):
            return
        following = last + 1
        while following - 1 > first and _overlaps(text, units, following - 1, last, settings):
            following -= 1
        first = following


def _overlaps(text: str, units: Sequence[Span], first: int, last: int, settings: ChunkingSettings) -> bool:
    """Whether the units may be repeated: few enough tokens, and room for the next unit beside them."""
    return (
        _tokens(text, units, first, last) <= settings.overlap_tokens
        and _tokens(text, units, first, last + 1) <= settings.max_tokens
    )


def _tokens(text: str, units: Sequence[Span], first: int, last: int) -> int:
    return count_tokens(text[units[first][0] : units[last][1]])


def _fit(text: str, span: Span, max_tokens: int) -> Iterator[Span]:
    """`span`, cut where it exceeds the budget: between lines, else between words, else anywhere."""
    start, end = span
    while count_tokens(text[start:end]) > max_tokens:
        cut = _cut(text, start, _reach(text, start, end, max_tokens))
        yield start, start + len(text[start:cut].rstrip())
        start = cut + len(text[cut:end]) - len(text[cut:end].lstrip())
    yield start, end


def _reach(text: str, start: int, end: int, max_tokens: int) -> int:
    """The furthest position up to which `text[start:]` keeps to the budget."""
    low, high = start + 1, min(end, start + max_tokens * _CHARACTERS_PER_TOKEN)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[start:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, start: int, reach: int) -> int:
    half = start + (reach - start) // 2
    for separator in ("\n", "、", " "):
        found = text.rfind(separator, half, reach)
        if found > start:
            return found + 1
    return reach

"""Markers in an answer become citations that were checked: `[2]` must point at the second passage.

Two to the same end: `CitationParser` takes text as it streams, `cite` takes it whole. However the text
is cut into deltas, the outcome is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from program.types import Citation, CitedAnswer, Emit, Piece
from retrieval.analysis import analyze
from retrieval.sentences import split_sentences
from retrieval.types import Passage

# A marker is one or more numbers of at most two digits in brackets, also as Japanese keyboards and some
# models write them. More digits are text: an error code or a year.
_NUMBERS = r"\d{1,2}(?:\s?[,、，]\s?\d{1,2})*"
_MARKER = re.compile(
    rf"(?P<space>[ \t]*)(?:\[(?P<a>{_NUMBERS})\]|［(?P<b>{_NUMBERS})］|【(?P<c>{_NUMBERS})】)"
)
# What may still become a marker, or white space before one, when the text ends here.
_UNDECIDED = re.compile(r"[ \t]*(?:[\[［【][\d\s,、，]{0,40})?\Z")
_FENCE = re.compile(r"`+")
_LONGEST_SENTENCE = 600


class CitationParser:
    """Splits streamed answer text into text pieces and verified citations.

    Markers inside code (between backticks) are code. A marker whose number is no passage's is removed
    and counted. `[1, 3]` becomes `[1][3]`.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._pending = ""
        self._open_fence = ""
        self.text = ""
        self.citations: list[Citation] = []
        self.dropped_markers = 0

    def feed(self, delta: str) -> list[Piece]:
        """The pieces that are certain once `delta` is known; what may still become a marker is held back."""
        self._pending += delta
        return self._take(final=False)

    def finish(self) -> list[Piece]:
        """The pieces that were held back, now that no more text follows."""
        return self._take(final=True)

    def answer(self, *, reader: str, query: str, abstained: bool = False) -> CitedAnswer:
        """All that was parsed, as an answer. Call it after `finish`."""
        return CitedAnswer(
            text=self.text,
            citations=tuple(self.citations),
            passages=tuple(self._passages),
            reader=reader,
            query=query,
            abstained=abstained,
            dropped_markers=self.dropped_markers,
        )

    def _take(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while self._pending:
            consumed = self._step(pieces, final=final)
            if not consumed:
                break
            self._pending = self._pending[consumed:]
        return _join_text(pieces)

    def _step(self, pieces: list[Piece], *, final: bool) -> int:
        """Consume one stretch of pending text; the number of characters consumed, 0 to wait for more."""
        if self._open_fence:
            return self._code(pieces, final=final)
        fence, marker = _FENCE.search(self._pending), _MARKER.search(self._pending)
        if marker and (not fence or marker.start() < fence.start()):
            # White space that runs to the end of a marker's bracket is complete: a digit cannot follow.
            self._text(pieces, self._pending[: marker.start()])
            self._marker(pieces, marker)
            return marker.end()
        if fence:
            if fence.end() == len(self._pending) and not final:
                return self._text(pieces, self._pending[: fence.start()])
            self._open_fence = fence.group()
            return self._text(pieces, self._pending[: fence.end()])
        undecided = _UNDECIDED.search(self._pending)
        certain = len(self._pending) if final or undecided is None else undecided.start()
        return self._text(pieces, self._pending[:certain])

    def _code(self, pieces: list[Piece], *, final: bool) -> int:
        end = self._code_end(final=final)
        if end is not None:
            self._open_fence = ""
            return self._text(pieces, self._pending[:end])
        # Trailing backticks may grow into the closing fence, or past it.
        certain = len(self._pending) if final else len(self._pending.rstrip("`"))
        return self._text(pieces, self._pending[:certain])

    def _code_end(self, *, final: bool) -> int | None:
        """Where the open code ends: at its closing fence, or inline at the line's end (a stray backtick)."""
        line_end = self._pending.find("\n") if len(self._open_fence) < 3 else -1
        for fence in _FENCE.finditer(self._pending):
            if -1 < line_end < fence.start():
                break
            if fence.group() == self._open_fence and (final or fence.end() < len(self._pending)):
                return fence.end()
        return line_end + 1 if line_end >= 0 else None

    def _text(self, pieces: list[Piece], text: str) -> int:
        if text:
            self.text += text
            pieces.append(text)
        return len(text)

    def _marker(self, pieces: list[Piece], marker: re.Match[str]) -> None:
        numbers = [
            int(n) for n in re.findall(r"\d+", marker.group("a") or marker.group("b") or marker.group("c"))
        ]
        valid = [n for n in dict.fromkeys(numbers) if 1 <= n <= len(self._passages)]
        self.dropped_markers += len([n for n in numbers if not 1 <= n <= len(self._passages)])
        if not valid:
            return
        claim = _last_sentence(self.text)
        self._text(pieces, marker.group("space"))
        for number in valid:
            start = len(self.text)
            self._text(pieces, f"[{number}]")
            passage = self._passages[number - 1]
            quote_start, quote_end = find_quote(claim, passage.text)
            citation = Citation(number, passage, start, len(self.text), quote_start, quote_end)
            self.citations.append(citation)
            pieces.append(citation)


def cite(
    text: str | Iterable[str],
    passages: Sequence[Passage],
    *,
    reader: str,
    query: str,
    abstained: bool = False,
    emit: Emit | None = None,
) -> CitedAnswer:
    """An answer written elsewhere, with its markers verified against the passages that it was given.

    This is what an agent of your own calls: `text` is the finished answer or its deltas as they come.
    With `emit` the pieces are handed on meanwhile.
    """
    parser = CitationParser(passages)
    for delta in (text,) if isinstance(text, str) else text:
        _hand_over(parser.feed(delta), emit)
    _hand_over(parser.finish(), emit)
    return parser.answer(reader=reader, query=query, abstained=abstained)


def _hand_over(pieces: Sequence[Piece], emit: Emit | None) -> None:
    if emit is not None:
        for piece in pieces:
            emit(piece)


def find_quote(claim: str, passage_text: str) -> tuple[int, int]:
    """The span of the passage's sentence that shares most terms with `claim`; the first sentence on a tie."""
    sentences = split_sentences(passage_text) or [(0, len(passage_text))]
    wanted = set(analyze(claim))

    def shared(span: tuple[int, int]) -> float:
        terms = set(analyze(passage_text[span[0] : span[1]]))
        return len(terms & wanted) / (len(terms | wanted) or 1)

    return max(sentences, key=shared)


def _last_sentence(text: str) -> str:
    tail = re.sub(r"\[\d{1,2}\]", "", text[-_LONGEST_SENTENCE:])
    sentences = split_sentences(tail)
    return tail[sentences[-1][0] : sentences[-1][1]] if sentences else tail


def _join_text(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring text pieces as one, so that a delta in is about a delta out."""
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined

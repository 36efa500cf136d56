"""The nouns of answering: a turn comes in, a cited answer goes out, and pieces of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from retrieval.types import Filters, Passage


@dataclass(frozen=True, slots=True)
class Message:
    """One earlier message of the conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Everything that an answer may depend on: nothing of a conversation is kept between turns.

    `k` and `filters` are None where the request leaves them to the configuration.
    """

    question: str
    history: tuple[Message, ...] = ()
    k: int | None = None
    filters: Filters | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker `[number]` in an answer, verified to point at a retrieved passage.

    `answer[start:end]` is the marker; `number` is the 1-based rank of `passage` in the retrieved list;
    `passage.text[quote_start:quote_end]` is the sentence that it rests on. All count characters.
    """

    number: int
    passage: Passage
    start: int
    end: int
    quote_start: int
    quote_end: int

    @property
    def quote(self) -> str:
        """The sentence of the passage that the answer rests on."""
        return self.passage.text[self.quote_start : self.quote_end]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that was called on the way to an answer, by its name and the arguments that the model gave."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the call with the same `call_id` came to: passages by their number in the answer, or why there are none."""

    call_id: str
    found: Mapping[int, Passage]
    problem: str = ""


ToolStep: TypeAlias = ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Recalled:
    """What memory did for an answer: how many earlier messages it was given, and whether it was kept itself."""

    messages: int
    is_kept: bool


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer, what it cites, and what was retrieved for it (best first).

    `abstained` is true when the passages did not hold the answer and the text says so. `reader` names
    who wrote it: `extractive` or the language model. `query` is what was searched for: the question, or
    the follow-up made to stand alone. `dropped_markers` counts markers that pointed at no passage and
    were removed. `fallback_reason` is why another reader than the configured one answered; empty if none did.
    `usage` holds tokens by name, `timings_ms` milliseconds by stage. `steps` are the tools that a model called on
    the way, each call followed by its result; none where no model decides. `memory` is None where the conversation
    is not kept.
    """

    text: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    reader: str
    query: str
    abstained: bool = False
    dropped_markers: int = 0
    fallback_reason: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[ToolStep, ...] = ()
    memory: Recalled | None = None

    @property
    def cited_uris(self) -> list[str]:
        """The `doc_uri`s that the answer cites, in order of first citation."""
        return list(dict.fromkeys(citation.passage.doc_uri for citation in self.citations))


Piece: TypeAlias = str | Citation | ToolCall | ToolResult
"""A piece of a streamed answer: text to append, a citation whose marker was just appended, or a tool's call or result.

Tools are called before the first text.
"""

Emit: TypeAlias = Callable[[Piece], None]
"""Takes the pieces of an answer as they come. The concatenated text pieces are the final text."""


class Answerer(Protocol):
    """Answers one turn. The seam where an agent of your own fits behind the same interface.

    With `emit`, the pieces are handed over as they come; without, only the whole is returned. Both
    give the same answer. Safe to call from several threads at once.
    """

    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        """The answer to `turn`."""
        ...

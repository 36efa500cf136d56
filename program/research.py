"""The searches for one question: the tools that a model searches with, and what was found with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import dspy

from program.readers import format_passage
from program.streaming import emit_pieces
from program.types import ToolCall, ToolResult, ToolStep
from retrieval.errors import RetrievalError
from retrieval.types import Passage

SEARCH, FINISH = "search", "finish"

MOST_PASSAGES = 99
"""More are not read, since a citation marker has at most two digits."""


_REPEATED = "That was searched for before. Search for something else, or finish."


class Research:
    """What a model did to find the passages for one question. For one thread.

    Passages are numbered in the order in which they were first found; one found again keeps its number. Calls and
    results go to whoever waits for the pieces of the answer, as they come.
    """

    def __init__(self, search: Callable[[str], Sequence[Passage]], max_searches: int) -> None:
        """`search` finds the passages for a query, best first. Wrong calls count among `max_searches`."""
        self._search = search
        self._max_searches = max_searches
        self._calls = 0
        self._numbers: dict[tuple[str, str], int] = {}
        self._found: dict[int, Passage] = {}
        self._notes: list[str] = []
        self.passages: list[Passage] = []
        self.queries: list[str] = []
        self.steps: list[ToolStep] = []

    @property
    def searches_left(self) -> int:
        """How many more calls can be made; none where no more passages could be read."""
        return 0 if len(self.passages) >= MOST_PASSAGES else max(0, self._max_searches - self._calls)

    def describe(self) -> str:
        """All that was searched for and found, as the model is shown it."""
        return "\n\n".join(self._notes) or "Nothing was searched for yet."

    def call(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Call a tool but `finish`; false if it only repeats a search. Of a call that is wrong the model can read why.

        Raises:
            RetrievalError: if a search cannot be done, and there is nothing to answer from. Where passages were
                found before, the failure is that call's result.
        """
        call = ToolCall(f"call_{uuid4().hex}", name, dict(arguments))
        self._calls += 1
        self._note(call)
        self._found = {}
        said = problem = self._objection(call)
        if not problem:
            try:
                with _for(self):
                    said = _SEARCH_TOOL(query=arguments["query"].strip())
            except RetrievalError as error:
                if not self.passages:
                    raise
                said = problem = f"The search failed: {error}"
        self._note(ToolResult(call.call_id, self._found, problem))
        self._notes.append(f"{name}({_in_call(arguments)}):\n{said}")
        return problem != _REPEATED

    def _objection(self, call: ToolCall) -> str:
        """Why the call is not to be made; empty if it is."""
        if call.name != SEARCH:
            return f"There is no tool {call.name!r}: call {SEARCH} or {FINISH}."
        query = call.arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            return f"{SEARCH} needs a query, which is text."
        if _words(query) in map(_words, self.queries):
            return _REPEATED
        return ""

    def search(self, query: str) -> str:
        """What the model reads of a search: passages that it knows by their number alone."""
        known = set(self._numbers.values())
        self.queries.append(query)
        for passage in self._search(query):
            if (number := self._number(passage)) is not None:
                self._found[number] = passage
        shown = [
            f"[{number}] again" if number in known else format_passage(number, passage)
            for number, passage in self._found.items()
        ]
        return "\n\n".join(shown) or "Nothing was found."

    def _number(self, passage: Passage) -> int | None:
        key = (passage.doc_uri, passage.chunk_id)
        if key not in self._numbers:
            if len(self.passages) >= MOST_PASSAGES:
                return None
            self.passages.append(passage)
            self._numbers[key] = len(self.passages)
        return self._numbers[key]

    def _note(self, step: ToolStep) -> None:
        self.steps.append(step)
        emit_pieces([step])


_research: ContextVar[Research] = ContextVar("citeqa_research")


@contextmanager
def _for(research: Research) -> Iterator[None]:
    token = _research.set(research)
    try:
        yield
    finally:
        _research.reset(token)


def _search(query: str) -> str:
    return _research.get().search(query)


def _finish() -> str:
    return "Finished."


# The same for every question, with the research in the context: demonstrations of the program hold its tools, and
# are pickled and written as JSON.
_SEARCH_TOOL = dspy.Tool(
    _search,
    SEARCH,
    "Find the passages of the documents that fit a query best.",
    arg_desc={"query": "words that would stand in the passage"},
)
TOOLS = (
    _SEARCH_TOOL,
    dspy.Tool(_finish, FINISH, "Say that enough was found, or that no more can be."),
)


def _words(query: str) -> list[str]:
    return query.casefold().split()


def _in_call(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())

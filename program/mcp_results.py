"""What the tools of the MCP server return: their structured output, which is their published schema, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from retrieval.types import Passage


class Source(BaseModel):
    """A passage that an answer cites, and the sentences that it is cited for."""

    number: int = Field(description="its marker in the answer: [number]")
    title: str
    url: str = Field(description="opens the document where it is cited")
    doc_uri: str = Field(description="the identity of the document")
    quotes: list[str]


class Answer(BaseModel):
    """An answer whose every marker points at one of its sources."""

    answer: str = Field(description="Markdown, with markers such as [1]")
    abstained: bool = Field(description="whether the documents do not hold the answer")
    sources: list[Source]
    searched_for: list[str]
    reader: str = Field(description="the language model that wrote it, or extractive")


class FoundPassage(BaseModel):
    """A passage that was found."""

    number: int
    title: str
    url: str
    doc_uri: str
    section: str = Field(description="the headings that it stands under")
    text: str
    score: float = Field(description="higher is better, within one search")


class FoundPassages(BaseModel):
    """What a search found, best first."""

    passages: list[FoundPassage]


def to_answer(said: Mapping[str, Any]) -> Answer:
    """What `program.asking.ask_agent` gives, as the tool returns it."""
    sources: dict[int, Source] = {}
    for citation in said["citations"]:
        source = sources.setdefault(
            citation["number"],
            Source(
                number=citation["number"],
                title=citation["title"],
                url=citation["url"],
                doc_uri=citation["doc_uri"],
                quotes=[],
            ),
        )
        if citation["quote"] not in source.quotes:
            source.quotes.append(citation["quote"])
    return Answer(
        answer=said["answer"],
        abstained=said["abstained"],
        sources=[sources[number] for number in sorted(sources)],
        searched_for=said["query"].splitlines(),
        reader=said["reader"],
    )


def to_found(passages: Sequence[Passage]) -> FoundPassages:
    """Passages as the tool returns them."""
    return FoundPassages(
        passages=[
            FoundPassage(
                number=number,
                title=passage.title or passage.doc_uri,
                url=passage.url,
                doc_uri=passage.doc_uri,
                section=" > ".join(passage.headings),
                text=passage.text,
                score=round(passage.score, 4),
            )
            for number, passage in enumerate(passages, start=1)
        ]
    )


def answer_text(answer: Answer) -> str:
    """The answer for a model that reads text alone: its sources follow."""
    lines = [f"[{source.number}] {source.title}: {source.url}" for source in answer.sources]
    return "\n".join([answer.answer, *(["", "Sources:", *lines] if lines else [])])


def found_text(found: FoundPassages) -> str:
    """The passages for a model that reads text alone."""
    shown = [
        f"[{passage.number}] {passage.title} ({passage.url})\n{passage.text}" for passage in found.passages
    ]
    return "\n\n".join(shown) or "Nothing was found."

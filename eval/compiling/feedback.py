"""Feedback in words on one answer: what optimizers that reflect (GEPA, SIMBA) learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eval.compiling.notes import Notes
from eval.compiling.reading_notes import reading_notes
from eval.compiling.retrieval_notes import SearchScope, retrieval_notes
from eval.questions import Question
from program.types import CitedAnswer

MOST_CHARACTERS = 2_400
"""Of one feedback: reflection prompts hold several, beside the passages that were read."""

FAILED = "The program failed on this question and gave no answer."

_SEARCHING = ("rewrite", "condense", "decide")
_READING = ("reader.answer",)
_LENGTH_COUNTS = frozenset(("token_f1", "tokens", "usd"))


def explain(
    question: Question,
    cited: CitedAnswer,
    row: Mapping[str, float | None],
    score: float,
    normalize: Callable[[str], str],
    *,
    scope: SearchScope | None = None,
    predictor: str = "",
) -> str:
    """What is right and wrong with an answer, in plain English whatever the language of the question.

    `row` holds the metrics that made the `score`. With the name of a `predictor`, the remarks are on its part: the
    search for one that writes the query, the reading for one that answers. `scope` lets one look deeper than the
    program did, for gold that it did not find.
    """
    notes = Notes()
    if predictor not in _READING:
        _add(notes, retrieval_notes(question, cited, scope, normalize))
    if predictor not in _SEARCHING:
        length_counts = not _LENGTH_COUNTS.isdisjoint(row)
        _add(notes, reading_notes(question, cited, normalize, length_counts=length_counts))
    elif not question.answerable:
        notes.right.append("No document answers this question: there was nothing to be found.")
    lines = [_scored(row, score), *_under("Wrong:", notes.wrong), *_under("To know:", notes.right)]
    return _shortened(lines)


def _add(notes: Notes, more: Notes) -> None:
    notes.wrong += more.wrong
    notes.right += more.right


def _scored(row: Mapping[str, float | None], score: float) -> str:
    parts = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if value is not None)
    return f"Score {score:.3g}, where 1 is the best ({parts})." if parts else f"Score {score:.3g}."


def _under(title: str, notes: list[str]) -> list[str]:
    return [title, *(f"- {note}" for note in notes)] if notes else []


def _shortened(lines: list[str]) -> str:
    text = "\n".join(lines)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1].rstrip() + "…"

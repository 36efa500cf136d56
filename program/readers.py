"""Who writes the answer: a language model through DSPy, or nobody, by choosing sentences (see `extractive`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import dspy

from program.citations import CitationParser
from program.signatures import AnswerFromPassages
from program.streaming import FieldText, emit_pieces, listening, somebody_waits
from program.types import CitedAnswer
from retrieval.types import Passage


class Reader(Protocol):
    """Answers a question that stands alone from passages, citing them.

    The pieces of the answer go to whoever waits for them (`program.streaming.emitting`).
    """

    @property
    def name(self) -> str:
        """Who answers: shown wherever the answer is."""
        ...

    def __call__(self, question: str, passages: Sequence[Passage]) -> CitedAnswer:
        """The answer, in the language of the question; abstains when the passages do not hold one."""
        ...


class LMReader(dspy.Module):  # type: ignore[misc]
    """Has a language model answer from the passages, and verifies what it cites."""

    def __init__(self, lm: dspy.LM | None = None) -> None:
        super().__init__()
        self.answer = dspy.Predict(AnswerFromPassages)
        if lm is not None:
            self.answer.set_lm(lm)

    @property
    def name(self) -> str:
        """The language model that answers: this reader's own, or DSPy's current one."""
        lm = self.answer.lm or dspy.settings.lm
        return str(lm.model) if lm else "no language model"

    def forward(self, question: str, passages: Sequence[Passage]) -> CitedAnswer:
        """The model's answer, its citations verified.

        What a cached answer or another completion format leaves unstreamed follows at the end, so that
        the pieces always add up to the whole. What was streamed stays: when DSPy asks once more because
        the rest of a completion could not be parsed, that answer is not said after the first.
        """
        parser = CitationParser(passages)
        heard = _HeardAnswer(parser)
        inputs = {"passages": format_passages(passages), "question": question}
        if somebody_waits():
            with listening(heard.hear, on_begin=heard.begin):
                prediction = self.answer(**inputs)
        else:
            prediction = self.answer(**inputs)
        emit_pieces(parser.feed(_unsaid(str(prediction.answer), heard.text)))
        emit_pieces(parser.finish())
        return parser.answer(reader=self.name, query=question, abstained=not prediction.answerable)


class _HeardAnswer:
    """The answer as it is heard: that of the first completion which says any of it, and of no later one."""

    def __init__(self, parser: CitationParser) -> None:
        self.text = ""
        self._parser = parser
        self._field: FieldText | None = None

    def begin(self) -> None:
        self._field = None if self.text else FieldText("answer")

    def hear(self, delta: str) -> None:
        if self._field and (text := self._field.feed(delta)):
            self.text += text
            emit_pieces(self._parser.feed(text))


def _unsaid(answer: str, said: str) -> str:
    """What is left of `answer`; nothing when something else was said already, which cannot be taken back."""
    return answer[len(said) :] if answer.startswith(said) else ""


def format_passages(passages: Sequence[Passage]) -> str:
    """The passages as the prompt shows them: numbered from 1, each with its title, section and source."""
    return "\n\n".join(format_passage(number, passage) for number, passage in enumerate(passages, start=1))


def format_passage(number: int, passage: Passage) -> str:
    """One passage as the prompt shows it."""
    headings = " > ".join(dict.fromkeys((passage.title, *passage.headings)))
    return f"[{number}] {headings} ({passage.doc_uri})\n{passage.text}"

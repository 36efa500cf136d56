"""Questions as DSPy's optimizers take them: examples with inputs, and with labels where one can demonstrate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import dspy

from eval.compiling.ideal_answers import ideal_answer
from eval.questions import Question
from eval.uris import UriNormalization, uri_normalizer
from program.qa import CitedQA
from program.readers import format_passages
from program.types import Message

LABELS = ("passages", "answerable", "answer")
"""What an example holds beside its inputs where it can be shown to the reader as it is."""


class QuestionExample(dspy.Example):  # type: ignore[misc]
    """An example that knows which question it is of, besides all that DSPy sees of it.

    The question is no field: it is in no prompt, no `repr` (which DSPy shows to models that propose instructions) and
    no file, and yet every copy has it.
    """

    def __init__(self, base: Any = None, *, gold_question: Question | None = None, **fields: Any) -> None:
        """As `dspy.Example`; the question is the base's where none is given."""
        super().__init__(base, **fields)
        self._gold_question = gold_question or getattr(base, "_gold_question", None)

    def toDict(self) -> dict[str, Any]:  # noqa: N802 - as DSPy calls it
        """The fields as JSON can hold them: messages as `role` and `text`, and none where there are none."""
        fields: dict[str, Any] = super().toDict()
        if history := fields.pop("history", ()):
            fields["history"] = [asdict(message) for message in history]
        return fields


def gold_question(example: dspy.Example) -> Question:
    """The question that an example is of.

    Raises:
        TypeError: if it is none of `to_examples`.
    """
    question = getattr(example, "_gold_question", None)
    if question is None:
        raise TypeError(f"an example without its question: {sorted(example.keys())}")
    return question  # type: ignore[no-any-return]


def is_demonstration(example: dspy.Example) -> bool:
    """Whether it has all that the reader is shown and says."""
    return all(label in example for label in LABELS)


def to_examples(
    questions: Sequence[Question],
    program: CitedQA,
    *,
    demonstrate: bool,
    applies: Callable[[Question], bool] = lambda _: True,
    normalization: UriNormalization | None = None,
) -> list[dspy.Example]:
    """The questions as examples with the inputs of `CitedQA.forward`; those that the metric `applies` to, in order.

    With `demonstrate`, questions that the ground truth says the answer of also have the labels of the reader's
    signature: `passages` as the program retrieves them for the question, `answerable`, and an ideal `answer`
    (`eval.compiling.ideal_answers`). No language model is asked: a query is not rewritten, and a follow-up, which the
    reader sees only as it was made to stand alone, has no labels.

    Raises:
        RetrievalError: if a search cannot be done.
    """
    asked = [question for question in questions if applies(question)]
    normalize = uri_normalizer(normalization or UriNormalization())
    return [
        _to_example(question, _labels(question, program, normalize) if demonstrate else {})
        for question in asked
    ]


def _to_example(question: Question, labels: dict[str, Any]) -> dspy.Example:
    example = QuestionExample(
        gold_question=question, question=question.question, history=tuple(_history(question)), **labels
    )
    return example.with_inputs("question", "history")


def _history(question: Question) -> Iterable[Message]:
    """The conversation before, as the agent takes it from a request."""
    for turn in question.history:
        match turn.get("role"):
            case "user" | "assistant" as role:
                yield Message(role, turn.get("content", ""))


def _labels(question: Question, program: CitedQA, normalize: Callable[[str], str]) -> dict[str, Any]:
    if question.history:
        return {}
    passages = program.retriever.search(question.question, program.k, program.filters or None)
    ideal = ideal_answer(question, passages, normalize)
    if ideal is None:
        return {}
    labels = (format_passages(passages), ideal.answerable, ideal.text)
    return dict(zip(LABELS, labels, strict=True))

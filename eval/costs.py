"""What the answers of a run cost when they were first given, whatever is replayed from a record later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eval.records import AnswerRecord
from eval.text_table import number


@dataclass(frozen=True, slots=True)
class AnswerCosts:
    """All answers together.

    Attributes:
        input_tokens: what language models read, over the `counted` answers.
        output_tokens: what they wrote.
        usd: what that cost; None where the price of any is not known.
        counted: how many answers language models were asked for, and their tokens counted.
        uncounted: how many answers have no count: their agent reports none, or a cache of DSPy's gave them.
    """

    input_tokens: int
    output_tokens: int
    usd: float | None
    counted: int
    uncounted: int

    def render(self) -> str:
        """One line for a person; empty where no language model was asked."""
        parts = []
        if self.counted:
            price = (
                "price unknown (set language_model.price)"
                if self.usd is None
                else f"{number('usd', self.usd)} USD"
            )
            parts.append(f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out; {price}")
        if self.uncounted:
            answers = "1 answer has" if self.uncounted == 1 else f"{self.uncounted} answers have"
            parts.append(f"{answers} no count of tokens: what they cost is not known")
        return f"Language model: {'. '.join(parts)}" if parts else ""


def add_costs(records: Iterable[AnswerRecord]) -> AnswerCosts:
    """The sum over the answers; failed questions have none, and are in it neither way."""
    asked = [record for record in records if record.error is None and not record.asked_no_model]
    counted = [record for record in asked if record.usage]
    prices = [record.usd for record in counted if record.usd is not None]
    return AnswerCosts(
        input_tokens=sum(record.usage.get("input_tokens", 0) for record in counted),
        output_tokens=sum(record.usage.get("output_tokens", 0) for record in counted),
        usd=sum(prices) if len(prices) == len(counted) else None,
        counted=len(counted),
        uncounted=len(asked) - len(counted),
    )

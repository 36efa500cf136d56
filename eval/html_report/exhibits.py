"""What a section of the report shows: a finding in words, a drawing of it, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from eval.sweep.results import SweepResult, Trial


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A finding with its evidence.

    Attributes:
        finding: what is to be seen, in one sentence.
        reading: how the drawing is to be read.
        drawings: one or more; the same numbers stand in `rows` under `header`.
        note: what was left out of the drawing, and where it is.
    """

    finding: str
    reading: str
    drawings: Sequence[Markup]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """Names for configurations that fit a chart. `short` maps a factor to the shortest name of its own."""

    short: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, result: SweepResult) -> Labels:
        """`retrieval.k` is `k`, unless another factor ends so, too."""
        names = list(
            dict.fromkeys([*result.factors, *(name for trial in result.trials for name in trial.parameters)])
        )
        lasts = [name.rpartition(".")[2] for name in names]
        return cls(
            {name: last if lasts.count(last) == 1 else name for name, last in zip(names, lasts, strict=True)}
        )

    def describe(self, trial: Trial, reference: Trial | None = None) -> str:
        """Its parameters; beside a reference, those in which it differs."""
        return ", ".join(
            f"{self.short.get(name, name)}={value}"
            for name, value in trial.parameters.items()
            if reference is None or reference.parameters.get(name) != value
        )


def ranked(result: SweepResult, at_most: int | None = None) -> list[Trial]:
    """The complete trials, best first."""
    return [result.trial(number) for number in result.ranking[:at_most]]

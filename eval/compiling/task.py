"""What an optimizer is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import dspy

from program.qa import CitedQA


class CompilingMetric(Protocol):
    """Scores a prediction of the program as DSPy asks for it.

    Called with `pred_name` (GEPA does), it returns a `dspy.Prediction` with `score` and `feedback`; else a float.
    More is better, and 1 the best. `trace` is given while demonstrations are collected.
    """

    def __call__(
        self,
        example: dspy.Example,
        prediction: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """The score, or the score with feedback."""
        ...


@dataclass(frozen=True, slots=True)
class CompileTask:
    """Everything that an optimizer may use.

    Attributes:
        program: the seed. Its predictors have no language model of their own: calls go to the one of `dspy.context`.
        metric: what is to be made large.
        train: the examples to learn from (`eval.compiling.examples`): inputs `question` and `history`; labels
            `passages`, `answerable`, `answer` where a demonstration can be made of them.
        validation: the examples of `dev`, for optimizers that validate.
        task_model: answers; it is DSPy's current one, too.
        prompt_model: proposes instructions, reflects, gives advice; the task model where none is named.
        teacher: the program that shows how to answer: the seed with the teacher's model; None for the seed itself.
        threads: how many examples are asked at once.
        seed: of everything that is random.
        max_errors: so many failing examples are borne.
    """

    program: CitedQA
    metric: CompilingMetric
    train: Sequence[dspy.Example]
    validation: Sequence[dspy.Example]
    task_model: dspy.LM
    prompt_model: dspy.LM
    teacher: CitedQA | None
    threads: int
    seed: int
    max_errors: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that an optimizer made. `score` is what it says of it, on whatever it looked at; for display."""

    program: CitedQA
    note: str = ""
    score: float | None = None


Keep: TypeAlias = Callable[[Candidate], None]
"""Takes each candidate as soon as it is known, so that an optimizer that is stopped leaves what it had."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an optimizer will ask, at most: program runs (each asks every predictor once) and other calls.

    `explanation` says how it comes to that, for people.
    """

    program_runs: int
    prompt_calls: int = 0
    explanation: str = ""


class Optimizer(Protocol):
    """One of DSPy's optimizers with its settings."""

    @property
    def name(self) -> str:
        """As DSPy calls it."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is set to, for provenance."""
        ...

    def check(self, train: int, validation: int) -> None:
        """Raise ConfigurationError if these are too few examples, or something it needs is not there."""
        ...

    def estimate(self, train: int, validation: int, predictors: int = ...) -> Estimate:
        """What it will ask, of a program with so many predictors that examples ask."""
        ...

    def run(self, task: CompileTask, keep: Keep) -> None:
        """Optimize, handing over every candidate worth choosing from, the optimizer's own choice last."""
        ...

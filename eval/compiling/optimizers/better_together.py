"""BetterTogether: several optimizers, each from where the one before it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
from pydantic import Field

from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.watching import StoppedError, Watch
from eval.compiling.task import CompileTask, Estimate


class BetterTogetherSettings(OptimizerSettings):
    """Demonstrations first, then instructions, unless `steps` names others. They have this budget if none of their own.

    The program is run as often as the steps run it, and on dev before the first and after each.
    """

    steps: tuple[dict[str, Any] | str, ...] = Field(
        ("BootstrapFewShotWithRandomSearch", "GEPA"), min_length=1, validate_default=True
    )
    shuffle_trainset_between_steps: bool = True


class BetterTogether(DSPyOptimizer[BetterTogetherSettings]):
    """A chain of other optimizers of prompts, and the best program along it on dev."""

    name = "BetterTogether"

    def __init__(self, settings: BetterTogetherSettings, steps: Sequence[DSPyOptimizer[Any]]) -> None:
        super().__init__(settings)
        self._steps = tuple(steps)

    def check(self, train: int, validation: int) -> None:
        """As `Optimizer.check`."""
        super().check(train, validation)
        for step in self._steps:
            step.check(train, validation)

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        estimates = [step.estimate(train, validation, predictors) for step in self._steps]
        between = (len(self._steps) + 1) * validation
        of_steps = " ".join(f"{s.name}: {e.explanation}" for s, e in zip(self._steps, estimates, strict=True))
        return Estimate(
            between + sum(e.program_runs for e in estimates),
            sum(e.prompt_calls for e in estimates),
            f"{between} runs on dev between the steps. {of_steps}",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        teleprompters = {
            name: step.teleprompter(task, watch) for name, step in zip(self._names, self._steps, strict=True)
        }
        return _BetterTogether(metric=task.metric, **teleprompters)

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {
            "valset": list(task.validation),
            "num_threads": task.threads,
            "seed": task.seed,
            "shuffle_trainset_between_steps": self._set.shuffle_trainset_between_steps,
            "strategy": dspy.BetterTogether.STRAT_SEP.join(self._names),
            "optimizer_compile_args": {
                name: step.arguments(task) for name, step in zip(self._names, self._steps, strict=True)
            },
        }

    def student(self, task: CompileTask) -> dspy.Module:
        """The program with the task model in each predictor, without which DSPy refuses to chain."""
        program = super().student(task)
        program.set_lm(task.task_model)
        return program

    @property
    def _names(self) -> list[str]:
        return [f"{number}_{step.name}" for number, step in enumerate(self._steps, start=1)]


class _BetterTogether(dspy.BetterTogether):  # type: ignore[misc]
    """Lets the error of a step out, where DSPy's logs it and returns as if the chain were at its end."""

    def _run_and_evaluate_step(self, *args: Any, **named: Any) -> Any:
        try:
            return super()._run_and_evaluate_step(*args, **named)
        except Exception as error:
            raise StoppedError(error) from error

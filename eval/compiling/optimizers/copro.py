"""COPRO: instructions by coordinate ascent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import dspy
from pydantic import Field

from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, Estimate


class COPROSettings(OptimizerSettings):
    """Over 80 train questions, budgets run a program with one predictor 480, 800 or 2,400 times, one with two three
    times as often (or four, heavy): each combination of what was proposed for one is evaluated with what was best for
    the other.
    """

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"breadth": 3, "depth": 2},
        "medium": {"breadth": 5, "depth": 2},
        "heavy": {"breadth": 10, "depth": 3},
    }

    breadth: int = Field(3, ge=2)
    depth: int = Field(2, ge=1)
    init_temperature: float = Field(1.4, ge=0)


class COPRO(DSPyOptimizer[COPROSettings]):
    """Proposes instructions from the ones that did best, and scores them on train."""

    name = "COPRO"
    validates = False

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        breadth, depth = self._set.breadth, self._set.depth
        # With several predictors, everything proposed for one before is evaluated again.
        rounds = depth if predictors == 1 else depth * (depth + 1) // 2
        evaluations = predictors * breadth * rounds
        # A language model is asked once for each of the proposals of a round; the seed's is the first round's last.
        proposals = predictors * (breadth * depth - 1)
        return Estimate(
            evaluations * train,
            proposals,
            f"{evaluations} evaluations on {train} train questions; {proposals} proposals of instructions.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.COPRO(
            # It draws nothing itself. Samples of the model are told apart by the seed.
            prompt_model=task.prompt_model.copy(rollout_id=task.seed),
            metric=task.metric,
            **self._set.model_dump(exclude={"budget"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"eval_kwargs": {"num_threads": task.threads, "display_progress": False}}

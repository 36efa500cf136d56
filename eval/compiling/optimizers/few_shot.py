"""Optimizers that choose demonstrations, in the place of those that the seed has, and leave the instructions alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import dspy
from pydantic import Field

from eval.compiling.optimizers.demonstrations import demonstrates
from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.preparing import teaching
from eval.compiling.optimizers.settings import DemonstrationSettings, OptimizerSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, Estimate
from retrieval.errors import ConfigurationError


class LabeledFewShotSettings(OptimizerSettings):
    """4, 8 or 16 demonstrations by budget. No program runs."""

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"k": 4},
        "medium": {"k": 8},
        "heavy": {"k": 16},
    }

    k: int = Field(4, ge=1)


class LabeledFewShot(DSPyOptimizer[LabeledFewShotSettings]):
    """`k` labelled examples as demonstrations, drawn by the seed. Asks nothing."""

    name = "LabeledFewShot"
    validates = False

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        return Estimate(0, 0, "Labelled examples are taken as they are; nothing is asked.")

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.LabeledFewShot(k=self._set.k)

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {}

    def training_examples(self, task: CompileTask) -> list[dspy.Example]:
        """Those that are a demonstration for some predictor; raises ConfigurationError if none is."""
        complete = [example for example in task.train if demonstrates(example, task.program)]
        if not complete:
            raise ConfigurationError(
                f"{self.name} takes answered examples as demonstrations, and none of the {len(task.train)} train "
                "questions has an expected answer that its passages hold. Add expected_response to them, or use "
                "BootstrapFewShot, which makes its demonstrations itself."
            )
        return complete


class BootstrapFewShotSettings(DemonstrationSettings):
    """Over 80 train questions, light and medium run the program at most 80 times, heavy 160 times."""

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {},
        "medium": {"max_bootstrapped_demos": 6, "max_labeled_demos": 8},
        "heavy": {"max_bootstrapped_demos": 8, "max_labeled_demos": 16, "max_rounds": 2},
    }

    max_bootstrapped_demos: int = Field(4, ge=1)


class BootstrapFewShot(DSPyOptimizer[BootstrapFewShotSettings]):
    """Demonstrations from what the teacher answers well, filled up with labelled examples."""

    name = "BootstrapFewShot"
    validates = False

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        runs = train * self._set.max_rounds
        return Estimate(
            runs,
            0,
            f"The teacher answers train questions, each up to {self._set.max_rounds} times, until "
            f"{self._set.max_bootstrapped_demos} are good: at most {runs}.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.BootstrapFewShot(
            metric=task.metric,
            teacher_settings=teaching(task).settings,
            **self._set.model_dump(exclude={"budget"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"teacher": teaching(task).program}


class RandomSearchSettings(DemonstrationSettings):
    """Over 80 dev questions, budgets run the program 640, 1,040 or 1,520 times, and to bootstrap on train besides."""

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"num_candidate_programs": 5},
        "medium": {"num_candidate_programs": 10},
        "heavy": {"num_candidate_programs": 16, "max_labeled_demos": 8},
    }

    max_bootstrapped_demos: int = Field(4, ge=1)
    num_candidate_programs: int = Field(5, ge=1)
    stop_at_score: float | None = Field(None, gt=0, le=100, description="percent of the metric")


class BootstrapFewShotWithRandomSearch(DSPyOptimizer[RandomSearchSettings]):
    """Several sets of demonstrations, the best on dev."""

    name = "BootstrapFewShotWithRandomSearch"

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        candidates = self._set.num_candidate_programs
        evaluating = (candidates + 3) * validation
        bootstrapping = (candidates + 1) * train * self._set.max_rounds
        return Estimate(
            evaluating + bootstrapping,
            0,
            f"{candidates + 3} programs (zero-shot, labelled, bootstrapped in order, {candidates} shuffled) on "
            f"{validation} dev questions: {evaluating}; to bootstrap, at most {bootstrapping} more on train.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.BootstrapFewShotWithRandomSearch(
            metric=task.metric,
            teacher_settings=teaching(task).settings,
            num_threads=task.threads,
            **self._set.model_dump(exclude={"budget"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"teacher": teaching(task).program, "valset": list(task.validation)}

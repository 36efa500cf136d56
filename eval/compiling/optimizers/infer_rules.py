"""InferRules: demonstrations, and rules that are read out of the training examples."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import dspy
from pydantic import Field

from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.preparing import teaching
from eval.compiling.optimizers.settings import DemonstrationSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, Estimate


class InferRulesSettings(DemonstrationSettings):
    """Over 80 dev questions, budgets run the program 240, 480 or 800 times, and to bootstrap on train besides."""

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"num_candidates": 3},
        "medium": {"num_candidates": 6},
        "heavy": {"num_candidates": 10},
    }

    max_bootstrapped_demos: int = Field(4, ge=1)
    num_candidates: int = Field(3, ge=1)
    num_rules: int = Field(10, ge=1)


class InferRules(DSPyOptimizer[InferRulesSettings]):
    """Has the prompt model read rules out of all training examples, several times, and keeps those best on dev."""

    name = "InferRules"

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        candidates = self._set.num_candidates
        evaluating, bootstrapping = candidates * validation, train * self._set.max_rounds
        return Estimate(
            evaluating + bootstrapping,
            candidates * predictors,
            f"{candidates} candidates on {validation} dev questions: {evaluating} runs; to bootstrap, at most "
            f"{bootstrapping} more on train; {candidates * predictors} calls for rules, each with all train questions.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        optimizer = _InferRules(
            metric=task.metric,
            teacher_settings=teaching(task).settings,
            num_threads=task.threads,
            **self._set.model_dump(exclude={"budget"}),
        )
        # DSPy has the teacher write the rules, with samples that are always the same.
        optimizer.rules_induction_program.teacher_settings = {"lm": task.prompt_model}
        optimizer.rules_induction_program.rng = random.Random(task.seed)
        return optimizer

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"teacher": teaching(task).program, "valset": list(task.validation)}


class _InferRules(dspy.InferRules):  # type: ignore[misc]
    """Gives each candidate a signature of its own.

    DSPy's writes the rules into the class that the candidates, and the seed, have in common: its best candidate
    leaves with the rules of the last.
    """

    def update_program_instructions(self, predictor: dspy.Predict, natural_language_rules: str) -> None:
        predictor.signature = predictor.signature.with_instructions(predictor.signature.instructions)
        super().update_program_instructions(predictor, natural_language_rules)

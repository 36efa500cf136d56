"""GEPA: instructions that evolve by reflection on feedback."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import dspy
from pydantic import Field, model_validator

from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, Estimate
from retrieval.errors import ConfigurationError

_FULL_EVALS_BY_BUDGET = {"light": 4, "medium": 8, "heavy": 15}
_MERGED_ON = 5
"""Dev examples that a merged program is tried on."""


class GEPASettings(OptimizerSettings):
    """With 80 train and 80 dev questions, budgets run the program 640, 1,280 or 2,400 times.

    A budget is 4, 8 or 15 full evaluations of train and dev. `max_full_evals` states another number of them, or
    `max_metric_calls` how many runs there may be; the iteration in which they are reached is completed.
    """

    max_full_evals: int | None = Field(None, ge=1)
    max_metric_calls: int | None = Field(None, ge=1)
    reflection_minibatch_size: int = Field(3, ge=1)
    candidate_selection_strategy: Literal["pareto", "current_best"] = "pareto"
    component_selector: Literal["round_robin", "all"] = "round_robin"
    skip_perfect_score: bool = True
    add_format_failure_as_feedback: bool = False
    use_merge: bool = True
    max_merge_invocations: int = Field(5, ge=0)

    @model_validator(mode="after")
    def _has_one_limit(self) -> GEPASettings:
        if self.max_full_evals is not None and self.max_metric_calls is not None:
            raise ValueError(
                "max_full_evals and max_metric_calls both say how much is run. State one of them"
            )
        return self

    def metric_calls(self, train: int, validation: int) -> int:
        """How often the program may be run."""
        full = self.max_full_evals or _FULL_EVALS_BY_BUDGET[self.budget]
        return self.max_metric_calls or full * (train + validation)


class GEPA(DSPyOptimizer[GEPASettings]):
    """Has the prompt model rewrite instructions from feedback on train, and keeps what is best on parts of dev."""

    name = "GEPA"

    def check(self, train: int, validation: int) -> None:
        """As `Optimizer.check`."""
        super().check(train, validation)
        if find_spec("gepa") is None:
            raise ConfigurationError("GEPA needs the package gepa, which is not installed: pip install gepa")
        calls = self._set.metric_calls(train, validation)
        if calls <= validation:
            raise ConfigurationError(
                f"GEPA: the {calls} metric calls that it may make are spent when the seed is evaluated on the "
                f"{validation} dev questions. Set max_metric_calls to several times that, or use fewer dev questions."
            )

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        limit, batch = self._set.metric_calls(train, validation), self._set.reflection_minibatch_size
        last_iteration = validation + max(2 * batch, _MERGED_ON if self._set.use_merge else 0)
        runs = limit - 1 + last_iteration
        # A proposal is made of a batch's answers, and then tried on the batch.
        proposals = -(-(limit - validation) // (2 * batch))
        calls = proposals * (predictors if self._set.component_selector == "all" else 1)
        return Estimate(
            runs,
            calls,
            f"{limit} runs, and at most {last_iteration - 1} more to complete the iteration in which they are reached; "
            f"at most {calls} calls for reflection.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.GEPA(
            metric=task.metric,
            max_metric_calls=self._set.metric_calls(len(task.train), len(task.validation)),
            reflection_lm=task.prompt_model,
            num_threads=task.threads,
            track_stats=True,
            seed=task.seed,
            **self._set.model_dump(exclude={"budget", "max_full_evals", "max_metric_calls"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"valset": list(task.validation)}

"""MIPROv2: instructions and demonstrations, proposed and then searched together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import dspy
from pydantic import Field, model_validator

from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.preparing import teaching
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, Estimate
from retrieval.errors import ConfigurationError

_WHOLE_UP_TO = 50
"""Dev sets of this size are evaluated whole in each trial, as DSPy's own budgets have it."""

_MOST_BATCHES_OF_DATA = 9
"""Of train, that the data summary is made of besides the first."""


class MIPROv2Settings(OptimizerSettings):
    """Over 80 dev questions, budgets run the program 740, 1,355 or 2,120 times, and to bootstrap on train besides.

    With both numbers of demonstrations 0, only instructions are optimized. `minibatch`, where it is not stated, is on
    for dev sets of more than 50 questions.
    """

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"num_candidates": 6, "num_trials": 12},
        "medium": {"num_candidates": 12, "num_trials": 25},
        "heavy": {"num_candidates": 18, "num_trials": 40},
    }

    num_candidates: int = Field(6, ge=2)
    num_trials: int = Field(12, ge=1)
    max_bootstrapped_demos: int = Field(4, ge=0)
    max_labeled_demos: int = Field(4, ge=0)
    metric_threshold: float | None = None
    init_temperature: float = Field(1.0, ge=0)
    minibatch: bool | None = None
    minibatch_size: int = Field(35, ge=1)
    minibatch_full_eval_steps: int = Field(5, ge=1)
    program_aware_proposer: bool = True
    data_aware_proposer: bool = True
    tip_aware_proposer: bool = True
    fewshot_aware_proposer: bool = True
    view_data_batch_size: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _bootstraps_or_shows_nothing(self) -> MIPROv2Settings:
        if self.max_bootstrapped_demos == 0 and self.max_labeled_demos > 0:
            raise ValueError(
                "max_bootstrapped_demos: 0 needs max_labeled_demos: 0, too: DSPy cannot make sets of labelled "
                "demonstrations alone. Use LabeledFewShot for those"
            )
        return self


class MIPROv2(DSPyOptimizer[MIPROv2Settings]):
    """Proposes instructions from the data, bootstraps demonstrations, and searches for the best pair on dev."""

    name = "MIPROv2"

    def check(self, train: int, validation: int) -> None:
        """As `Optimizer.check`."""
        super().check(train, validation)
        if find_spec("optuna") is None:
            raise ConfigurationError("MIPROv2 needs optuna, which is not installed: pip install optuna")
        if self._uses_minibatches(validation) and self._set.minibatch_size > validation:
            raise ConfigurationError(
                f"MIPROv2: minibatch_size = {self._set.minibatch_size} is more than the {validation} dev questions. "
                f"Set minibatch_size to at most {validation}, or minibatch: false."
            )

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        evaluating = self._evaluation_runs(validation)
        sets = self._bootstrapped_sets()
        calls = self._proposal_calls(train, predictors)
        return Estimate(
            evaluating + sets * train,
            calls,
            f"{self._set.num_trials} trials: {evaluating} runs on dev; to bootstrap {sets} sets of demonstrations, at "
            f"most {sets * train} more on train; {calls} calls to describe data and program and propose instructions.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        chosen = {"num_candidates", "max_bootstrapped_demos", "max_labeled_demos"}
        return _MIPROv2(
            metric=task.metric,
            prompt_model=task.prompt_model,
            task_model=task.task_model,
            teacher_settings=teaching(task).settings,
            auto=None,
            num_threads=task.threads,
            # Here and not in `compile`, which takes a seed of 0 for none.
            seed=task.seed,
            **self._set.model_dump(include=chosen | {"metric_threshold", "init_temperature"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        validation = list(task.validation)
        stated = {"num_trials", "minibatch_size", "minibatch_full_eval_steps", "view_data_batch_size"}
        aware = {name for name in MIPROv2Settings.model_fields if name.endswith("_aware_proposer")}
        return {
            "teacher": teaching(task).program,
            "valset": validation,
            "minibatch": self._uses_minibatches(len(validation)),
            **self._set.model_dump(include=stated | aware),
        }

    def _uses_minibatches(self, validation: int) -> bool:
        stated = self._set.minibatch
        return validation > _WHOLE_UP_TO if stated is None else stated

    def _evaluation_runs(self, validation: int) -> int:
        trials = self._set.num_trials
        if not self._uses_minibatches(validation):
            return (1 + trials) * validation
        full = 1 + -(-trials // self._set.minibatch_full_eval_steps)
        return trials * min(self._set.minibatch_size, validation) + full * validation

    def _bootstrapped_sets(self) -> int:
        # The first is empty, the second labelled; one without labels is bootstrapped, too.
        return self._set.num_candidates - 1 - (self._set.max_labeled_demos > 0)

    def _proposal_calls(self, train: int, predictors: int) -> int:
        batches = -(-train // self._set.view_data_batch_size) - 1
        summary = min(batches, _MOST_BATCHES_OF_DATA) + 2 if self._set.data_aware_proposer else 0
        each = 3 if self._set.program_aware_proposer else 1
        return summary + each * predictors * self._set.num_candidates


class _MIPROv2(dspy.MIPROv2):  # type: ignore[misc]
    """Goes on, where DSPy's raises ValueError, when every combination that was tried has been evaluated in full."""

    def _perform_full_evaluation(
        self,
        trial_num: int,
        adjusted_num_trials: int,
        param_score_dict: dict[str, Any],
        fully_evaled_param_combos: dict[str, Any],
        evaluate: dspy.Evaluate,
        valset: list[dspy.Example],
        trial_logs: dict[int, Any],
        total_eval_calls: int,
        score_data: list[dict[str, Any]],
        best_score: float,
        best_program: dspy.Module,
        *more: Any,
    ) -> tuple[float, dspy.Module, int]:
        if param_score_dict.keys() <= fully_evaled_param_combos.keys():
            return best_score, best_program, total_eval_calls
        return super()._perform_full_evaluation(  # type: ignore[no-any-return]
            trial_num,
            adjusted_num_trials,
            param_score_dict,
            fully_evaled_param_combos,
            evaluate,
            valset,
            trial_logs,
            total_eval_calls,
            score_data,
            best_score,
            best_program,
            *more,
        )

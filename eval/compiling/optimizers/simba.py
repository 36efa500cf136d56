"""SIMBA: rules and demonstrations from where the program's own samples differ most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import dspy
from pydantic import Field

from eval.compiling.feedback import FAILED
from eval.compiling.optimizers.dspy_optimizer import PREDICTORS, DSPyOptimizer
from eval.compiling.optimizers.preparing import teaching
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.watching import Watch
from eval.compiling.task import CompileTask, CompilingMetric, Estimate
from retrieval.errors import ConfigurationError

_WHOLE_PROGRAM = ""
"""In the place of a predictor's name, asks the metric for feedback on the program as a whole."""

_BATCH_BY_BUDGET = {"light": 20, "medium": 24, "heavy": 32}


class SIMBASettings(OptimizerSettings):
    """Over 80 train questions, budgets run the program 600, 1,648 or 3,888 times.

    `bsize`, where it is not stated, is 20, 24 or 32 by budget, or all of a smaller train split.
    """

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "light": {"max_steps": 2, "num_candidates": 4},
        "medium": {"max_steps": 4, "num_candidates": 6},
        "heavy": {"max_steps": 8, "num_candidates": 6},
    }

    bsize: int | None = Field(None, ge=1)
    max_steps: int = Field(2, ge=1)
    num_candidates: int = Field(4, ge=2)
    max_demos: int = Field(4, ge=0)
    demo_input_field_maxlen: int = Field(100_000, ge=1)
    temperature_for_sampling: float = Field(0.2, gt=0)
    temperature_for_candidates: float = Field(0.2, gt=0)

    def batch(self, train: int) -> int:
        """Examples of a step."""
        return self.bsize or min(_BATCH_BY_BUDGET[self.budget], train)


class SIMBA(DSPyOptimizer[SIMBASettings]):
    """Adds a rule or a demonstration at a time, and scores what comes of it on train."""

    name = "SIMBA"
    validates = False

    def check(self, train: int, validation: int) -> None:
        """As `Optimizer.check`."""
        super().check(train, validation)
        if (bsize := self._set.batch(train)) > train:
            raise ConfigurationError(
                f"SIMBA needs at least {bsize} train questions (its bsize), and there are {train}. Add questions to "
                f"the train split, or set bsize to at most {train}."
            )

    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """As `DSPyOptimizer.estimate`."""
        candidates, steps, bsize = self._set.num_candidates, self._set.max_steps, self._set.batch(train)
        each_step = bsize * candidates + bsize * min(candidates + 1, bsize)
        finalists = len({round(place * steps / candidates) for place in range(candidates + 1)})
        advice = steps * min(candidates + 1, bsize)
        return Estimate(
            steps * each_step + finalists * train,
            advice,
            f"{steps} steps of {each_step} runs on train, and {finalists} finalists on all {train} train questions; at "
            f"most {advice} calls for advice.",
        )

    def teleprompter(self, task: CompileTask, watch: Watch) -> Any:
        """DSPy's."""
        return dspy.SIMBA(
            metric=_Observed(task.metric, watch),
            bsize=self._set.batch(len(task.train)),
            prompt_model=task.prompt_model,
            teacher_settings=teaching(task).settings or None,
            num_threads=task.threads,
            **self._set.model_dump(exclude={"budget", "bsize"}),
        )

    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """As `DSPyOptimizer.arguments`."""
        return {"seed": task.seed}


class _Observed:
    """The metric with its feedback, which SIMBA shows to the model that gives advice; `watch` sees the scores.

    SIMBA runs programs without `dspy.Evaluate`: one of its samples answers one example, a candidate all of a batch.
    """

    def __init__(self, metric: CompilingMetric, watch: Watch) -> None:
        self._metric = metric
        self._watch = watch

    def __call__(self, example: dspy.Example, prediction: dspy.Prediction | None) -> Any:
        """The score, with feedback if the metric has it; 0 for an example that failed."""
        said: Any = dspy.Prediction(score=0.0, feedback=FAILED)
        if prediction is not None:
            said = self._metric(example, prediction, None, _WHOLE_PROGRAM)
            # SIMBA shows all of a prediction to the model that gives advice. Of the answer it has the text, and the
            # passages in the trajectory; how long all that took would make each prompt another one.
            del prediction["cited"]
        self._watch.scored(float(said.score if isinstance(said, dspy.Prediction) else said))
        return said

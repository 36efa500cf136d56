"""One of DSPy's optimizers: what they have in common, and how they are run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import dspy
from dspy.teleprompt import Teleprompter
from dspy.utils.exceptions import DSPyError

from eval.compiling.optimizers.preparing import prepare
from eval.compiling.optimizers.quiet import speaking_to_the_log
from eval.compiling.optimizers.settings import OptimizerSettings
from eval.compiling.optimizers.shortlist import Shortlist
from eval.compiling.optimizers.watching import StoppedError, Watch, describe
from eval.compiling.task import CompileTask, Estimate, Keep
from retrieval.errors import ConfigurationError, RunStoppedError

PREDICTORS = 3
"""As many as the program can have that examples ask: one condenses, one rewrites, one answers."""

S = TypeVar("S", bound=OptimizerSettings)


class DSPyOptimizer(ABC, Generic[S]):
    """An `Optimizer` of DSPy's.

    Subclasses say what they need (`check`, `estimate`) and how DSPy's own is made (`teleprompter`) and called
    (`arguments`).
    """

    name: ClassVar[str]
    validates: ClassVar[bool] = True

    def __init__(self, settings: S) -> None:
        self._set = settings

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is set to."""
        return self._set.model_dump(mode="json")

    def check(self, train: int, validation: int) -> None:
        """Raise ConfigurationError if these are too few examples, or something it needs is not there."""
        if train < 1:
            raise ConfigurationError(
                f"{self.name} needs examples to learn from, and there are none. Add questions to the train split."
            )
        if self.validates and validation < 1:
            raise ConfigurationError(
                f"{self.name} needs examples to validate on, and there are none. Add questions to the dev split."
            )

    @abstractmethod
    def estimate(self, train: int, validation: int, predictors: int = PREDICTORS) -> Estimate:
        """What it will ask, at most, when no reply has to be asked for twice.

        `predictors`: those of the program that examples ask.
        """

    @abstractmethod
    def teleprompter(self, task: CompileTask, watch: Watch) -> Teleprompter:
        """DSPy's optimizer. `watch` sees what it evaluates with `dspy.Evaluate`; it is told what else is tried."""

    @abstractmethod
    def arguments(self, task: CompileTask) -> dict[str, Any]:
        """What its `compile` is given besides the program and the training examples."""

    def training_examples(self, task: CompileTask) -> list[dspy.Example]:
        """What it learns from."""
        return list(task.train)

    def student(self, task: CompileTask) -> dspy.Module:
        """The program as its `compile` takes it."""
        return task.program.deepcopy()

    def run(self, task: CompileTask, keep: Keep) -> None:
        """Optimize, handing over the best few programs that were tried, the optimizer's own choice last.

        What ends it early comes out of here after what was tried until then was handed over.

        Raises:
            ConfigurationError: as `check`.
            RunStoppedError: if DSPy cannot go on; says why.
            CiteqaError: the error of ours that a language-model call was refused with.
        """
        self.check(len(task.train), len(task.validation))
        shortlist = Shortlist(task.program)
        ready = prepare(task)
        watch = Watch(ready, shortlist)
        try:
            choice = self._compile(ready, watch)
        except BaseException as error:
            watch.close()
            shortlist.hand_over(keep)
            if (reason := self._reason(error, watch)) is error:
                raise
            raise reason from error
        watch.close()
        shortlist.hand_over(keep, choice)

    def _compile(self, task: CompileTask, watch: Watch) -> dspy.Module:
        with (
            speaking_to_the_log(),
            dspy.context(
                lm=task.task_model,
                num_threads=task.threads,
                # DSPy stops at this number of errors, and not beyond it.
                max_errors=task.max_errors + 1,
                callbacks=[*dspy.settings.callbacks, watch],
                # COPRO prints the last prompt of it, and programs that are copied carry it along.
                disable_history=True,
            ),
        ):
            return self.teleprompter(task, watch).compile(
                self.student(task), trainset=self.training_examples(task), **self.arguments(task)
            )

    def _reason(self, error: BaseException, watch: Watch) -> BaseException:
        """What a person is told in the place of what came out of DSPy."""
        if isinstance(error, StoppedError):
            return self._reason(error.reason, watch)
        if isinstance(error, DSPyError):
            return RunStoppedError(f"{self.name} stopped. {describe(error)}")
        if type(error) is Exception and watch.last_failure is not None:
            # `Evaluate` says only that it was cancelled.
            return RunStoppedError(
                f"{self.name} stopped: too many examples failed. The last: {describe(watch.last_failure)}"
            )
        return error

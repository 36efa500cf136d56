"""What DSPy says of an optimizer at work: which programs it tried, and what made it impossible to go on."""

from __future__ import annotations

import threading
from statistics import mean
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import DSPyError

from eval.compiling.optimizers.demonstrations import keep_complete_demos
from eval.compiling.optimizers.shortlist import Scored, Shortlist
from eval.compiling.task import CompileTask
from program.lm_errors import describe_lm_error
from program.qa import CitedQA
from retrieval.errors import CiteqaError, RunStoppedError

HOPELESS = 20
"""So many language-model calls that fail one after another: not the examples fail, but the provider."""


class StoppedError(BaseException):
    """Out of an optimizer at once, for `reason`.

    Not an Exception, since DSPy takes each of those for a failing example and goes on, through all that is left: SIMBA
    and GEPA to their ends, MIPROv2 with a score of 0.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Watch(BaseCallback):  # type: ignore[misc]
    """Puts each program that DSPy evaluates on a shortlist, and stops DSPy when there is no point in going on.

    That is when a language-model call was refused by an error of ours (a limit, a disk), or when `HOPELESS` of them
    failed one after another. Single failures are DSPy's to count.
    """

    def __init__(self, task: CompileTask, shortlist: Shortlist) -> None:
        self._shortlist = shortlist
        self._validation = {id(example) for example in task.validation}
        self._sizes = {"train": len(task.train), "dev": len(task.validation)}
        self._evaluating: dict[str, tuple[dspy.Module, int, str]] = {}
        self._of_thread = threading.local()
        self._scored: dict[int, tuple[dspy.Module, list[float]]] = {}
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._stopped: StoppedError | None = None
        self.last_failure: Exception | None = None

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember what is evaluated, and have it evaluated as it would be saved."""
        program, devset = inputs["program"], inputs.get("devset") or instance.devset
        keep_complete_demos(program)
        split = "dev" if id(devset[0]) in self._validation else "train"
        with self._lock:
            self._evaluating[call_id] = program, len(devset), split

    def on_evaluate_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """Shortlist the program, if it was evaluated to the end."""
        with self._lock:
            program, examples, split = self._evaluating.pop(call_id)
        if outputs is not None and self._stopped is None:
            self._shortlist.add(program, self._scoring(outputs.score / 100, examples, split))

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Ask nothing more when stopped: threads that DSPy left behind go on calling."""
        if self._stopped is not None:
            raise self._stopped

    def on_lm_end(
        self, call_id: str, outputs: dict[str, Any] | None, exception: BaseException | None = None
    ) -> None:
        """Count failures, and stop where they are no accident."""
        if exception is None:
            self._failed_in_a_row = 0
        elif isinstance(exception, Exception):
            self._failed(exception)
        if self._stopped is not None:
            raise self._stopped

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember which program this thread runs."""
        if isinstance(instance, CitedQA):
            self._of_thread.program = instance

    def on_module_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """Remember why an example failed."""
        if isinstance(exception, Exception):
            self.last_failure = exception

    def scored(self, score: float) -> None:
        """The program that this thread ran last got so much for its answer, not in an evaluation of DSPy's."""
        program = self._of_thread.program
        with self._lock:
            self._scored.setdefault(id(program), (program, []))[1].append(score)

    def close(self) -> None:
        """Shortlist what was `scored` on more than one example."""
        for program, scores in self._scored.values():
            if len(scores) > 1:
                self._shortlist.add(program, self._scoring(mean(scores), len(scores), "train"))
        self._scored.clear()

    def _scoring(self, score: float, examples: int, split: str) -> Scored:
        return Scored(score, examples, split, whole=examples >= self._sizes[split])

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            if ours := _error_of_ours(error):
                self._stopped = self._stopped or StoppedError(ours)
            elif self._failed_in_a_row >= HOPELESS:
                reason = RunStoppedError(
                    f"Stopped: {HOPELESS} language-model calls failed one after another. {describe(error)}"
                )
                self._stopped = self._stopped or StoppedError(reason)


def describe(error: Exception) -> str:
    """One line for people."""
    if isinstance(error, DSPyError):
        return describe_lm_error(error)
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _error_of_ours(error: BaseException | None) -> CiteqaError | None:
    """The error of ours that DSPy wrapped as a failure of the language model, if one is behind it."""
    while error is not None and not isinstance(error, CiteqaError):
        error = error.__cause__ or error.__context__
    return error

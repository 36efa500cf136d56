"""The task as DSPy's optimizers are to see it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import dspy

from eval.compiling.task import CompileTask


def prepare(task: CompileTask) -> CompileTask:
    """The task with its training examples in an order of its seed, and without what no example asks.

    Most of DSPy's optimizers take the first that fit and draw with seeds of their own, always the same (LabeledFewShot
    with 0, BootstrapFewShotWithRandomSearch with 0, 1, 2, …): the order of the examples is where another seed
    comes in. Where no example has a conversation, nothing condenses: the program goes without that predictor, for
    COPRO would evaluate proposals for it, and MIPROv2 ask for them, that no answer depends on.
    """
    train = list(task.train)
    random.Random(task.seed).shuffle(train)
    task = replace(task, train=train, validation=list(task.validation))
    if any(example.get("history") for example in (*task.train, *task.validation)):
        return task
    program = task.program.deepcopy()
    program.condense = None
    teacher = task.teacher
    if teacher is not None:
        teacher = teacher.deepcopy()
        teacher.condense = None
    return replace(task, program=program, teacher=teacher)


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a teacher is told to DSPy: as a program, and as settings with its model.

    Not as a program with its own model: BootstrapFewShot drops that when it gives the teacher labelled examples,
    and with it rounds after the first would not be new samples.
    """

    program: dspy.Module | None
    settings: dict[str, Any]


def teaching(task: CompileTask) -> Teaching:
    """The teacher of a task; nothing where the seed teaches itself."""
    if task.teacher is None:
        return Teaching(None, {})
    program = task.teacher.deepcopy()
    models = [predictor.lm for predictor in task.teacher.predictors() if predictor.lm is not None]
    program.set_lm(None)
    return Teaching(program, {"lm": models[-1].copy()} if models else {})

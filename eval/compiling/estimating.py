"""What compiling will ask and cost, said before anything is asked."""

from __future__ import annotations

import math
from statistics import mean

import dspy

from eval.compiling.optimizers.preparing import prepare
from eval.compiling.results import Plan
from eval.compiling.specification import CompileSpecification
from eval.compiling.splits import Splits
from eval.compiling.task import CompileTask, Optimizer
from program.prices import usd
from program.settings import Settings

_CHARACTERS_PER_TOKEN = 3.5
"""English text; Japanese has more tokens than that. An estimate says that it is one."""

_SAMPLED = 10
_OUTPUT_TOKENS, _PROMPT_TOKENS = 150, 1500
"""What an answer, and a prompt that proposes instructions, are taken to be long."""


def estimate(
    specification: CompileSpecification,
    settings: Settings,
    optimizer: Optimizer,
    splits: Splits,
    task: CompileTask,
) -> Plan:
    """An upper bound of calls, and what they may come to, without asking anything.

    Choosing on `dev` asks what the optimizer has not asked of it; the final check asks the winner and the seed `test`.
    """
    predictors = len(prepare(task).program.predictors())
    asked = optimizer.estimate(len(task.train), len(task.validation), predictors)
    # One that decides on searches may be asked before each of them.
    calls_a_run = predictors + task.program.max_searches - 1
    calls = asked.program_runs * calls_a_run + asked.prompt_calls
    final_calls = 2 * len(splits.test.questions) * calls_a_run
    prompt_tokens = _prompt_tokens(task)
    runs = asked.program_runs * calls_a_run + final_calls
    input_tokens = round(runs * prompt_tokens + asked.prompt_calls * _PROMPT_TOKENS)
    output_tokens = (runs + asked.prompt_calls) * _OUTPUT_TOKENS
    return Plan(
        optimizer=optimizer.name,
        train=len(task.train),
        dev=len(task.validation),
        test=len(splits.test.questions),
        estimate=asked,
        calls=calls,
        final_calls=final_calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        usd=usd({"input_tokens": input_tokens, "output_tokens": output_tokens}, settings.language_model),
    )


def _prompt_tokens(task: CompileTask) -> float:
    """The length of the reader's prompt over a few examples, with as much as it may retrieve."""
    lengths = []
    k = task.program.k * task.program.max_searches
    reader = dict(task.program.named_predictors())["reader.answer"]
    for example in task.train[:: max(1, len(task.train) // _SAMPLED)][:_SAMPLED]:
        passages = task.program.retriever.search(example.question, k, task.program.filters)
        inputs = {"passages": "\n\n".join(p.text for p in passages), "question": example.question}
        messages = dspy.ChatAdapter().format(reader.signature, [], inputs)
        lengths.append(sum(len(str(message["content"])) for message in messages))
    return math.ceil(mean(lengths) / _CHARACTERS_PER_TOKEN) if lengths else 0.0

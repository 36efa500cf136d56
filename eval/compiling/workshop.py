"""The program, the models and the examples that an optimizer works with, made from a specification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import dspy
import mlflow
from mlflow.tracing.provider import is_tracing_enabled

from eval.compiling.examples import to_examples
from eval.compiling.metering import Meter, MeteredEngine
from eval.compiling.metric import build_metric
from eval.compiling.remembering_retriever import RememberingRetriever
from eval.compiling.specification import CompileSpecification, model_settings
from eval.compiling.splits import Splits
from eval.compiling.task import CompileTask
from eval.uris import UriNormalization
from program.assembly import build_program, load_compiled
from program.content_store import ContentStore
from program.language_models import build_lm
from program.qa import CitedQA
from program.rate_limit import limiter_for
from program.retrievers import open_retriever
from program.settings import LanguageModelSettings, Settings
from retrieval.errors import ConfigurationError
from retrieval.types import CorpusRetriever

MAX_ERRORS = 1_000_000
"""DSPy stops everything at a number of errors. Ours are counted, and stopped by the share of them that is borne."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What compiling needs. `retriever` remembers what was searched for."""

    task: CompileTask
    retriever: RememberingRetriever
    left_out: int


def require_language_model(settings: Settings) -> None:
    """Raise ConfigurationError unless a language model answers: without one there is no prompt to improve."""
    if not settings.answers_with_lm:
        raise ConfigurationError(
            "Compiling improves prompts, and no language model is configured. Set language_model.model (for example "
            "openai/gpt-4o-mini) and its API key in the environment; reader.kind must be auto or lm."
        )


@contextmanager
def open_workshop(
    specification: CompileSpecification,
    settings: Settings,
    splits: Splits,
    store: ContentStore,
    meter: Meter,
    place: str,
) -> Iterator[Workshop]:
    """Everything ready to optimize; within, DSPy's current model is the one that answers, and nothing is traced.

    Raises:
        ConfigurationError: if no language model is configured, or a model's settings do not fit.
        IndexMissingError, IndexUnusableError: if the index cannot be used.
    """
    require_language_model(settings)
    answering = settings.language_model
    found = open_retriever(settings)
    retriever = RememberingRetriever(found)
    lm_of = partial(_build, store=store, meter=meter)
    task_model = lm_of(answering)
    prompting = model_settings(answering, specification.prompt_model, f"{place}: prompt_model")
    teaching = model_settings(answering, specification.teacher_model, f"{place}: teacher_model")
    program = _program(settings, found)
    program.retriever = retriever
    teacher = None
    if specification.teacher_model is not None:
        teacher = program.deepcopy()
        teacher.set_lm(lm_of(teaching))
    was_tracing = is_tracing_enabled()
    mlflow.tracing.disable()
    try:
        with dspy.context(lm=task_model, adapter=program.adapter, max_errors=MAX_ERRORS):
            normalization = UriNormalization(**settings.evaluation.uris.model_dump())
            metric = build_metric(specification.mix, normalization, answering, program)
            examples = partial(
                to_examples, program=program, applies=metric.applies, normalization=normalization
            )
            train = examples(splits.train.questions, demonstrate=True)
            dev = examples(splits.dev.questions, demonstrate=False)
            task = CompileTask(
                program=program,
                metric=metric,
                train=train,
                validation=dev,
                task_model=task_model,
                prompt_model=lm_of(prompting),
                teacher=teacher,
                threads=settings.evaluation.threads,
                seed=specification.seed,
                max_errors=MAX_ERRORS,
            )
            asked = len(splits.train.questions) + len(splits.dev.questions)
            yield Workshop(task, retriever, asked - len(train) - len(dev))
    finally:
        if was_tracing:
            # Not `enable`, which opens the tracking store at once, wherever MLflow happens to point.
            mlflow.tracing.reset()  # type: ignore[no-untyped-call]


def _program(settings: Settings, retriever: CorpusRetriever) -> CitedQA:
    """The seed, with whatever was compiled before; its predictors take DSPy's current language model."""
    program = build_program(settings, retriever)
    load_compiled(program, settings)
    program.set_lm(None)
    # A fallback would hide that the model failed.
    program.fallback = None
    return program


def _build(settings: LanguageModelSettings, *, store: ContentStore, meter: Meter) -> dspy.LM:
    return build_lm(
        settings,
        record_in=store,
        limiter=limiter_for(settings),
        wrap=lambda engine: MeteredEngine(engine, meter, settings),
    )

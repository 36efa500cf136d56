"""Settings become a program: open the index, choose the reader, load what was compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import dspy

from program.calibration import Calibration
from program.content_store import ContentStore
from program.embedding import open_configured_embedder
from program.extractive import ExtractiveReader, ExtractiveSettings, Weigh
from program.language_models import build_adapter, build_lm
from program.program_sources import locate_state
from program.qa import CitedQA
from program.rate_limit import limiter_for
from program.react import ReActQA
from program.readers import LMReader
from program.retrievers import open_retriever
from program.settings import Settings
from program.state import load_state
from retrieval.errors import ConfigurationError
from retrieval.types import CorpusRetriever, Filters, Passage

DEFAULT_PROGRAM = "default"


def build_programs(
    settings: Settings,
    retriever: CorpusRetriever | None = None,
    *,
    record_in: ContentStore | None = None,
    limit_rate: bool = False,
) -> dict[str, CitedQA]:
    """Every program that a request can ask for by name; `default` is always there.

    `retriever`, `record_in` and `limit_rate` are as `build_program` takes them; by default, it is opened.

    Raises:
        IndexMissingError, IndexUnusableError: if the index cannot be opened, or searched as configured.
        ConfigurationError: if a language model is needed and none is named, or another model is not there.
        ProgramStateError: if a compiled program does not fit.
    """
    build = partial(
        build_program,
        settings,
        retriever or open_retriever(settings),
        record_in=record_in,
        limit_rate=limit_rate,
    )
    programs = {DEFAULT_PROGRAM: build()}
    for name in settings.program.states:
        programs[name] = build()
        load_compiled(programs[name], settings, name)
    return programs


def load_compiled(program: CitedQA, settings: Settings, name: str = DEFAULT_PROGRAM) -> None:
    """Load into the program what was compiled under a name, wherever that is; nothing where nothing was.

    Raises:
        ProgramStateError: if it is not there, or does not fit.
        StorageError: if MLflow has it and cannot be reached.
    """
    if (source := settings.program.states.get(name)) is not None:
        load_state(program, locate_state(source, settings.tracking.uri), origin=source)


def program_as_written() -> ReActQA:
    """Every predictor that a program can have, with the prompts of the code. For comparing; it cannot answer."""
    lm = dspy.LM("none/none")
    return ReActQA(_NoDocuments(), LMReader(), condense_with=lm, rewrite_with=lm)


def build_program(
    settings: Settings,
    retriever: CorpusRetriever,
    *,
    record_in: ContentStore | None = None,
    limit_rate: bool = False,
) -> CitedQA:
    """The program as configured, before anything compiled is loaded into it.

    `retriever` is what `open_retriever` gives; an index by itself is searched by words alone.
    For work that asks many questions: language-model calls are made once and kept in `record_in`, and with
    `limit_rate` they wait where the provider is busy, with all others of this process.
    """
    _check_kind(settings)
    extractive = extractive_reader(settings, retriever.idf)
    if not settings.answers_with_lm:
        return CitedQA(retriever, extractive, k=settings.retrieval.k, filters=settings.retrieval.filters)
    limiter = limiter_for(settings.language_model) if limit_rate else None
    lm = build_lm(settings.language_model, record_in=record_in, limiter=limiter)
    return _kind(settings, lm)(
        retriever,
        LMReader(lm),
        k=settings.retrieval.k,
        filters=settings.retrieval.filters,
        condense_with=lm,
        rewrite_with=lm if settings.program.rewrite_query else None,
        search_question_too=settings.program.search_question_too,
        adapter=build_adapter(settings.language_model),
        fallback=extractive if settings.reader.fallback == "extractive" else None,
    )


def _kind(settings: Settings, lm: dspy.LM) -> Callable[..., CitedQA]:
    program = settings.program
    match program.kind:
        case "fixed":
            return CitedQA
        case "react":
            return partial(
                ReActQA,
                search_with=lm,
                max_searches=program.max_searches,
                max_search_s=program.max_search_s,
                native_tool_calls=program.tool_calls == "native",
            )


def _check_kind(settings: Settings) -> None:
    program = settings.program
    if program.kind != "react":
        return
    if not settings.answers_with_lm:
        raise ConfigurationError(
            "program.kind = react: a language model decides what is searched for, and none answers. Set "
            "language_model.model (and reader.kind to lm or auto), or program.kind to fixed."
        )
    if program.rewrite_query or program.search_question_too:
        raise ConfigurationError(
            "program.kind = react writes its own queries: program.rewrite_query and program.search_question_too "
            "must be false, or program.kind fixed."
        )


def extractive_reader(settings: Settings, weigh: Weigh) -> ExtractiveReader:
    """The reader that needs no language model, as configured; `weigh` gives terms their weights.

    Raises:
        ConfigurationError: if it needs an embedding model or a calibration that is not there.
    """
    wanted = settings.reader.scoring
    embedder = None if wanted == "overlap" else open_configured_embedder(settings.embedder)
    if embedder is None and wanted in ("embedding", "both"):
        raise ConfigurationError(
            f"reader.scoring = {wanted} needs an embedding model. Name one with embedder.model, or set it to overlap."
        )
    calibration = (
        None if settings.reader.calibration is None else Calibration.load(settings.reader.calibration)
    )
    return ExtractiveReader(
        extractive_settings(settings), weigh=weigh, embedder=embedder, calibration=calibration
    )


def extractive_settings(settings: Settings) -> ExtractiveSettings:
    """The extractive reader's part of the settings."""
    reader = settings.reader
    return ExtractiveSettings(
        max_sentences=reader.max_sentences, abstain_below=reader.abstain_below, scoring=reader.scoring
    )


class _NoDocuments:
    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return []

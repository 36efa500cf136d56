"""Settings become a program: open the index, choose the reader, load what was compiled."""

from __future__ import annotations

from program.extractive import ExtractiveReader, ExtractiveSettings
from program.language_models import build_adapter, build_lm
from program.qa import CitedQA
from program.readers import LMReader
from program.settings import Settings
from program.state import load_state
from retrieval.local_index import LocalIndex

DEFAULT_PROGRAM = "default"


def build_programs(settings: Settings) -> dict[str, CitedQA]:
    """Every program that a request can ask for by name; `default` is always there.

    Raises:
        IndexMissingError, IndexUnusableError: if the index cannot be opened.
        ConfigurationError: if a language model is needed and none is named.
        ProgramStateError: if a compiled program does not fit.
    """
    retriever = LocalIndex.open(settings.retrieval.index)
    programs = {DEFAULT_PROGRAM: build_program(settings, retriever)}
    for name, path in settings.program.states.items():
        programs[name] = build_program(settings, retriever)
        load_state(programs[name], path)
    return programs


def build_program(settings: Settings, retriever: LocalIndex) -> CitedQA:
    """The program as configured, before anything compiled is loaded into it."""
    extractive = ExtractiveReader(extractive_settings(settings), weigh=retriever.idf)
    if not settings.answers_with_lm:
        return CitedQA(retriever, extractive, k=settings.retrieval.k, filters=settings.retrieval.filters)
    lm = build_lm(settings.language_model)
    return CitedQA(
        retriever,
        LMReader(lm),
        k=settings.retrieval.k,
        filters=settings.retrieval.filters,
        condense_with=lm,
        adapter=build_adapter(settings.language_model),
        fallback=extractive if settings.reader.fallback == "extractive" else None,
    )


def extractive_settings(settings: Settings) -> ExtractiveSettings:
    """The extractive reader's part of the settings."""
    reader = settings.reader
    return ExtractiveSettings(max_sentences=reader.max_sentences, abstain_below=reader.abstain_below)

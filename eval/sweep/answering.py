"""Answer questions with a configuration, through what its stages have kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import mlflow

from eval.answering import read_response, to_request
from eval.evidence import without_repeats
from eval.questions import Question
from eval.records import AnswerRecord, Retrieved
from eval.run_identity import code_hash
from eval.sweep.searches import RecentSearches, RecordedRetriever, noting_evidence
from eval.traces import collect_traces
from program.agent import CitingAgent
from program.assembly import build_program, load_compiled
from program.call_notes import noting_calls
from program.content_store import ContentStore
from program.recorded_calls import asking_anew
from program.responses import render_response
from program.retrievers import open_retriever
from program.settings import Settings
from program.threads import map_in_threads
from retrieval.errors import CiteqaError
from retrieval.tracing import in_current_trace

_ITEM_ID = "msg"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question.

    Attributes:
        is_steady: another time would not end otherwise: it did not fail, and nobody else had to answer.
        is_paid: a language model was asked now, and not all of its calls were replayed.
    """

    record: AnswerRecord
    is_steady: bool
    is_paid: bool


class StagedAgent:
    """The agent that the settings describe, its searches and language-model calls recorded.

    It answers as `CiteqaAgent` does, but for the AGENT span: a sweep keeps the evidence of each search once,
    and no trace of each answer. Use as a context manager; many threads may ask.

    Raises:
        CiteqaError: if the index, the language model or a compiled program is not usable.
    """

    def __init__(
        self, settings: Settings, store: ContentStore, depth: int, recent: RecentSearches | None = None
    ) -> None:
        """`depth`: how many passages each search is made for, whatever k is. `recent` is shared between agents."""
        retriever = open_retriever(settings)
        program = build_program(settings, retriever, record_in=store, limit_rate=True)
        load_compiled(program, settings)
        identity = {**retriever.identity, "code": code_hash()}
        self._resources = ExitStack()
        collector = self._resources.enter_context(collect_traces())
        program.retriever = RecordedRetriever(retriever, identity, store, collector, depth, recent)
        self._agent = CitingAgent(program.respond)
        self._asks_model = settings.answers_with_lm
        self._is_warm = False
        # Without a language model nothing is waited for, and threads would only wait for one another.
        self._threads = settings.evaluation.threads if settings.answers_with_lm else 1

    def __enter__(self) -> StagedAgent:
        return self

    def __exit__(self, *error: Any) -> None:
        self._resources.close()

    def answer(self, question: Question) -> Outcome:
        """What became of a question; one that fails says why, and raises nothing."""
        started = time.perf_counter()
        try:
            with (
                mlflow.tracing.context(enabled=False),
                noting_evidence() as evidence,
                noting_calls() as noted,
            ):
                cited = self._agent.respond(to_request(question))
        except CiteqaError as error:
            return Outcome(AnswerRecord(id=question.id, error=str(error)), False, False)
        except Exception as error:  # noqa: BLE001 - whatever the program raised: the reason of this question
            return Outcome(AnswerRecord(id=question.id, error=repr(error)), False, False)
        latency_ms = round(noted.would_take_ms(1000 * (time.perf_counter() - started)), 3)
        retrieved = tuple(
            Retrieved(doc_uri=e.doc_uri, chunk_id=e.chunk_id, score=e.score)
            for e in without_repeats(evidence)
        )
        said = read_response(render_response(cited, _ITEM_ID))
        calls = noted.calls or None
        record = AnswerRecord(id=question.id, latency_ms=latency_ms, retrieved=retrieved, calls=calls, **said)
        return Outcome(record, not cited.fallback_reason, noted.calls > noted.replayed)

    def answer_all(
        self,
        questions: Sequence[Question],
        before_asking: Callable[[], None] = lambda: None,
        anew: Set[str] = frozenset(),
    ) -> Iterator[Outcome]:
        """Each question's outcome as it becomes known.

        `before_asking` is called before each; what it raises is raised here, after the outcomes of the questions
        that are under way then. Of the questions whose ids are in `anew`, no language-model call is replayed.
        """

        def ask(question: Question) -> Outcome:
            before_asking()
            with asking_anew() if question.id in anew else nullcontext():
                return self.answer(question)

        self._warm_up(questions[0])
        if self._threads == 1:
            return map(ask, questions)
        return map_in_threads(in_current_trace(ask), questions, threads=self._threads, name="citeqa-sweep")

    def _warm_up(self, question: Question) -> None:
        """What a process does at its first answer only (compiling, opening) is no part of any answer's time.

        A language model is not asked for that: it would be paid.
        """
        if not self._is_warm and not self._asks_model:
            self.answer(question)
        self._is_warm = True

"""The program: make a follow-up stand alone, retrieve, read, cite."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import dspy
from dspy.utils.exceptions import DSPyError

from program.lm_errors import describe_lm_error, failure_kind
from program.readers import Reader
from program.signatures import CondenseQuestion, RewriteQuery
from program.streaming import emitting, stop_if_abandoned, watching_emits
from program.types import CitedAnswer, Emit, Message, ToolStep, Turn
from retrieval.errors import LanguageModelError, RequestError
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage, Retriever

HISTORY_MESSAGES = 8
"""How many of the latest messages a follow-up question is read against."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was searched for and found; `steps` are the tools that a model called to that end."""

    queries: Sequence[str]
    passages: Sequence[Passage]
    steps: tuple[ToolStep, ...] = ()


class CitedQA(dspy.Module):  # type: ignore[misc]
    """Answers questions from retrieved passages, with verified citations.

    `respond` is the way in for an agent; called as a DSPy module it suits DSPy's optimizers and
    evaluators. With a language model to condense with, a follow-up is rewritten to stand alone; without
    one, the search is for the question before it and the follow-up together. With one to rewrite with, the
    search is for the query that it makes of the question, or for several, one a line.
    """

    max_searches = 1
    """How many searches an answer may take, each of which a model may be asked for."""

    def __init__(
        self,
        retriever: Retriever,
        reader: Reader,
        *,
        k: int = 5,
        filters: Filters | None = None,
        condense_with: dspy.LM | None = None,
        rewrite_with: dspy.LM | None = None,
        search_question_too: bool = False,
        adapter: dspy.Adapter | None = None,
        fallback: Reader | None = None,
    ) -> None:
        """`fallback` answers when a language model fails before any of its answer was heard.

        With `search_question_too`, the question is searched for beside what `rewrite_with` makes of it.
        """
        super().__init__()
        self.retriever = retriever
        self.reader = reader
        self.k = k
        self.filters = filters
        self.adapter = adapter or dspy.ChatAdapter()
        self.fallback = fallback
        self.search_question_too = search_question_too
        self.condense: dspy.Predict | None = None
        if condense_with is not None:
            self.condense = dspy.Predict(CondenseQuestion)
            self.condense.set_lm(condense_with)
        self.rewrite: dspy.Predict | None = None
        if rewrite_with is not None:
            self.rewrite = dspy.Predict(RewriteQuery)
            self.rewrite.set_lm(rewrite_with)

    @property
    def writes_queries(self) -> bool:
        """Whether a prompt writes what is searched for."""
        return self.rewrite is not None

    def respond(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        """The answer to one turn; an `Answerer`.

        Raises:
            RequestError: if the question is empty.
            RetrievalError: if the search cannot be done.
            LanguageModelError: if the language model fails; what was emitted before stays said.
        """
        if not turn.question.strip():
            raise RequestError("The question is empty. Ask something.")
        try:
            with emitting(emit):
                prediction = self(
                    question=turn.question, history=turn.history, k=turn.k, filters=turn.filters
                )
        except DSPyError as error:
            raise LanguageModelError(describe_lm_error(error), failure_kind(error)) from error
        answer: CitedAnswer = prediction.cited
        return answer

    def forward(
        self,
        question: str,
        history: Sequence[Message] = (),
        k: int | None = None,
        filters: Filters | None = None,
    ) -> dspy.Prediction:
        """A prediction with `answer` (text) and `cited` (the `CitedAnswer`)."""
        clock = Clock()
        # Stated here because DSPy's default adapter is about to change, and streaming depends on it.
        with dspy.context(adapter=self.adapter), dspy.track_usage() as usage:
            query = self._standalone(question, history[-HISTORY_MESSAGES:])
            clock.lap("condense")
            both = {**(self.filters or {}), **(filters or {})}
            found = self._find(query, k or self.k, both or None, clock)
            clock.lap("retrieve")
            stop_if_abandoned()
            answer = self._read(query, found.passages)
            clock.lap("read")
        tokens = _total_tokens(usage.get_total_tokens())
        answer = replace(
            answer,
            query="\n".join(found.queries),
            steps=found.steps,
            usage=tokens,
            timings_ms=clock.laps_ms,
        )
        return dspy.Prediction(answer=answer.text, cited=answer)

    def _find(self, question: str, k: int, filters: Filters | None, clock: Clock) -> Found:
        """What there is to answer from; where it is looked for in another way, this is what differs."""
        queries = [question]
        if self.rewrite is not None:
            queries = self._rewritten(self.rewrite, question)
            clock.lap("rewrite")
        return Found(queries, traced_search(self.retriever, queries, k, filters))

    def _standalone(self, question: str, history: Sequence[Message]) -> str:
        if not history:
            return question
        if self.condense is None:
            return _with_previous(question, history)
        try:
            prediction = self.condense(conversation=format_history(history), question=question)
        except DSPyError:
            # The reader asks the same model: if it fails there too, the answer says so.
            if self.fallback is None:
                raise
            return _with_previous(question, history)
        return str(prediction.standalone_question).strip() or question

    def _rewritten(self, rewrite: dspy.Predict, question: str) -> list[str]:
        """What is searched for: each line that the model writes, the question before them where it is wanted."""
        try:
            lines = [line.strip() for line in str(rewrite(question=question).search_query).splitlines()]
        except DSPyError:
            # The question finds something, too, and the fallback can answer from it.
            if self.fallback is None:
                raise
            return [question]
        queries = [line for line in dict.fromkeys(lines) if line]
        if self.search_question_too or not queries:
            queries = [question, *(line for line in queries if line != question)]
        return queries

    def _read(self, query: str, passages: Sequence[Passage]) -> CitedAnswer:
        if self.fallback is None:
            return self.reader(query, passages)
        with watching_emits() as emitted:
            try:
                return self.reader(query, passages)
            except DSPyError as error:
                if emitted():
                    raise
                return replace(self.fallback(query, passages), fallback_reason=describe_lm_error(error))


def _with_previous(question: str, history: Sequence[Message]) -> str:
    """A search for the question before and the follow-up together, where nothing can rewrite it."""
    previous = next((m.text for m in reversed(history) if m.role == "user"), "")
    return f"{previous}\n{question}".strip()


class Clock:
    """Milliseconds between calls of `lap`, by name."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """What passed since the last lap, or the beginning, was `name`'s."""
        now = time.perf_counter()
        self.laps_ms[name] = round(1000 * (now - self._last), 3)
        self._last = now


def format_history(history: Sequence[Message]) -> str:
    """The conversation as the condensing prompt shows it, oldest message first."""
    return "\n".join(f"{message.role}: {message.text}" for message in history)


def _total_tokens(by_model: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for counts in by_model.values():
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            value = counts.get(name)
            totals[name] = totals.get(name, 0) + (value if isinstance(value, int) else 0)
    return totals

"""The agentic program: the language model decides what is searched for, how often, and when it is enough."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from copy import copy
from typing import Any

import dspy
import mlflow
from dspy.utils.exceptions import AdapterParseError, DSPyError
from mlflow.entities import SpanType

from program.lm_errors import describe_lm_error
from program.qa import CitedQA, Clock, Found
from program.readers import Reader
from program.research import FINISH, SEARCH, TOOLS, Research
from program.signatures import DecideSearches
from program.streaming import stop_if_abandoned
from retrieval.tracing import SPAN_NAME, to_span_document, traced_search
from retrieval.types import Filters, Passage, Retriever

logger = logging.getLogger(__name__)

SEARCH_SPAN = "search"


class ReActQA(CitedQA):
    """Answers as `CitedQA` does, from what a language model found by searching: reasoning and acting in turns.

    The retriever is its tool. Each turn it reads what was found so far and calls for more searches, or finishes;
    then the reader reads all passages, once. It chooses the words of a search and nothing else: how many passages
    one finds and the filters are the request's, so that no prompt can widen what may be seen.

    One RETRIEVER span named `retrieve` holds all passages, in the order of their numbers, around one named
    `search` for each search: readers of traces that look at one span only, as MLflow's and Databricks' do, see
    everything that the answer rests on.
    """

    def __init__(
        self,
        retriever: Retriever,
        reader: Reader,
        *,
        search_with: dspy.LM | None = None,
        max_searches: int = 5,
        max_search_s: float = 60,
        native_tool_calls: bool = False,
        **more: Any,
    ) -> None:
        """`search_with` decides on searches; `more` is as `CitedQA` takes it.

        After `max_searches` calls, or once `max_search_s` have passed, it answers from what it has found. With
        `native_tool_calls` the model is offered the tools by its provider's function calling; else it writes what it
        wants, which every model can.
        """
        super().__init__(retriever, reader, **more)
        self.max_searches = max_searches
        self.max_search_s = max_search_s
        # A copy, since the other prompts offer no tools; and stated, since adapters differ in their default.
        self._deciding_adapter = copy(self.adapter)
        self._deciding_adapter.use_native_function_calling = native_tool_calls
        # Must call, if only `finish`: what is said in place of a call is in no layout that could be read.
        self._decide_config = {"tool_choice": "required"} if native_tool_calls else {}
        self.decide = dspy.Predict(DecideSearches)
        if search_with is not None:
            self.decide.set_lm(search_with)

    @property
    def writes_queries(self) -> bool:
        """It does: `decide` writes them."""
        return True

    def _find(self, question: str, k: int, filters: Filters | None, clock: Clock) -> Found:
        def search(query: str) -> list[Passage]:
            return traced_search(self.retriever, query, k, filters, name=SEARCH_SPAN)

        research = Research(search, self.max_searches)
        with mlflow.start_span(name=SPAN_NAME, span_type=SpanType.RETRIEVER) as span:
            span.set_inputs({"query": question, "k": k, "filters": dict(filters or {})})
            self._search_until_enough(question, research)
            span.set_outputs([to_span_document(passage) for passage in research.passages])
        return Found(research.queries, research.passages, tuple(research.steps))

    def _search_until_enough(self, question: str, research: Research) -> None:
        until = time.monotonic() + self.max_search_s
        while research.searches_left and time.monotonic() < until:
            stop_if_abandoned()
            calls = self._decided(question, research)
            wanted = [call for call in calls if call.name != FINISH]
            went_on = [research.call(call.name, call.args) for call in wanted[: research.searches_left]]
            if len(wanted) < len(calls) or not any(went_on):
                break  # it finished, or would only repeat itself
        if not research.queries:
            # Every answer rests on a search: without one, what it says could not be verified.
            research.call(SEARCH, {"query": question})

    def _decided(self, question: str, research: Research) -> Sequence[dspy.ToolCalls.ToolCall]:
        """The calls that the model makes now; none when it has finished, or said nothing that can be read."""
        try:
            with dspy.context(adapter=self._deciding_adapter):
                decision = self.decide(
                    question=question,
                    searches=research.describe(),
                    searches_left=research.searches_left,
                    tools=list(TOOLS),
                    config=self._decide_config,
                )
        except AdapterParseError as error:
            logger.warning(
                "The search ends: what the model wants cannot be read. %s", describe_lm_error(error)
            )
            return ()
        except DSPyError:
            # The question finds something, too, and the fallback can answer from it.
            if self.fallback is None:
                raise
            return ()
        return decision.tool_calls.tool_calls if decision.tool_calls else ()

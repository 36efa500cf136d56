"""The retriever over a Databricks Vector Search (AI Search) index."""

from __future__ import annotations

import contextvars
import hashlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from retrieval.ai_search.columns import Columns
from retrieval.ai_search.filters import to_dictionary, to_text
from retrieval.ai_search.index import RemoteIndex, Row
from retrieval.ai_search.plan import Plan, QueryType, SearchSettings, make_plan
from retrieval.ai_search.weights import SampledWeights
from retrieval.analysis import analyze
from retrieval.conditions import read_conditions
from retrieval.errors import CiteqaError, RetrievalError
from retrieval.late_fusion import merge
from retrieval.types import CorpusFacts, Filters, Passage

if TYPE_CHECKING:
    from retrieval.embedders import Embedder

logger = logging.getLogger(__name__)

MOST_RESULTS = {"ann": 10_000, "hybrid": 200, "full_text": 200}
"""What Databricks gives at most to one query of a kind."""

_MODES = {"ann": "dense", "hybrid": "hybrid", "full_text": "lexical"}
_QUERY_CHARACTERS = 30_000
_SEARCHES_AT_ONCE = 8
_FACTS_S = 30.0
_TROUBLE_S = 5.0
_LISTED_ROWS = 10_000
_SCANNED = 100
"""Rows come with their vectors: of 1,024 numbers, a hundred are some megabytes."""


class VectorSearchRetriever:
    """A `CorpusRetriever` over a Vector Search index. Safe to share between threads."""

    def __init__(
        self,
        index: RemoteIndex,
        settings: SearchSettings | None = None,
        *,
        embedder: Embedder | None = None,
        as_user: bool = False,
    ) -> None:
        """Look at the index, and check that it can be searched so.

        `embedder` is the one whose vectors the index holds, where it does not embed by itself. With `as_user`, an index
        that this process may not see is looked at with the first search.

        Raises:
            IndexMissingError: if there is none of this name.
            IndexUnusableError: if it is not ready, lacks a column, or has vectors of another dimension.
            ConfigurationError: if the query needs an embedder and there is none.
            RetrievalError: if it cannot be reached, or one may not see it.
        """
        self._index = index
        self._settings = settings or SearchSettings()
        self._embedder = embedder
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._weights = SampledWeights(index.scan)
        self._facts = CorpusFacts()
        self._facts_until = 0.0
        self._facts_lock = threading.Lock()
        self._as_user = as_user
        if not as_user:
            self._facts = CorpusFacts(passages=self._planned().index.rows)
            self._facts_until = time.monotonic() + _FACTS_S

    def __deepcopy__(self, memo: dict[int, Any]) -> VectorSearchRetriever:
        """Itself: DSPy's optimizers copy programs by the dozen, and its limits are for all of them."""
        return self

    def __repr__(self) -> str:
        return f"VectorSearchRetriever('{self._index.name}')"

    @property
    def content_hash(self) -> str:
        """Equal for equal versions of the table that the index follows, as it was when it was opened.

        A Direct Access index tells no version: there, other passages in place of as many are not noticed.
        """
        plan = self._plan
        known = [plan.index.id, plan.index.version, plan.index.rows] if plan else []
        content = json.dumps(["vector_search", self._index.name, *known])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that a search depends on but query, k and filters."""
        plan = self._plan
        settings = {
            **asdict(self._settings),
            "columns": asdict(plan.columns if plan else self._settings.columns),
        }
        query_type = plan.query_type if plan else self._settings.query_type
        embedder = self._embedder if plan is None or plan.sends_vector else None
        return {
            "index": self.content_hash,
            **settings,
            "query_type": query_type,
            "mode": _MODES.get(query_type, query_type),
            **({} if embedder is None else {"embedder": embedder.fingerprint}),
        }

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` best passages, best first; of a long query, the first 30,000 characters count.

        Raises:
            ValueError: if k < 1.
            FilterError: if `filters` is not valid, or names what is no column.
            ServiceUnavailableError: if the workspace is busy, failing or away.
            RetrievalError: if the query cannot be embedded, or k is more than Databricks gives; and as when it is made.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        plan = self._planned()
        most = MOST_RESULTS[plan.query_type]
        if k > most:
            raise RetrievalError(
                f"Databricks gives at most {most} passages to a search of the kind {plan.query_type}, and {k} were "
                "asked for. Set retrieval.k lower, or retrieval.vector_search.query_type to ann."
            )
        conditions = self._filters(plan, filters)
        if not analyze(query):
            return []
        text = query[:_QUERY_CHARACTERS].encode("utf-8", "replace").decode()
        arguments = self._query(plan, text, plan.query_type)
        if self._settings.rerank_columns:
            from databricks.ai_search.reranker import DatabricksReranker

            arguments["reranker"] = DatabricksReranker(list(self._settings.rerank_columns))
        rows = self._index.search(
            columns=plan.columns.read(),
            num_results=k,
            filters=conditions,
            score_threshold=self._settings.score_threshold,
            **arguments,
        )
        return self._passages(rows, plan.columns)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As `search`, for several ways to ask the same, searched for at once: their rankings are fused.

        Raises:
            ValueError: if there is no query; and as `search`.
        """
        if not queries:
            raise ValueError("there is no query to search for")
        with ThreadPoolExecutor(min(len(queries), _SEARCHES_AT_ONCE)) as pool:
            # Each in a context of its own, which knows whose question it is.
            searches = [
                pool.submit(contextvars.copy_context().run, self.search, query, k, filters)
                for query in queries
            ]
        return merge([search.result() for search in searches], k)

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The weights of terms by a sample of the passages: the service tells no statistics."""
        return self._weights.idf(terms, self._planned().columns) if terms else []

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """The first 1,000 passages of a document in their order (200 of a full-text index)."""
        plan = self._planned()
        if plan.index.full_text_only:
            query, most = self._query(plan, doc_uri, "full_text"), MOST_RESULTS["full_text"]
        elif plan.index.embeds:
            query, most = self._query(plan, doc_uri, "ann"), 1000
        else:
            # Any vector will do: all that the filter leaves is wanted.
            length = plan.index.dimension or 1
            query, most = {"query_vector": [1 / math.sqrt(length)] * length, "query_type": "ANN"}, 1000
        rows = self._index.search(
            columns=plan.columns.read(),
            num_results=most,
            filters=self._filters(plan, {"doc_uri": doc_uri}),
            **query,
        )
        found = self._passages(rows, plan.columns)
        return sorted(found, key=lambda passage: (passage.start, _natural(passage.chunk_id)))

    def doc_uris(self) -> Collection[str] | None:
        """The identities of all documents; None for more than 10,000 passages, or where they cannot be listed."""
        plan = self._planned()
        if plan.index.rows is None or plan.index.rows > _LISTED_ROWS:
            return None
        found: set[str] = set()
        after: str | None = None
        try:
            while True:
                rows, after = self._index.scan(_SCANNED, after)
                found.update(str(row[plan.columns.doc_uri]) for row in rows if row.get(plan.columns.doc_uri))
                if len(rows) < _SCANNED:
                    return found
        except RetrievalError as error:
            logger.warning("The documents of '%s' cannot be listed: %s", self._index.name, error)
            return None

    def facts(self) -> CorpusFacts:
        """How many passages there are, as the workspace said in the last 30 seconds (5 of a trouble).

        With `as_user`, nobody asks for it: what is known from the first search is told.
        """
        if self._as_user:
            return CorpusFacts(passages=self._plan.index.rows if self._plan else None)
        # One asks at a time: where the workspace hangs, the others tell what was known.
        if time.monotonic() >= self._facts_until and self._facts_lock.acquire(blocking=False):
            try:
                self._facts = self._look()
                self._facts_until = time.monotonic() + (_TROUBLE_S if self._facts.trouble else _FACTS_S)
            finally:
                self._facts_lock.release()
        return self._facts

    def _look(self) -> CorpusFacts:
        try:
            described = self._index.describe()
        except CiteqaError as error:
            return CorpusFacts(trouble=str(error))
        return CorpusFacts(passages=described.rows, trouble=described.trouble)

    def _planned(self) -> Plan:
        if self._plan is None:
            with self._lock:
                if self._plan is None:
                    self._plan = make_plan(self._index.inspect(), self._settings, self._embedder)
        return self._plan

    def _query(self, plan: Plan, text: str, query_type: QueryType) -> dict[str, Any]:
        """The query's part of the arguments: its text, its vector, or both."""
        arguments: dict[str, Any] = {"query_type": query_type.upper()}
        embeds_here = plan.sends_vector and query_type != "full_text"
        if query_type != "ann" or not embeds_here:
            arguments["query_text"] = text
        if embeds_here and self._embedder is not None:
            arguments["query_vector"] = [float(number) for number in self._embedder.embed_query(text)]
        return arguments

    def _filters(self, plan: Plan, filters: Filters | None) -> dict[str, object] | str | None:
        conditions = read_conditions(filters)
        if not conditions:
            return None
        if plan.endpoint_kind == "storage_optimized":
            return to_text(conditions, plan.column)
        return to_dictionary(conditions, plan.column)

    def _passages(self, rows: Sequence[Row], columns: Columns) -> list[Passage]:
        passages = [passage for row in rows if (passage := columns.passage(row)) is not None]
        if len(passages) < len(rows):
            logger.warning(
                "%d rows of '%s' have no text, or no %s to link to, and are left out",
                len(rows) - len(passages),
                self._index.name,
                columns.doc_uri,
            )
        return passages


def _natural(chunk_id: str) -> list[tuple[int, str]]:
    """The order of keys in which numbers stand by their size."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", chunk_id)]

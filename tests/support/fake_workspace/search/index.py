"""One index: its rows, its state, and what a query of it finds."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fake_workspace.search import ranking
from fake_workspace.search.filters import Matches, matches_dictionary, matches_text
from fake_workspace.wire import ApiError

Row = dict[str, Any]
Embed = Callable[[Sequence[str]], ranking.Vectors]

MOST_RESULTS = {"ANN": 10_000, "HYBRID": 200, "FULL_TEXT": 200}
RERANKED = 50
_TYPES = {
    "integer",
    "int",
    "long",
    "bigint",
    "float",
    "double",
    "boolean",
    "string",
    "date",
    "timestamp",
    "array<float>",
    "array<double>",
    "array<string>",
}


@dataclass
class Index:
    """An index. `schema` is name → type; `source` gives a Delta Sync index its rows anew at each sync."""

    name: str
    endpoint: str
    storage_optimized: bool
    kind: str
    primary_key: str
    spec: dict[str, Any]
    schema: dict[str, str]
    creator: str
    subtype: str = "HYBRID"
    source: Callable[[], Sequence[Row]] | None = None
    embed: Embed = ranking.embed
    readers: set[str] | None = None
    """Who may query it; None: everybody."""
    state: str = "ONLINE"
    message: str = "Index is ready."
    version: int = 0
    rows: list[Row] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _words: ranking.Words | None = None
    _words_of: tuple[str, ...] = ()
    _vectors: ranking.Vectors | None = None

    @property
    def ready(self) -> bool:
        return self.state.startswith("ONLINE")

    @property
    def text_column(self) -> str | None:
        """The column that an embedding endpoint embeds; None where vectors are written by others."""
        columns = self.spec.get("embedding_source_columns") or [{}]
        return columns[0].get("name")

    @property
    def vector_column(self) -> str | None:
        columns = self.spec.get("embedding_vector_columns") or [{}]
        return columns[0].get("name")

    @property
    def dimension(self) -> int | None:
        columns = self.spec.get("embedding_vector_columns") or [{}]
        return columns[0].get("embedding_dimension")

    @property
    def embeds_queries(self) -> bool:
        return bool(self.spec.get("embedding_source_columns"))

    def described(self, url: str) -> dict[str, Any]:
        """As GET answers it."""
        status: dict[str, Any] = {
            "detailed_state": self.state,
            "message": self.message,
            "ready": self.ready,
            "index_url": url,
        }
        if not self.storage_optimized:
            status["indexed_row_count"] = len(self.rows)
        if self.kind == "DELTA_SYNC" and self.version:
            status["triggered_update_status"] = {"last_processed_commit_version": self.version}
        said = {
            "name": self.name,
            "id": self.id,
            "endpoint_name": self.endpoint,
            "primary_key": self.primary_key,
            "index_type": self.kind,
            "index_subtype": self.subtype,
            "creator": self.creator,
            "status": status,
        }
        said["delta_sync_index_spec" if self.kind == "DELTA_SYNC" else "direct_access_index_spec"] = self.spec
        return said

    def sync(self) -> None:
        """Take the rows of the source table, as it is now."""
        assert self.source is not None
        rows = [dict(row) for row in self.source()]
        self.rows = [{name: row.get(name) for name in self.schema} for row in rows]
        self.version += 1
        self._changed()

    def upsert(self, rows: Sequence[Row]) -> None:
        """Write rows; what has their key is replaced."""
        for row in rows:
            if row.get(self.primary_key) is None:
                raise ApiError("INVALID_PARAMETER_VALUE", f"A row lacks the primary key {self.primary_key}.")
            if unknown := row.keys() - self.schema.keys():
                raise ApiError(
                    "INVALID_PARAMETER_VALUE", f"Columns not in the index's schema: {sorted(unknown)}"
                )
            vector = row.get(self.vector_column or "")
            if vector is None or len(vector) != self.dimension:
                raise ApiError(
                    "INVALID_PARAMETER_VALUE", f"{self.vector_column} must hold {self.dimension} numbers."
                )
        held = {row[self.primary_key]: row for row in self.rows}
        held.update({row[self.primary_key]: dict(row) for row in rows})
        self.rows = list(held.values())
        self._changed()

    def delete(self, keys: Sequence[Any]) -> int:
        """Remove rows by their keys; how many there were."""
        before = len(self.rows)
        self.rows = [row for row in self.rows if row[self.primary_key] not in set(keys)]
        self._changed()
        return before - len(self.rows)

    def _changed(self) -> None:
        self._words = self._vectors = None

    def find(self, said: dict[str, Any]) -> list[tuple[Row, float]]:
        """The rows that a query finds, best first, with their scores."""
        kind = str(said.get("query_type") or "ANN").upper()
        wanted = said.get("num_results", 10)
        if kind not in MOST_RESULTS:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Unsupported query type {kind}.")
        if not isinstance(wanted, int) or not 1 <= wanted <= MOST_RESULTS[kind]:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", f"num_results of {kind} must be from 1 to {MOST_RESULTS[kind]}."
            )
        text, vector = said.get("query_text"), said.get("query_vector")
        self._check_query(kind, text, vector)
        matches = self._matches(said)
        among = [number for number, row in enumerate(self.rows) if matches(row)]
        reranker = said.get("reranker")
        depth = max(wanted, RERANKED) if reranker else wanted
        scores = self._scores(kind, text, vector, among, depth, said.get("query_columns"))
        threshold = said.get("score_threshold") or 0.0
        found = [(row, score) for row, score in scores if score >= threshold]
        if reranker:
            found = self._reranked(reranker, str(text or ""), found)
        return [(self.rows[row], score) for row, score in found[:wanted]]

    def _check_query(self, kind: str, text: Any, vector: Any) -> None:
        full_text = self.subtype == "FULL_TEXT"
        if full_text and kind != "FULL_TEXT":
            raise ApiError("INVALID_PARAMETER_VALUE", f"{self.name} is a full-text index: use FULL_TEXT.")
        if kind != "ANN" and not text:
            raise ApiError("INVALID_PARAMETER_VALUE", f"query_text is required for {kind}.")
        if kind == "FULL_TEXT" and vector:
            raise ApiError("INVALID_PARAMETER_VALUE", "query_vector is not supported for FULL_TEXT.")
        if kind != "FULL_TEXT" and not vector and not self.embeds_queries:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", f"query_vector is required: {self.name} embeds no queries."
            )
        if kind == "ANN" and text and vector:
            raise ApiError("INVALID_PARAMETER_VALUE", "Specify either query_text or query_vector for ANN.")
        if kind == "ANN" and not text and not vector:
            raise ApiError("INVALID_PARAMETER_VALUE", "query_text or query_vector is required.")
        if vector and self.dimension is not None and len(vector) != self.dimension:
            raise ApiError(
                "INVALID_PARAMETER_VALUE",
                f"Query vector has dimension {len(vector)}, and the index has {self.dimension}.",
            )

    def _matches(self, said: dict[str, Any]) -> Matches:
        dictionary, text = said.get("filters_json"), said.get("filter_string")
        columns = list(self.schema)
        if dictionary is not None and self.storage_optimized:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", "filters_json is not supported for storage-optimized endpoints."
            )
        if text is not None and not self.storage_optimized:
            raise ApiError(
                "INVALID_PARAMETER_VALUE", "filter_string is not supported for standard endpoints."
            )
        if dictionary is not None:
            return matches_dictionary(json.loads(dictionary), columns)
        return matches_text(text, columns) if text is not None else lambda row: True

    def _scores(
        self, kind: str, text: Any, vector: Any, among: list[int], depth: int, columns: Any
    ) -> list[tuple[int, float]]:
        if kind == "FULL_TEXT":
            words = self._word_scores(str(text), columns)
            return [(row, float(words[row])) for row in ranking.best(words, among, depth)]
        query = vector if vector else self.embed([str(text)])[0]
        near = ranking.nearness(self._row_vectors(), query)
        if kind == "ANN":
            return [(row, float(near[row])) for row in ranking.best(near, among, depth)]
        words = self._word_scores(str(text), columns)
        fused = ranking.fuse([ranking.best(near, among, depth), ranking.best(words, among, depth)])
        return sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[:depth]

    def _word_scores(self, text: str, columns: Any) -> ranking.Vectors:
        names = tuple(columns or (name for name, kind in self.schema.items() if kind == "string"))
        if self._words is None or self._words_of != names:
            self._words = ranking.Words([" ".join(str(row.get(n) or "") for n in names) for row in self.rows])
            self._words_of = names
        return self._words.scores(text)

    def _row_vectors(self) -> ranking.Vectors:
        if self._vectors is None:
            if self.vector_column:
                rows = [row[self.vector_column] for row in self.rows]
                self._vectors = np.asarray(rows, np.float32).reshape(len(rows), self.dimension or 0)
            else:
                self._vectors = self.embed([str(row.get(self.text_column or "") or "") for row in self.rows])
        return self._vectors

    def _reranked(
        self, reranker: dict[str, Any], text: str, found: list[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        columns = reranker["parameters"]["columns_to_rerank"]
        texts = [" ".join(str(self.rows[row].get(name) or "") for name in columns) for row, _ in found]
        # What a reranker does better: it sees that the words stand together.
        scores = [float(np.dot(*self.embed([text, read[:2000]]))) for read in texts[:RERANKED]] + [
            -1.0
        ] * len(texts[RERANKED:])
        order = sorted(range(len(found)), key=lambda place: (-scores[place], place))
        return [(found[place][0], scores[place]) for place in order]


def schema_of(rows: Sequence[Row]) -> dict[str, str]:
    """The types of a table's columns, by its values."""
    schema: dict[str, str] = {}
    for name, value in itertools.chain.from_iterable(row.items() for row in rows):
        if value is not None:
            schema[name] = _type_of(value)
        schema.setdefault(name, "string")
    return schema


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "bigint"
    if isinstance(value, float):
        return "double"
    if isinstance(value, list | tuple | np.ndarray):
        return "array<string>" if len(value) and isinstance(value[0], str) else "array<float>"
    return "string"


def check_types(schema: dict[str, str]) -> None:
    """Refuse what an index cannot hold."""
    if unknown := {kind for kind in schema.values() if kind not in _TYPES}:
        raise ApiError("INVALID_PARAMETER_VALUE", f"Unsupported column types: {sorted(unknown)}")

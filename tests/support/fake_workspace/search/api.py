"""The routes of Vector Search."""

from __future__ import annotations

import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_workspace.search import ranking
from fake_workspace.search.index import Embed, Index, Row, check_types, schema_of
from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

PAGE_ROWS = 1000
MOST_INDEXES = 50
_ROOT = "/api/2.0/vector-search"
_QUERY_FIELDS = (
    "num_results",
    "columns",
    "filters_json",
    "filter_string",
    "debug_level",
    "query_text",
    "query_vector",
    "score_threshold",
    "query_type",
    "query_columns",
    "reranker",
)
_INDEX_FIELDS = (
    "name",
    "endpoint_name",
    "primary_key",
    "index_type",
    "index_subtype",
    "delta_sync_index_spec",
    "direct_access_index_spec",
)
_DELTA_FIELDS = {
    "source_table",
    "pipeline_type",
    "embedding_source_columns",
    "embedding_vector_columns",
    "columns_to_sync",
    "columns_to_index",
    "embedding_writeback_table",
    "budget_policy_id",
}
_NAME = re.compile(r"[^.\s/]+\.[^.\s/]+\.[^.\s/]+")


@dataclass
class Endpoint:
    """A Vector Search endpoint."""

    name: str
    type: str
    creator: str
    state: str = "ONLINE"
    target_qps: int | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class VectorSearch:
    """Endpoints, indexes, and the tables that Delta Sync indexes follow.

    `tables` is the rows of a table by its name, or what gives them: a Delta Sync index takes them when it is made and
    at each sync. `embeddings` is the embedding endpoints by name; of others, texts are embedded by words and letters.
    """

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._pages: dict[str, list[list[Any]]] = {}
        self._page_numbers = itertools.count(1)
        self._lock = threading.RLock()
        self.endpoints: dict[str, Endpoint] = {}
        self.indexes: dict[str, Index] = {}
        self.tables: dict[str, Sequence[Row] | Callable[[], Sequence[Row]]] = {}
        self.embeddings: dict[str, Embed] = {}
        self.direct_url: str | None = None
        """Where indexes can be asked without the detour over the workspace; None: nowhere else."""
        self.page_rows = PAGE_ROWS
        route = workspace.router.add
        route("GET", f"{_ROOT}/endpoints", self._list_endpoints)
        route("POST", f"{_ROOT}/endpoints", self._create_endpoint)
        route("GET", f"{_ROOT}/endpoints/{{endpoint}}", self._get_endpoint)
        route("DELETE", f"{_ROOT}/endpoints/{{endpoint}}", self._delete_endpoint)
        route("GET", f"{_ROOT}/endpoints/{{endpoint}}/indexes", self._list_indexes)
        route("POST", f"{_ROOT}/endpoints/{{endpoint}}/indexes", self._create_index)
        route("GET", f"{_ROOT}/endpoints/{{endpoint}}/indexes/{{index}}", self._get_index)
        route("DELETE", f"{_ROOT}/endpoints/{{endpoint}}/indexes/{{index}}", self._delete_index)
        route("GET", f"{_ROOT}/indexes", self._list_indexes)
        route("POST", f"{_ROOT}/indexes", self._create_index)
        route("GET", f"{_ROOT}/indexes/{{index}}", self._get_index)
        route("DELETE", f"{_ROOT}/indexes/{{index}}", self._delete_index)
        route("POST", f"{_ROOT}/indexes/{{index}}/sync", self._sync)
        route("POST", f"{_ROOT}/indexes/{{index}}/upsert-data", self._upsert)
        route("DELETE", f"{_ROOT}/indexes/{{index}}/delete-data", self._delete_data)
        route("GET", "/api/2.1/unity-catalog/tables/{table}", self._get_table)
        for method in ("GET", "POST"):  # AI Search's client asks with GET, the SDK with POST
            route(method, f"{_ROOT}/indexes/{{index}}/query", self._query)
            route(method, f"{_ROOT}/indexes/{{index}}/query-next-page", self._next_page)
            route(method, f"{_ROOT}/indexes/{{index}}/scan", self._scan)

    # What tests and demonstrations do without HTTP.

    def add_endpoint(self, name: str = "vs", type: str = "STANDARD") -> Endpoint:
        """An endpoint that is online."""
        return self.endpoints.setdefault(name, Endpoint(name, type, "admin"))

    def add_index(
        self,
        name: str,
        rows: Sequence[Row],
        *,
        primary_key: str = "chunk_id",
        text: str | None = "text",
        vector: tuple[str, int] | None = None,
        endpoint: str = "vs",
        kind: str = "STANDARD",
    ) -> Index:
        """A Delta Sync index over a table of these rows, `<name>_source`, with the endpoint that it needs.

        Of the column `text` it makes vectors by itself; those of `vector`, a column and its dimension, are there.
        With neither, it is for full text alone, on a storage-optimized endpoint.
        """
        self.add_endpoint(endpoint, kind)
        table = f"{name}_source"
        self.tables[table] = rows
        spec: dict[str, Any] = {"source_table": table, "pipeline_type": "TRIGGERED"}
        if vector is not None:
            spec["embedding_vector_columns"] = [{"name": vector[0], "embedding_dimension": vector[1]}]
        elif text is not None:
            spec["embedding_source_columns"] = [{"name": text, "embedding_model_endpoint_name": "embedder"}]
        said = {
            "name": name,
            "primary_key": primary_key,
            "index_type": "DELTA_SYNC",
            "delta_sync_index_spec": spec,
        }
        if vector is None and text is None:
            said["index_subtype"] = "FULL_TEXT"
        self.indexes[name] = index = self._delta_sync(said, self.endpoints[endpoint], "admin")
        return index

    def rows_of(self, table: str) -> list[Row]:
        """What a table holds now."""
        source = self.tables[table]
        return [dict(row) for row in (source() if callable(source) else source)]

    # Endpoints.

    def _create_endpoint(self, request: Request) -> dict[str, Any]:
        said = request.json(
            known=("name", "endpoint_type", "budget_policy_id", "target_qps"), required=("name",)
        )
        kind = said.get("endpoint_type", "STANDARD")
        if kind not in ("STANDARD", "STORAGE_OPTIMIZED"):
            raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown endpoint type {kind}.")
        if said.get("target_qps") is not None and kind != "STANDARD":
            raise ApiError("INVALID_PARAMETER_VALUE", "target_qps is for STANDARD endpoints.")
        with self._lock:
            if said["name"] in self.endpoints:
                raise ApiError("RESOURCE_ALREADY_EXISTS", f"Endpoint {said['name']} already exists.")
            endpoint = Endpoint(said["name"], kind, request.user, target_qps=said.get("target_qps"))
            self.endpoints[endpoint.name] = endpoint
        return self._endpoint_info(endpoint)

    def _endpoint_info(self, endpoint: Endpoint) -> dict[str, Any]:
        held = [index for index in self.indexes.values() if index.endpoint == endpoint.name]
        return {
            "name": endpoint.name,
            "id": endpoint.id,
            "creator": endpoint.creator,
            "endpoint_type": endpoint.type,
            "endpoint_status": {"state": endpoint.state},
            "num_indexes": len(held),
        }

    def _endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Vector search endpoint {name} not found.")
        return self.endpoints[name]

    def _list_endpoints(self, request: Request) -> dict[str, Any]:
        return {"endpoints": [self._endpoint_info(endpoint) for endpoint in self.endpoints.values()]}

    def _get_endpoint(self, request: Request) -> dict[str, Any]:
        return self._endpoint_info(self._endpoint(request.parameters["endpoint"]))

    def _delete_endpoint(self, request: Request) -> dict[str, Any]:
        endpoint = self._endpoint(request.parameters["endpoint"])
        if any(index.endpoint == endpoint.name for index in self.indexes.values()):
            raise ApiError("BAD_REQUEST", f"Endpoint {endpoint.name} still has indexes.")
        del self.endpoints[endpoint.name]
        return {}

    # Indexes.

    def _create_index(self, request: Request) -> dict[str, Any]:
        said = request.json(known=_INDEX_FIELDS, required=("name", "primary_key", "index_type"))
        name = said["name"]
        endpoint = self._endpoint(request.parameters.get("endpoint") or said.get("endpoint_name", ""))
        if not _NAME.fullmatch(name):
            raise ApiError("INVALID_PARAMETER_VALUE", f"Index name {name} must be catalog.schema.index.")
        with self._lock:
            if name in self.indexes:
                raise ApiError("RESOURCE_ALREADY_EXISTS", f"Index {name} already exists.")
            if sum(index.endpoint == endpoint.name for index in self.indexes.values()) >= MOST_INDEXES:
                raise ApiError("RESOURCE_EXHAUSTED", f"{endpoint.name} has {MOST_INDEXES} indexes already.")
            kind = said["index_type"]
            make = {"DELTA_SYNC": self._delta_sync, "DIRECT_ACCESS": self._direct_access}.get(kind)
            if make is None:
                raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown index type {kind}.")
            self.indexes[name] = index = make(said, endpoint, request.user)
        return self._described(index)

    def _delta_sync(self, said: dict[str, Any], endpoint: Endpoint, user: str) -> Index:
        spec = said.get("delta_sync_index_spec") or {}
        if unknown := spec.keys() - _DELTA_FIELDS:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown fields: {sorted(unknown)}")
        if spec.get("pipeline_type") not in ("TRIGGERED", "CONTINUOUS"):
            raise ApiError("INVALID_PARAMETER_VALUE", "pipeline_type must be TRIGGERED or CONTINUOUS.")
        if endpoint.type == "STORAGE_OPTIMIZED" and spec["pipeline_type"] == "CONTINUOUS":
            raise ApiError("INVALID_PARAMETER_VALUE", "Storage-optimized endpoints sync TRIGGERED only.")
        table = spec.get("source_table")
        if table not in self.tables:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Table '{table}' does not exist.")
        schema = schema_of(self.rows_of(table))
        wanted = spec.get("columns_to_sync") or list(schema)
        for column in spec.get("embedding_source_columns") or spec.get("embedding_vector_columns") or []:
            wanted = [*wanted, column["name"]]
        subtype = said.get("index_subtype", "HYBRID")
        embeds = spec.get("embedding_source_columns") or spec.get("embedding_vector_columns")
        if subtype == "FULL_TEXT":
            if endpoint.type != "STORAGE_OPTIMIZED":
                raise ApiError("INVALID_PARAMETER_VALUE", "FULL_TEXT needs a storage-optimized endpoint.")
        elif not embeds:
            raise ApiError("INVALID_PARAMETER_VALUE", "An embedding source or vector column is required.")
        wanted = list(dict.fromkeys([said["primary_key"], *wanted]))
        if missing := [column for column in wanted if column not in schema]:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Columns not in {table}: {missing}")
        index = self._new(said, endpoint, user, spec, {column: schema[column] for column in wanted})
        index.source = lambda: self.rows_of(table)
        if endpoint_name := (spec.get("embedding_source_columns") or [{}])[0].get(
            "embedding_model_endpoint_name"
        ):
            index.embed = self.embeddings.get(endpoint_name, ranking.embed)
        index.state = "ONLINE_NO_PENDING_UPDATE"
        index.sync()
        return index

    def _direct_access(self, said: dict[str, Any], endpoint: Endpoint, user: str) -> Index:
        spec = said.get("direct_access_index_spec") or {}
        schema = json.loads(spec.get("schema_json") or "{}")
        vectors = spec.get("embedding_vector_columns") or []
        if len(vectors) != 1 or not isinstance(vectors[0].get("embedding_dimension"), int):
            raise ApiError(
                "INVALID_PARAMETER_VALUE", "One embedding vector column with its dimension is required."
            )
        for column in (said["primary_key"], vectors[0]["name"]):
            if column not in schema:
                raise ApiError("INVALID_PARAMETER_VALUE", f"schema_json lacks the column {column}.")
        index = self._new(said, endpoint, user, spec, schema)
        index.state = "ONLINE_DIRECT_ACCESS"
        if name := (spec.get("embedding_source_columns") or [{}])[0].get("embedding_model_endpoint_name"):
            index.embed = self.embeddings.get(name, ranking.embed)
        return index

    def _new(
        self,
        said: dict[str, Any],
        endpoint: Endpoint,
        user: str,
        spec: dict[str, Any],
        schema: dict[str, str],
    ) -> Index:
        check_types(schema)
        return Index(
            name=said["name"],
            endpoint=endpoint.name,
            storage_optimized=endpoint.type == "STORAGE_OPTIMIZED",
            kind=said["index_type"],
            primary_key=said["primary_key"],
            spec=spec,
            schema=schema,
            creator=user,
            subtype=said.get("index_subtype", "HYBRID"),
        )

    def _index(self, request: Request) -> Index:
        name = request.parameters["index"]
        index = self.indexes.get(name)
        if index is None or request.parameters.get("endpoint", index.endpoint) != index.endpoint:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Vector index {name} does not exist.")
        if index.readers is not None and request.user not in index.readers:
            raise ApiError(
                "PERMISSION_DENIED", f"User {request.user} does not have SELECT on Vector Index '{name}'."
            )
        return index

    def _described(self, index: Index, *, over_workspace: bool = False) -> dict[str, Any]:
        root = self._workspace.url if over_workspace or self.direct_url is None else self.direct_url
        return index.described(f"{root}{_ROOT}/indexes/{index.name}")

    def _get_index(self, request: Request) -> dict[str, Any]:
        over_workspace = request.query.get("ensure_reranker_compatible") == "true"
        return self._described(self._index(request), over_workspace=over_workspace)

    def _delete_index(self, request: Request) -> dict[str, Any]:
        del self.indexes[self._index(request).name]
        return {}

    def _list_indexes(self, request: Request) -> dict[str, Any]:
        endpoint = self._endpoint(
            request.parameters.get("endpoint") or request.query.get("endpoint_name", "")
        )
        fields = ("name", "endpoint_name", "primary_key", "index_type", "index_subtype", "creator")
        held = [self._described(index) for index in self.indexes.values() if index.endpoint == endpoint.name]
        return {"vector_indexes": [{name: one[name] for name in fields} for one in held]}

    def _sync(self, request: Request) -> dict[str, Any]:
        index = self._index(request)
        if index.kind != "DELTA_SYNC":
            raise ApiError("BAD_REQUEST", f"{index.name} is no Delta Sync index.")
        with self._lock:
            index.sync()
        return {}

    def _upsert(self, request: Request) -> dict[str, Any]:
        index = self._direct(request)
        said = request.json(known=(), required=("inputs_json",))
        rows = json.loads(said["inputs_json"])
        with self._lock:
            index.upsert(rows)
        return {"status": "SUCCESS", "result": {"success_row_count": len(rows), "failed_primary_keys": []}}

    def _delete_data(self, request: Request) -> dict[str, Any]:
        index = self._direct(request)
        keys = request.json(known=(), required=("primary_keys",))["primary_keys"]
        with self._lock:
            return {"status": "SUCCESS", "result": {"success_row_count": index.delete(keys)}}

    def _direct(self, request: Request) -> Index:
        index = self._index(request)
        if index.kind != "DIRECT_ACCESS":
            raise ApiError(
                "BAD_REQUEST", f"{index.name} takes its rows from a table: it cannot be written to."
            )
        return index

    def _get_table(self, request: Request) -> dict[str, Any]:
        """A table, or an index, which Unity Catalog holds as one."""
        name = request.parameters["table"]
        if name in self.indexes:
            index = self.indexes[name]
            if index.readers is not None and request.user not in index.readers:
                raise ApiError("PERMISSION_DENIED", f"User does not have SELECT on Table '{name}'.")
            schema = index.schema
        elif name in self.tables:
            schema = schema_of(self.rows_of(name))
        else:
            raise ApiError("NOT_FOUND", f"Table '{name}' does not exist.")
        columns = [
            {"name": column, "type_text": kind, "position": position}
            for position, (column, kind) in enumerate(schema.items())
        ]
        return {"full_name": name, "name": name.rpartition(".")[2], "columns": columns}

    # Queries.

    def _query(self, request: Request) -> dict[str, Any]:
        index = self._index(request)
        said = request.json(known=_QUERY_FIELDS, required=("columns",))
        endpoint = self._endpoint(index.endpoint)
        if endpoint.state != "ONLINE":
            raise ApiError("BAD_REQUEST", f"Endpoint {endpoint.name} is {endpoint.state}.")
        if not index.ready:
            raise ApiError("BAD_REQUEST", f"Index {index.name} is not ready: {index.state}.")
        columns = said["columns"]
        read = [*columns, *self._reranked_columns(said)]
        if missing := [name for name in read if name not in index.schema]:
            raise ApiError(
                "INVALID_PARAMETER_VALUE",
                f"Requested columns to fetch are not present in index: {', '.join(missing)}",
            )
        with self._lock:
            found = index.find(said)
        rows = [[*(_wire(row.get(name)) for name in columns), score] for row, score in found]
        manifest = {"column_count": len(columns) + 1, "columns": [{"name": n} for n in [*columns, "score"]]}
        return {"manifest": manifest, **self._page(rows)}

    def _reranked_columns(self, said: dict[str, Any]) -> list[str]:
        reranker = said.get("reranker")
        if reranker is None:
            return []
        if reranker.get("model") != "databricks_reranker" or reranker.get("model_type") != "MODEL_TYPE_BASE":
            raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown reranker {reranker}.")
        columns = reranker.get("parameters", {}).get("columns_to_rerank")
        if not columns:
            raise ApiError("INVALID_PARAMETER_VALUE", "columns_to_rerank is required.")
        return list(columns)

    def _page(self, rows: list[list[Any]]) -> dict[str, Any]:
        page, rest = rows[: self.page_rows], rows[self.page_rows :]
        said: dict[str, Any] = {"result": {"row_count": len(page), "data_array": page}}
        if rest:
            token = f"page-{next(self._page_numbers)}"
            self._pages[token] = rest
            said["next_page_token"] = token
        return said

    def _next_page(self, request: Request) -> dict[str, Any]:
        self._index(request)
        said = request.json(known=("endpoint_name",), required=("page_token",))
        if said["page_token"] not in self._pages:
            raise ApiError("INVALID_PARAMETER_VALUE", "Unknown page token.")
        return self._page(self._pages.pop(said["page_token"]))

    def _scan(self, request: Request) -> dict[str, Any]:
        index = self._index(request)
        said = request.json(known=("num_results", "endpoint_name", "last_primary_key"))
        rows = sorted(index.rows, key=lambda row: str(row[index.primary_key]))
        last = said.get("last_primary_key")
        rest = [row for row in rows if last is None or str(row[index.primary_key]) > str(last)]
        page = rest[: said.get("num_results", 10)]
        # Vectors that the index made itself stand under a name that it derives.
        found: dict[str, Any] = {"data": [_struct(row) for row in page]}
        if page:
            found["last_primary_key"] = str(page[-1][index.primary_key])
        return found


def _wire(value: Any) -> Any:
    """A value as the service answers it: whole numbers come back as numbers with a point."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value)
    return [_wire(one) for one in value]


def _struct(row: Row) -> dict[str, Any]:
    """A row as protobuf's JSON form of a struct."""
    return {"fields": [{"key": name, "value": _value(value)} for name, value in row.items()]}


def _value(value: Any) -> dict[str, Any]:
    if value is None:
        return {"null_value": "NULL_VALUE"}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, int | float):
        return {"number_value": float(value)}
    return {"list_value": {"values": [_value(one) for one in value]}}

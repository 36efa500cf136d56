"""The Vector Search index that follows a passage table: made if it is not there, else told to catch up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from program.spark.corpus.passages import PRIMARY_KEY, TEXT, VECTOR
from retrieval.errors import ConfigurationError, WorkspaceError
from retrieval.workspace import open_workspace, workspace_errors

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_UP_TO_DATE = ("ONLINE", "ONLINE_NO_PENDING_UPDATE")
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What the index is to be: its name, the table that it follows, and who makes its vectors.

    Ours are in the column `embedding` and of the length `dimension`; those of `embedding_endpoint` are Databricks'.
    Without either, it finds by words alone, which a storage-optimized endpoint can.
    """

    name: str
    endpoint: str | None
    table: str
    columns: tuple[str, ...]
    embedding_endpoint: str | None = None
    dimension: int | None = None


def check_index(plan: IndexPlan) -> bool:
    """Whether the index is there, as planned. Asked before any work is done.

    Raises:
        ConfigurationError: if one of that name is another: what differs, and what to do.
        WorkspaceError: if the workspace cannot be asked.
    """
    found = _describe(open_workspace().client, plan.name)
    if found is None and plan.endpoint is None:
        raise ConfigurationError(
            f"There is no index {plan.name} yet. Say at which Vector Search endpoint it is to be made: "
            "pipeline.endpoint=…"
        )
    if found is not None:
        _check(plan, found)
    return found is not None


def sync(plan: IndexPlan) -> str:
    """Make the index, or have it catch up with the table; which of both, for a person.

    Raises:
        ConfigurationError: as `check_index`.
        WorkspaceError: if the workspace refuses.
    """
    client = open_workspace().client
    found = _describe(client, plan.name)
    if found is None:
        _create(client, plan)
        return "made"
    _check(plan, found)
    with workspace_errors(f"The index {plan.name} cannot be synced"):
        client.vector_search_indexes.sync_index(plan.name)
    return "told to catch up"


def state_of(plan: IndexPlan, *, wait_min: float = 0) -> str:
    """What state the index is in, for a person; with `wait_min`, once it is up to date.

    Raises:
        WorkspaceError: if the workspace refuses, or the index is not up to date after `wait_min`.
    """
    client = open_workspace().client
    return _wait(client, plan.name, wait_min) if wait_min else _state(_describe(client, plan.name))


def _create(client: WorkspaceClient, plan: IndexPlan) -> None:
    from databricks.sdk.service import vectorsearch as wire

    spec = wire.DeltaSyncVectorIndexSpecRequest(
        source_table=plan.table,
        pipeline_type=wire.PipelineType.TRIGGERED,
        columns_to_sync=[name for name in plan.columns if name != VECTOR],
    )
    subtype = None
    if plan.embedding_endpoint:
        spec.embedding_source_columns = [
            wire.EmbeddingSourceColumn(name=TEXT, embedding_model_endpoint_name=plan.embedding_endpoint)
        ]
    elif plan.dimension:
        spec.embedding_vector_columns = [
            wire.EmbeddingVectorColumn(name=VECTOR, embedding_dimension=plan.dimension)
        ]
    else:
        subtype = wire.IndexSubtype.FULL_TEXT
    with workspace_errors(f"The index {plan.name} cannot be made at the endpoint {plan.endpoint}"):
        client.vector_search_indexes.create_index(
            plan.name,
            plan.endpoint or "",
            PRIMARY_KEY,
            wire.VectorIndexType.DELTA_SYNC,
            delta_sync_index_spec=spec,
            index_subtype=subtype,
        )


def _describe(client: WorkspaceClient, name: str) -> Mapping[str, Any] | None:
    """The index as the workspace describes it; None where there is none."""
    from databricks.sdk.errors import NotFound

    with workspace_errors(f"The index {name} cannot be looked up"):
        try:
            # The SDK's own type of an index lacks the detailed state.
            found = client.api_client.do("GET", f"/api/2.0/vector-search/indexes/{name}")
        except NotFound:
            return None
    return found if isinstance(found, dict) else None


def _check(plan: IndexPlan, found: Mapping[str, Any]) -> None:
    spec = found.get("delta_sync_index_spec") or {}
    wanted = {
        "it follows": (spec.get("source_table"), plan.table),
        "its primary key is": (found.get("primary_key"), PRIMARY_KEY),
        "its embedding endpoint is": (_embedding_endpoint(spec), plan.embedding_endpoint),
        "the length of its vectors is": (
            _dimension(spec),
            None if plan.embedding_endpoint else plan.dimension,
        ),
    }
    for what, (there, ours) in wanted.items():
        if there != ours:
            raise ConfigurationError(
                f"The index {plan.name} is another: {what} {there or 'not there'}, and is to be {ours or 'none'}. Name "
                "another (pipeline.index=…), delete that one, or change the setting back."
            )


def _embedding_endpoint(spec: Mapping[str, Any]) -> str | None:
    columns = spec.get("embedding_source_columns") or [{}]
    name: str | None = columns[0].get("embedding_model_endpoint_name")
    return name


def _dimension(spec: Mapping[str, Any]) -> int | None:
    columns = spec.get("embedding_vector_columns") or [{}]
    dimension: int | None = columns[0].get("embedding_dimension")
    return dimension


def _wait(client: WorkspaceClient, name: str, wait_min: float) -> str:
    until, pause_s = time.monotonic() + 60 * wait_min, 0.5
    while True:
        found = _describe(client, name) or {}
        state = (found.get("status") or {}).get("detailed_state", "")
        if state in _UP_TO_DATE:
            return _state(found)
        if "FAILED" in state or time.monotonic() >= until:
            raise WorkspaceError(
                f"The index {name} is not up to date after {wait_min:g} min: {_state(found)}. The table is written; "
                "look at the index in Catalog Explorer, or wait longer (pipeline.wait_min)."
            )
        time.sleep(min(pause_s, max(0.0, until - time.monotonic())))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _state(found: Mapping[str, Any] | None) -> str:
    status = (found or {}).get("status") or {}
    rows = status.get("indexed_row_count")
    counted = "" if rows is None else f", {rows} rows"
    return f"{status.get('detailed_state', 'state unknown')}{counted}"

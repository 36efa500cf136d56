"""What the workspace says of an index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Description:
    """What an index is, as the workspace describes it.

    Attributes:
        embeds: whether it embeds queries by itself; else they come with a vector of `dimension` numbers.
        text_column: what it embeds; None where it does not.
        columns: its columns; None where nobody tells.
        storage_optimized: its endpoint's kind; None where nobody tells.
        rows: how many it holds; None where nobody tells, as on storage-optimized endpoints.
        version: the last version of the table that it holds; None where it follows none.
    """

    name: str
    id: str
    endpoint: str
    primary_key: str
    full_text_only: bool
    embeds: bool
    text_column: str | None
    dimension: int | None
    columns: tuple[str, ...] | None
    storage_optimized: bool | None
    ready: bool
    state: str
    message: str
    rows: int | None
    version: int | None
    url: str | None
    embedding_endpoint: str | None

    @property
    def trouble(self) -> str:
        """Why it cannot be searched; "" where it can."""
        if self.ready:
            return ""
        message = f" ({self.message.rstrip('.')})" if self.message else ""
        return (
            f"The index '{self.name}' is not ready: {self.state or 'its state is unknown'}{message}. Wait until it "
            "is online, or look at its pipeline in the workspace."
        )


def read_description(name: str, said: Mapping[str, Any], endpoint: str | None = None) -> Description:
    """What GET says of an index; its columns where it names them, and not yet the kind of its endpoint."""
    spec = said.get("delta_sync_index_spec") or said.get("direct_access_index_spec") or {}
    sources = spec.get("embedding_source_columns") or []
    vectors = spec.get("embedding_vector_columns") or [{}]
    status = said.get("status") or {}
    source = sources[0] if sources else {}
    update = status.get("triggered_update_status") or status.get("continuous_update_status") or {}
    schema = spec.get("schema_json")
    return Description(
        name=name,
        id=str(said.get("id") or ""),
        endpoint=endpoint or str(said.get("endpoint_name") or ""),
        primary_key=str(said.get("primary_key") or ""),
        full_text_only=said.get("index_subtype") == "FULL_TEXT",
        embeds=bool(sources),
        text_column=source.get("name"),
        dimension=vectors[0].get("embedding_dimension"),
        columns=tuple(json.loads(schema)) if schema else None,
        storage_optimized=None,
        ready=bool(status.get("ready")),
        state=str(status.get("detailed_state") or ""),
        message=str(status.get("message") or ""),
        rows=_number(status.get("indexed_row_count")),
        version=_number(update.get("last_processed_commit_version")),
        url=status.get("index_url"),
        embedding_endpoint=source.get("model_endpoint_name_for_query")
        or source.get("embedding_model_endpoint_name"),
    )


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | float | str) and str(value).strip() else None

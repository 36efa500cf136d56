"""Find the rows in what a RETRIEVER span holds: each library has its own shape for a list of documents.

a list of objects                                MLflow, LangChain and LlamaIndex autologging, most code
JSON text of any of these, or a list of such     a retriever that is a tool of an agent
an object around such a list                     Haystack (`documents`), a DSPy Prediction (`passages`, …)
columns of equal length                          `DatabricksRM` (`docs`, `doc_ids`, `doc_uris`, …) and
                                                 `DataFrame.to_dict("list")`
columns and rows apart                           Databricks Vector Search (`manifest.columns`,
                                                 `result.data_array`) and `to_dict("split")`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]

_AROUND = ("documents", "passages", "results", "source_documents", "nodes")
_METADATA = ("metadata", "meta")
_SINGULAR = {"docs": "page_content", "doc_ids": "id", "doc_uris": "doc_uri"}
"""The columns of a `DatabricksRM` Prediction, as rows name them."""
_EXTRA_COLUMNS = "extra_columns"


def read_rows(outputs: Any, doc_uri: str) -> list[Row] | None:
    """The rows, or None where no list of documents is to be seen.

    Columns are rows only where one of them is `doc_uri`: parallel lists of anything else, as the texts of a
    `dspy.Retrieve`, name no document.
    """
    outputs = parse_json_text(outputs)
    if isinstance(outputs, list):
        return _objects(outputs)
    if isinstance(outputs, Mapping):
        found = _table(outputs)
        if found is None:
            found = _inside(outputs)
        if found is None:
            found = _columns(outputs, doc_uri)
        return found
    return None


def read_field(row: Row, name: str) -> Any:
    """A field of the row, of its metadata, or at the end of a path with dots; None where there is none."""
    for place in (row, *_metadata(row)):
        if name in place:
            return place[name]
    for place in (row, *_metadata(row)):
        if (value := _follow(place, name)) is not None:
            return value
    return None


def field_names(row: Row) -> list[str]:
    """What a person can name: the row's fields, and those of its metadata."""
    inner = [f"{name}.{key}" for name in _METADATA for key in _as_mapping(row.get(name))]
    return [*map(str, row), *inner]


def parse_json_text(value: Any) -> Any:
    """What JSON text says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _objects(values: list[Any]) -> list[Row] | None:
    rows = [_without_envelope(parse_json_text(value)) for value in values]
    return rows if all(isinstance(row, Mapping) for row in rows) else None


def _without_envelope(row: Any) -> Any:
    """LlamaIndex's `NodeWithScore` as JSON has its node, and the score beside it."""
    if isinstance(row, Mapping) and isinstance(row.get("node"), Mapping):
        return {**row["node"], "score": row.get("score")}
    return row


def _inside(outputs: Row) -> list[Row] | None:
    """The one list of objects that the outputs are there for."""
    lists = [_objects(outputs[name]) for name in _AROUND if isinstance(outputs.get(name), list)]
    return lists[0] if len(lists) == 1 else None


def _table(outputs: Row) -> list[Row] | None:
    columns, data = outputs.get("columns"), outputs.get("data")
    if "manifest" in outputs:
        columns = [
            _as_mapping(column).get("name")
            for column in _as_mapping(outputs["manifest"]).get("columns") or ()
        ]
        # A search without hits leaves `data_array` out.
        data = _as_mapping(outputs.get("result")).get("data_array") or []
    if not isinstance(columns, list) or not isinstance(data, list) or not columns:
        return None
    if not all(isinstance(values, list) and len(values) == len(columns) for values in data):
        return None
    return [dict(zip(columns, values, strict=True)) for values in data]


def _columns(outputs: Row, doc_uri: str) -> list[Row] | None:
    columns = {name: values for name, values in outputs.items() if isinstance(values, list)}
    if len({len(values) for values in columns.values()}) != 1:
        return None
    extras = columns.pop(_EXTRA_COLUMNS, [])
    named = {_SINGULAR.get(name, name): values for name, values in columns.items()}
    rows: list[Row] = [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]
    if extras:
        rows = [{**_as_mapping(extra), **row} for row, extra in zip(rows, extras, strict=True)]
    if rows and not any(read_field(row, name) for row in rows for name in (doc_uri, "doc_uri")):
        return None
    return rows


def _metadata(row: Row) -> list[Row]:
    return [value for name in _METADATA if isinstance(value := row.get(name), Mapping)]


def _as_mapping(value: Any) -> Row:
    return value if isinstance(value, Mapping) else {}


def _follow(value: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value

"""Evaluation datasets, which are tables of Unity Catalog, and the scorers that watch an experiment's traces.

Both are the managed-evaluation API, as MLflow and databricks-agents call it.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_API = "/api/2.0/managed-evals"
_DATASET = (
    *(
        "dataset_id",
        "digest",
        "name",
        "schema",
        "profile",
        "source",
        "source_type",
        "create_time",
        "created_by",
    ),
    *("last_update_time", "last_updated_by", "experiment_ids", "version", "is_uc_native"),
)
_RECORD = {
    *("inputs", "expectations", "tags", "source", "dataset_record_id", "create_time", "created_by"),
    *("last_update_time", "last_updated_by"),
}
_SCORER = {"name", "serialized_scorer", "builtin", "custom", "sample_rate", "filter_string", "scorer_version"}
_BATCH, _PAGE = 100, 500


class Datasets:
    """Datasets by their tables' names, and scheduled scorers by experiment."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._numbers = itertools.count(1)
        self._ids: dict[str, str] = {}
        self._records: dict[str, dict[str, dict[str, Any]]] = {}
        self.experiments: dict[str, list[str]] = {}
        self.closed_schemas: set[str] = set()
        self.scorers: dict[str, list[dict[str, Any]]] = {}
        route = workspace.router.add
        route("GET", "/api/2.1/unity-catalog/tables/{table}", self._get_table)
        route("POST", f"{_API}/datasets", self._create)
        route("GET", f"{_API}/datasets/{{id}}", self._get)
        route("DELETE", f"{_API}/datasets/{{id}}", self._delete)
        route("GET", f"{_API}/datasets/{{id}}/records", self._list)
        route("GET", f"{_API}/datasets/{{id}}/versions", self._versions)
        route("POST", f"{_API}/datasets/{{id}}/records:batchCreate", self._add)
        route("POST", f"{_API}/datasets/{{id}}/records:batchUpdate", self._update)
        route("POST", f"{_API}/datasets/{{id}}/records:batchDelete", self._remove)
        scheduled = f"{_API}/scheduled-scorers/{{experiment}}"
        route("GET", scheduled, self._list_scorers)
        route("POST", scheduled, self._create_scorers)
        route("PATCH", scheduled, self._update_scorers)
        route("DELETE", scheduled, self._delete_scorers)

    def records(self, table: str) -> list[dict[str, Any]]:
        """What a dataset holds, in the order in which it came."""
        return list(self._records[self._ids[table]].values())

    def _get_table(self, request: Request) -> Any:
        name = request.parameters["table"]
        if name not in self._ids:
            return self._workspace.vector_search._get_table(request)
        return {"full_name": name, "name": name.rpartition(".")[2], "table_id": self._ids[name]}

    def _create(self, request: Request) -> dict[str, Any]:
        said = request.json(known=_DATASET, required=("name", "source_type"))
        name = said["name"]
        if name.count(".") != 2:
            raise ApiError("INVALID_PARAMETER_VALUE", f"Invalid table name: '{name}'.")
        if name.rpartition(".")[0] in self.closed_schemas:
            raise ApiError(
                "PERMISSION_DENIED", f"User does not have CREATE TABLE on Schema '{name.rpartition('.')[0]}'."
            )
        if name in self._ids:
            raise ApiError("ALREADY_EXISTS", f"Table '{name}' already exists.")
        experiments = [one for one in request.query.get("experiment_ids", "").split(",") if one]
        if not experiments:
            raise ApiError("INVALID_PARAMETER_VALUE", "experiment_ids must not be empty.")
        self._ids[name] = f"table-{next(self._numbers)}"
        self._records[self._ids[name]] = {}
        self.experiments[name] = experiments
        return self._answer(name)

    def _get(self, request: Request) -> dict[str, Any]:
        return self._answer(self._name(request))

    def _delete(self, request: Request) -> dict[str, Any]:
        del self._ids[self._name(request)], self._records[request.parameters["id"]]
        return {}

    def _list(self, request: Request) -> dict[str, Any]:
        records = self._of(request)
        start = int(request.query.get("page_token", "0"))
        size = min(int(request.query.get("page_size", _PAGE)), _PAGE)
        page = {"dataset_records": list(records.values())[start : start + size]}
        more = {"next_page_token": str(start + size)} if start + size < len(records) else {}
        return {**page, **more}

    def _versions(self, request: Request) -> dict[str, Any]:
        self._name(request)
        return {
            "dataset_versions": [{"dataset_id": request.parameters["id"], "version": 1, "operation": "WRITE"}]
        }

    def _add(self, request: Request) -> dict[str, Any]:
        records = self._of(request)
        for asked in _batch(request, ("requests",)):
            record = _record(asked)
            record["dataset_record_id"] = f"record-{next(self._numbers)}"
            record["created_by"] = request.user
            records[record["dataset_record_id"]] = record
        return {}

    def _update(self, request: Request) -> dict[str, Any]:
        records, changed = self._of(request), []
        for asked in _batch(request, ("requests", "dataset_id")):
            identity = asked["dataset_record_id"]
            if identity not in records:
                raise ApiError("RESOURCE_DOES_NOT_EXIST", f"No record '{identity}'.")
            new = _record(asked)
            for field in asked["update_mask"].split(","):
                records[identity][field] = new.get(field)
            changed.append(records[identity])
        return {"dataset_records": changed}

    def _remove(self, request: Request) -> dict[str, Any]:
        records = self._of(request)
        for asked in _batch(request, ("requests",)):
            if records.pop(asked["dataset_record_id"], None) is None:
                raise ApiError("RESOURCE_DOES_NOT_EXIST", f"No record '{asked['dataset_record_id']}'.")
        return {}

    def _list_scorers(self, request: Request) -> dict[str, Any]:
        self._experiment(request)
        return {"scheduled_scorers": {"scorers": self.scorers.get(request.parameters["experiment"], [])}}

    def _create_scorers(self, request: Request) -> dict[str, Any]:
        if request.parameters["experiment"] in self.scorers:
            raise ApiError("ALREADY_EXISTS", "There are scheduled scorers for this experiment.")
        return self._keep_scorers(request, ("scheduled_scorers",))

    def _update_scorers(self, request: Request) -> dict[str, Any]:
        if request.parameters["experiment"] not in self.scorers:
            raise ApiError("NOT_FOUND", "There are no scheduled scorers for this experiment.")
        return self._keep_scorers(request, ("scheduled_scorers", "update_mask"))

    def _delete_scorers(self, request: Request) -> dict[str, Any]:
        if self.scorers.pop(request.parameters["experiment"], None) is None:
            raise ApiError("NOT_FOUND", "There are no scheduled scorers for this experiment.")
        return {}

    def _keep_scorers(self, request: Request, known: tuple[str, ...]) -> dict[str, Any]:
        experiment = self._experiment(request)
        scorers = request.json(known=known, required=("scheduled_scorers",))["scheduled_scorers"]["scorers"]
        if len({scorer["name"] for scorer in scorers}) < len(scorers):
            raise ApiError("INVALID_PARAMETER_VALUE", "Two scorers bear one name.")
        for scorer in scorers:
            if unknown := scorer.keys() - _SCORER:
                raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown fields of a scorer: {sorted(unknown)}")
            if not 0 <= (scorer.get("sample_rate") or 0) <= 1:
                raise ApiError("INVALID_PARAMETER_VALUE", "sample_rate must be between 0 and 1.")
            json.loads(scorer["serialized_scorer"])
        self.scorers[experiment] = scorers
        return {"scheduled_scorers": {"scorers": scorers}}

    def _experiment(self, request: Request) -> str:
        return request.parameters["experiment"]

    def _name(self, request: Request) -> str:
        for name, identity in self._ids.items():
            if identity == request.parameters["id"]:
                return name
        raise ApiError("RESOURCE_DOES_NOT_EXIST", f"No dataset '{request.parameters['id']}'.")

    def _of(self, request: Request) -> dict[str, dict[str, Any]]:
        self._name(request)
        return self._records[request.parameters["id"]]

    def _answer(self, name: str) -> dict[str, Any]:
        return {
            "dataset_id": self._ids[name],
            "name": name,
            "source_type": "databricks-uc-table",
            "experiment_ids": self.experiments[name],
            "is_uc_native": True,
        }


def _batch(request: Request, known: tuple[str, ...]) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = request.json(known=known, required=("requests",))["requests"]
    if len(asked) > _BATCH:
        raise ApiError("INVALID_PARAMETER_VALUE", f"At most {_BATCH} records can be changed at once.")
    return asked


def _record(asked: dict[str, Any]) -> dict[str, Any]:
    record = {key: value for key, value in asked["dataset_record"].items() if value is not None}
    if unknown := record.keys() - _RECORD:
        raise ApiError("INVALID_PARAMETER_VALUE", f"Unknown fields of a record: {sorted(unknown)}")
    if any(not isinstance(value, str) for value in record.get("tags", {}).values()):
        raise ApiError("INVALID_PARAMETER_VALUE", "The value of a tag must be a string.")
    return record

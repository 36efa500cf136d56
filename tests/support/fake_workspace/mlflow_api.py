"""MLflow's tracking API as a workspace has it: MLflow's own handlers over a store, and Databricks' ways on top.

Experiments are named by paths in the workspace, artifacts are at `dbfs:/databricks/mlflow-tracking/…`, and what
traces hold is uploaded to signed addresses.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Reply, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

ARTIFACTS = "dbfs:/databricks/mlflow-tracking"
SIGNED = "/oidc/signed/traces"
"""Open to all, as signed addresses are: who has one needs no token."""

_HOP_BY_HOP = ("host", "content-length", "connection", "authorization", "accept-encoding")
_template: list[Path] = []
_making = threading.Lock()


class MlflowApi:
    """Runs, experiments, logged models and traces. `client` is a Flask test client, once something was asked."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._folder: Path | None = None
        self._app: Any = None
        self._store: Any = None
        self._lock = threading.Lock()
        route = workspace.router.add
        for version in ("2.0", "3.0"):
            traces = f"/api/{version}/mlflow/traces/{{trace_id}}"
            route("GET", f"{traces}/credentials-for-data-upload", self._trace_credentials)
            route("GET", f"{traces}/credentials-for-data-download", self._trace_credentials)
        route("PUT", SIGNED + "{path...}", self._put_signed)
        route("GET", SIGNED + "{path...}", self._get_signed)
        for method in ("GET", "POST", "PATCH", "DELETE"):
            for version in ("2.0", "3.0"):
                route(method, f"/api/{version}/mlflow/{{rest...}}", self._forward)

    def close(self) -> None:
        """Forget everything."""
        if self._store is not None:
            self._store._dispose_engine()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _forward(self, request: Request) -> Reply:
        self._check(request)
        with self._lock:  # the handlers' store is the process's: one workspace at a time
            from mlflow.server import handlers

            app = self._open()
            handlers._tracking_store = self._store
            said = app.test_client().open(
                request.path,
                method=request.method,
                query_string=request.query_string,
                data=request.body,
                headers={name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP},
            )
        if said.status_code == 404 and not said.is_json:
            self._workspace.unknown.append(f"{request.method} {request.path}")
            raise ApiError("ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'")
        body = said.data.replace(b"/models/m-", b"/logged_models/m-").replace(b"/traces/tr-", b"/tr-")
        return Reply(body, said.status_code, {"Content-Type": said.content_type})

    def _check(self, request: Request) -> None:
        if request.path.endswith("/experiments/create"):
            name = str(json.loads(request.body or b"{}").get("name", ""))
            if not name.startswith("/"):
                raise ApiError(
                    "INVALID_PARAMETER_VALUE",
                    f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path within "
                    "the Databricks workspace, e.g. '/Users/<some-username>/my-experiment'.",
                )

    def _open(self) -> Any:
        if self._app is None:
            import mlflow.server
            from flask import Flask
            from mlflow.server import handlers
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            # It takes whatever process has uvicorn loaded for a server of its own, where no custom scorer may run.
            mlflow.server.is_running_as_server = False
            self._folder = Path(tempfile.mkdtemp(prefix="fake-workspace-"))
            database = self._folder / "mlflow.db"
            shutil.copy(_empty_store(), database)
            self._store = SqlAlchemyStore(f"sqlite:///{database}", ARTIFACTS)
            self._app = Flask("fake-workspace")
            for path, handler, methods in handlers.get_endpoints():
                self._app.add_url_rule(path, f"{handler.__name__} {path}", handler, methods=methods)
        return self._app

    def _trace_credentials(self, request: Request) -> dict[str, Any]:
        address = f"{self._workspace.url}{SIGNED}/{request.parameters['trace_id']}"
        info = {"signed_uri": address, "type": "AWS_PRESIGNED_URL"}
        return {"credential_info": info}

    def _put_signed(self, request: Request) -> Reply:
        self._workspace.files.put("/Signed/traces" + request.parameters["path"], request.body)
        return Reply(b"")

    def _get_signed(self, request: Request) -> Reply:
        content = self._workspace.files.get("/Signed/traces" + request.parameters["path"])
        return Reply(b"", 404) if content is None else Reply(content)


def _empty_store() -> Path:
    """A store with its tables and nothing in them, made once: the tables take seconds."""
    with _making:
        if not _template:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            folder = tempfile.mkdtemp(prefix="fake-workspace-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            database = Path(folder) / "empty.db"
            SqlAlchemyStore(f"sqlite:///{database}", ARTIFACTS)._dispose_engine()
            _template.append(database)
        return _template[0]

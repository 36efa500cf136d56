"""Agents that were deployed, answering: the registered model itself is loaded, and asked, whole and streamed."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Reply, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

_REQUEST = ("input", "custom_inputs", "context", "stream", "databricks_options", "model", "metadata", "store")


class DeployedAgents:
    """The versions of models that endpoints serve; each is loaded when it is first asked.

    Paths of endpoints that serve none are answered by `workspace.endpoints`.
    """

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._loaded: dict[tuple[str, str], Any] = {}
        self._folders: list[str] = []
        self._lock = threading.Lock()
        route = workspace.router.add
        route("POST", "/serving-endpoints/{name}/invocations", self._invoke)
        route("POST", "/serving-endpoints/responses", self._respond)

    def close(self) -> None:
        """Forget what was loaded."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _invoke(self, request: Request) -> Any:
        name = request.parameters["name"]
        return self._ask(name, request) if self._serves(name) else self._workspace.endpoints._invoke(request)

    def _respond(self, request: Request) -> Any:
        name = str(json.loads(request.body or b"{}").get("model"))
        if self._serves(name):
            return self._ask(name, request)
        return self._workspace.endpoints._by_model("agent")(request)

    def _serves(self, name: str) -> bool:
        return "config" in self._workspace.model_serving.endpoints.get(name, {})

    def _ask(self, name: str, request: Request) -> Any:
        self._workspace.model_serving.need(name, request.user, "CAN_QUERY")
        body = request.json(known=_REQUEST, required=("input",))
        stream = body.pop("stream", False)
        options = body.pop("databricks_options", {})
        body.pop("model", None)
        try:
            agent = self._agent(name)
            if stream:
                return Reply(stream=_events(agent.predict_stream(body)))
            answer = agent.predict(body)
        except Exception as error:
            raise ApiError("BAD_REQUEST", f"Encountered an unexpected error: {error!r}") from error
        if options.get("return_trace"):
            answer["databricks_output"] = {"trace": _trace()}
        return answer

    def _agent(self, name: str) -> Any:
        import mlflow

        config = self._workspace.model_serving.endpoints[name]["config"]
        busy = {route["served_model_name"] for route in config["routes"] if route["traffic_percentage"]}
        entity = next(entity for entity in config["served_entities"] if entity["name"] in busy)
        key = (entity["entity_name"], entity["entity_version"])
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = mlflow.pyfunc.load_model(str(self._fetch(*key)))
            return self._loaded[key]

    def _fetch(self, model: str, version: str) -> Path:
        held = self._workspace.files.below(f"/Models/{model.replace('.', '/')}/{version}")
        if not held:
            raise ApiError("INTERNAL_ERROR", f"Version {version} of {model} holds no files.")
        folder = Path(tempfile.mkdtemp(prefix="fake-workspace-"))
        self._folders.append(str(folder))
        for path, content in held.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return folder


def _events(events: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for event in events:
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _trace() -> Any:
    import mlflow

    trace_id = mlflow.get_last_active_trace_id(thread_local=True)
    trace = mlflow.get_trace(trace_id) if trace_id else None
    return trace.to_dict() if trace else None

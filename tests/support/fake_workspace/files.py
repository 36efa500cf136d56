"""The Files API: what is kept in volumes, of models and of MLflow's artifacts, by path."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from fake_workspace.wire import ApiError, Reply, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

SIGNED = "/oidc/signed/files"
"""Open to all, as signed addresses are: who has one needs no token."""


class Files:
    """Files by absolute path. `put` and `get` are for tests; folders are there while they hold something."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        route = workspace.router.add
        route("PUT", "/api/2.0/fs/files{path...}", self._upload)
        route("GET", "/api/2.0/fs/files{path...}", self._download)
        route("HEAD", "/api/2.0/fs/files{path...}", self._download)
        route("DELETE", "/api/2.0/fs/files{path...}", self._delete)
        route("POST", "/api/2.0/fs/create-download-url", self._sign)
        route("GET", f"{SIGNED}{{path...}}", self._download)
        route("PUT", "/api/2.0/fs/directories{path...}", self._make_directory)
        route("HEAD", "/api/2.0/fs/directories{path...}", self._see_directory)
        route("GET", "/api/2.0/fs/directories{path...}", self._list)

    def put(self, path: str, content: bytes) -> None:
        """Keep a file."""
        with self._lock:
            self._files[path] = content

    def get(self, path: str) -> bytes | None:
        """What a file holds; None where there is none."""
        return self._files.get(path)

    def below(self, folder: str) -> dict[str, bytes]:
        """The files of a folder and of those in it, by their path within."""
        start = folder.rstrip("/") + "/"
        with self._lock:
            return {path[len(start) :]: held for path, held in self._files.items() if path.startswith(start)}

    def _upload(self, request: Request) -> Reply:
        path = _path(request)
        if path in self._files and request.query.get("overwrite") != "true":
            raise ApiError("ALREADY_EXISTS", f"The file {path} exists, and overwrite is not true.")
        self.put(path, request.body)
        return Reply(b"", 204)

    def _download(self, request: Request) -> Reply:
        content = self.get(_path(request))
        if content is None:
            raise ApiError("NOT_FOUND", f"The file {_path(request)} does not exist.")
        stamp = "Thu, 01 Jan 2026 00:00:00 GMT"
        return Reply(content, headers={"Last-Modified": stamp, "Content-Type": "application/octet-stream"})

    def _sign(self, request: Request) -> dict[str, Any]:
        path = request.query.get("path", "")
        if self.get(path) is None:
            raise ApiError("NOT_FOUND", f"The file {path} does not exist.")
        return {"url": f"{self._workspace.url}{SIGNED}{quote(path)}", "headers": []}

    def _delete(self, request: Request) -> Reply:
        if self._files.pop(_path(request), None) is None:
            raise ApiError("NOT_FOUND", f"The file {_path(request)} does not exist.")
        return Reply(b"", 204)

    def _make_directory(self, request: Request) -> Reply:
        return Reply(b"", 204)

    def _see_directory(self, request: Request) -> Reply:
        if not self.below(_path(request)):
            raise ApiError("NOT_FOUND", f"The directory {_path(request)} does not exist.")
        return Reply(b"")

    def _list(self, request: Request) -> dict[str, Any]:
        folder = _path(request).rstrip("/")
        entries: dict[str, dict[str, Any]] = {}
        for path, content in self.below(folder).items():
            name, slash, _ = path.partition("/")
            size = {} if slash else {"file_size": len(content)}
            entries[name] = {"name": name, "path": f"{folder}/{name}", "is_directory": bool(slash), **size}
        if not entries:
            raise ApiError("NOT_FOUND", f"The directory {folder} does not exist.")
        return {"contents": [entries[name] for name in sorted(entries)]}


def _path(request: Request) -> str:
    return unquote(request.parameters["path"])

"""Lakebase: database instances and endpoints of projects, and tokens that are their passwords."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fake_workspace.wire import ApiError, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace


class Lakebase:
    """Databases by name, with the host that each is at.

    `on_token` is told of each token that is issued, and whose it is: what makes it the password in a database.
    """

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._hosts: dict[str, str] = {}
        self.tokens: list[str] = []
        self.token_lasts_s = 3600.0
        self.on_token: Callable[[str, str], None] = lambda user, token: None
        route = workspace.router.add
        route("GET", "/api/2.0/database/instances/{name}", self._instance)
        route("POST", "/api/2.0/database/credentials", self._instance_token)
        route("GET", "/api/2.0/postgres/projects/{rest...}", self._endpoint)
        route("POST", "/api/2.0/postgres/credentials", self._endpoint_token)

    def add(self, name: str, host: str) -> None:
        """A database: an instance, or an endpoint by its whole name."""
        self._hosts[name] = host

    def _instance(self, request: Request) -> dict[str, Any]:
        name = request.parameters["name"]
        return {
            "name": name,
            "state": "AVAILABLE",
            "read_write_dns": self._host(name),
            "pg_version": "PG_VERSION_16",
        }

    def _endpoint(self, request: Request) -> dict[str, Any]:
        name = f"projects/{request.parameters['rest']}"
        return {"name": name, "status": {"hosts": {"host": self._host(name)}}}

    def _instance_token(self, request: Request) -> dict[str, Any]:
        said = request.json(known=["request_id", "claims"], required=["instance_names", "request_id"])
        for name in said["instance_names"]:
            self._host(name)
        return {"token": self._token(request.user), "expiration_time": self._end(".123456Z")}

    def _endpoint_token(self, request: Request) -> dict[str, Any]:
        self._host(request.json(known=["claims", "ttl", "expire_time"], required=["endpoint"])["endpoint"])
        return {"token": self._token(request.user), "expire_time": self._end("Z")}

    def _host(self, name: str) -> str:
        if name not in self._hosts:
            raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Database instance '{name}' does not exist.")
        return self._hosts[name]

    def _token(self, user: str) -> str:
        self.tokens.append(f"lakebase-token-{len(self.tokens) + 1}-of-{user}")
        self.on_token(user, self.tokens[-1])
        return self.tokens[-1]

    def _end(self, rest: str) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + self.token_lasts_s)) + rest

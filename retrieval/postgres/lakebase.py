"""Databricks Lakebase: a PostgreSQL whose passwords are tokens of the workspace that last an hour."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any

from retrieval.workspace import open_workspace, workspace_errors

_DATABASE = "databricks_postgres"
_RENEW_S = 300
_LASTS_S = 3600


class Lakebase:
    """One Lakebase database, an instance or an endpoint of a project. Safe for many threads."""

    def __init__(self, name: str) -> None:
        """`name` is an instance's, or `projects/…/branches/…/endpoints/…`."""
        self.name = name
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0
        self._host = ""
        self._user = ""

    def parameters(self, *, with_host: bool, with_user: bool) -> dict[str, Any]:
        """What libpq needs to connect now.

        Raises:
            ConfigurationError: if there are no credentials of a workspace.
            WorkspaceError: if the workspace does not know the database, or refuses a token.
        """
        with self._lock, workspace_errors(f"The Lakebase database '{self.name}' cannot be reached"):
            found = {"dbname": _DATABASE, "sslmode": "require", "password": self._fresh_token()}
            if with_host:
                found["host"] = self._host = self._host or self._find_host()
            if with_user:
                found["user"] = self._user = self._user or str(_client().current_user.me().user_name)
            return found

    def _fresh_token(self) -> str:
        if time.time() < self._good_until - _RENEW_S:
            return self._token
        client = _client()
        if self._is_endpoint:
            credential: Any = client.postgres.generate_database_credential(self.name)
            ends = credential.expire_time
        else:
            credential = client.database.generate_database_credential(instance_names=[self.name])
            ends = credential.expiration_time
        self._token, self._good_until = str(credential.token), _seconds(ends)
        return self._token

    def _find_host(self) -> str:
        client = _client()
        if self._is_endpoint:
            status: Any = client.postgres.get_endpoint(self.name).status
            return str(status.hosts.host)
        return str(client.database.get_database_instance(self.name).read_write_dns)

    @property
    def _is_endpoint(self) -> bool:
        return "/" in self.name


def _client() -> Any:
    return open_workspace().client


def _seconds(moment: Any) -> float:
    """A moment as either API of Lakebase tells it, in seconds of the epoch."""
    if isinstance(moment, str):  # of UTC; Python before 3.11 does not read all fractions of a second
        return (
            datetime.fromisoformat(moment.rstrip("Z").partition(".")[0])
            .replace(tzinfo=timezone.utc)
            .timestamp()
        )
    if moment is not None and hasattr(moment, "ToSeconds"):
        return float(moment.ToSeconds())
    return time.time() + _LASTS_S

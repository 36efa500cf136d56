"""A Databricks workspace: which it is, and credentials that are fresh at each call.

Credentials are those of the Databricks SDK's unified authentication: the environment, a profile of
~/.databrickscfg, the command line's login, a notebook, an app, Model Serving. Nothing of them is kept here.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.asking_user import asking_for as asking_for
from retrieval.asking_user import invoker_token as invoker_token
from retrieval.asking_user import user_token as user_token
from retrieval.errors import ConfigurationError, WorkspaceError
from retrieval.extras import needs_extra
from retrieval.secrets import hide_secrets
from retrieval.workspace_errors import workspace_errors as workspace_errors

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_OF_THE_SDK = ("DATABRICKS_", "ARM_", "GOOGLE_", "IS_IN_D", "DB_MODEL_SERVING_", "SERVING_CREDENTIALS_DIR")
_OPENING_S = 10
_RETRYING_S = 60


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace that credentials were found for; they are renewed as they run out. Safe to share between threads."""

    client: WorkspaceClient

    @property
    def host(self) -> str:
        """Its address, `https://…`, without a slash at its end."""
        return str(self.client.config.host)

    @property
    def method(self) -> str:
        """How it is signed in to, as the SDK calls it: `pat`, `oauth-m2m`, `databricks-cli`, …"""
        return str(self.client.config.auth_type)

    def headers(self, as_user: bool = False) -> dict[str, str]:
        """The headers that authenticate one request: ask for them anew at each.

        Raises:
            WorkspaceError: if the credentials cannot be renewed, or `as_user` and nobody's token is known.
        """
        if as_user:
            return {"Authorization": f"Bearer {self.token(as_user=True)}"}
        what = f"Signing in to {self.host} ({self.method})"
        with workspace_errors(what):
            try:
                return dict(self.client.config.authenticate())
            except (
                ValueError,
                RuntimeError,
            ) as error:  # what the SDK's credentials raise when they are refused
                raise WorkspaceError(f"{what}: {_line(error)}. {_WAYS_IN}") from error

    def token(self, as_user: bool = False) -> str:
        """The bearer token for one request: ask for it anew at each.

        Raises:
            WorkspaceError: as `headers`, or if one signs in here without a token.
        """
        if as_user:
            if token := user_token():
                return token
            raise WorkspaceError(
                "This is asked on behalf of the user, and no user's token came with the question. On Databricks "
                "Apps it is the header x-forwarded-access-token (give the app user authorization and its scopes), "
                "on Model Serving the agent needs an auth policy with them; elsewhere switch user_credentials off."
            )
        scheme, _, token = self.headers().get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise WorkspaceError(f"Signing in to {self.host} by '{self.method}' gives no token. {_WAYS_IN}")
        return token


_WAYS_IN = (
    "Set DATABRICKS_HOST and DATABRICKS_TOKEN, or DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, "
    "or sign in with `databricks auth login` and set DATABRICKS_CONFIG_PROFILE."
)

_open: dict[str, Workspace] = {}
_opening = threading.Lock()


def open_workspace() -> Workspace:
    """The workspace that the environment names; the same one until the environment changes.

    Raises:
        ConfigurationError: if no credentials are found, or several that contradict each other.
    """
    key = _environment()
    with _opening:
        if key not in _open:
            _open.clear()
            _open[key] = _find()
        return _open[key]


def methods_opened() -> list[str]:
    """How the workspaces that are open were signed in to, with the variables that said so."""
    return [f"{workspace.method}{_said_by()}" for workspace in _open.values()]


def _find() -> Workspace:
    with needs_extra("databricks", "a Databricks workspace"):
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config
    try:
        # It asks the host about itself first: a host that is not there shall not hold the start up for long.
        config = Config(product="citeqa", http_timeout_seconds=_OPENING_S, retry_timeout_seconds=_OPENING_S)
    except ValueError as error:
        raise ConfigurationError(f"No way into a Databricks workspace: {_line(error)}. {_WAYS_IN}") from error
    except OSError as error:
        raise WorkspaceError(
            f"The Databricks workspace cannot be reached: {_line(error)}. {_WAYS_IN}"
        ) from error
    if not config.host:
        raise ConfigurationError(f"No Databricks workspace is named: DATABRICKS_HOST is unset. {_WAYS_IN}")
    config.http_timeout_seconds = config.retry_timeout_seconds = _RETRYING_S
    return Workspace(WorkspaceClient(config=config))


def _environment() -> str:
    said = sorted(item for item in os.environ.items() if item[0].startswith(_OF_THE_SDK))
    return hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()


def _said_by() -> str:
    names = ("DATABRICKS_CONFIG_PROFILE", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_AUTH_TYPE")
    said = [name for name in names if os.environ.get(name)]
    return f" ({', '.join(said)})" if said else ""


def _line(error: BaseException) -> str:
    # The SDK appends its whole configuration, and before it advice that ours is in place of.
    said = str(error).partition(" Config: host=")[0].partition(", please check https://")[0]
    return " ".join(hide_secrets(said).split()).rstrip(".")

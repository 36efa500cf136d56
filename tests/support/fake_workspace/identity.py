"""Who asks: personal access tokens, and OAuth for service principals, whose tokens last as long as the test says."""

from __future__ import annotations

import base64
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fake_workspace.wire import ApiError, Reply, Request

if TYPE_CHECKING:
    from fake_workspace.workspace import FakeWorkspace

OPEN_PATHS = ("/oidc/", "/.well-known/")


@dataclass(frozen=True)
class _Token:
    user: str
    expires_at: float


class Identity:
    """Users, service principals and their tokens."""

    def __init__(self, workspace: FakeWorkspace) -> None:
        self._workspace = workspace
        self._tokens: dict[str, _Token] = {}
        self._principals: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self.token_lifetime_s = 3600.0
        self.tokens_issued = 0
        route = workspace.router.add
        route("GET", "/oidc/.well-known/oauth-authorization-server", self._discover)
        route("GET", "/.well-known/databricks-config", self._config)
        route("POST", "/oidc/v1/token", self._issue)
        route("GET", "/api/2.0/preview/scim/v2/Me", self._me)

    def add_token(self, user: str, token: str | None = None, lasts_s: float = float("inf")) -> str:
        """A token of a user, the one that is given or a new one."""
        token = token or f"dapi-fake-{user}-{next(self._numbers)}"
        self._tokens[token] = _Token(user, time.time() + lasts_s)
        return token

    def add_service_principal(self, client_id: str, secret: str) -> None:
        """A service principal that can get tokens for itself."""
        self._principals[client_id] = secret

    def revoke(self, token: str) -> None:
        """From now on this token is nobody's."""
        del self._tokens[token]

    def user_of(self, request: Request) -> str:
        """Whose token the request bears; "" at paths that are open to all."""
        if request.path.startswith(OPEN_PATHS):
            return ""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = self._tokens.get(token)
        if scheme.lower() != "bearer" or known is None:
            raise ApiError(
                "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API."
            )
        if known.expires_at <= time.time():
            raise ApiError("UNAUTHENTICATED", "Token is expired. Please generate a new token and try again.")
        return known.user

    def _discover(self, request: Request) -> dict[str, Any]:
        url = self._workspace.url
        return {
            "authorization_endpoint": f"{url}/oidc/v1/authorize",
            "token_endpoint": f"{url}/oidc/v1/token",
        }

    def _config(self, request: Request) -> dict[str, Any]:
        return {"oidc_endpoint": f"{self._workspace.url}/oidc", "workspace_id": "1234567890"}

    def _issue(self, request: Request) -> Reply:
        said = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        client_id, secret = said.get("client_id", ""), said.get("client_secret", "")
        if request.headers.get("authorization", "").startswith("Basic "):
            pair = base64.b64decode(request.headers["authorization"][6:]).decode()
            client_id, _, secret = pair.partition(":")
        if said.get("grant_type") != "client_credentials" or self._principals.get(client_id) != secret:
            return Reply(
                {"error": "invalid_client", "error_description": "Client authentication failed"}, 401
            )
        self.tokens_issued += 1
        token = self.add_token(client_id, lasts_s=self.token_lifetime_s)
        return Reply(
            {"access_token": token, "token_type": "Bearer", "expires_in": int(self.token_lifetime_s)}
        )

    def _me(self, request: Request) -> dict[str, Any]:
        return {"userName": request.user, "id": str(abs(hash(request.user))), "active": True}

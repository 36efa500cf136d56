"""Serving endpoints of a Databricks workspace as language models, whole and streamed alike.

`databricks_dspy.DatabricksLM` adds its credentials to synchronous calls alone: what is awaited goes out with none,
and nowhere (a test tells when that is mended); and it stands on an interface that DSPy 3.5 removes. So all calls
take the one way that always works: the engine with which DSPy itself speaks OpenAI's protocol, and credentials
that it asks for at every request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from dspy.clients.engines.lm15_engine import LM15Engine, timeouts_for
from dspy.lm15 import (
    AccessPolicy,
    AsyncOpenAIChatLM,
    AuthError,
    NotConfiguredError,
    OpenAIChatCompat,
    OpenAIChatLM,
    ProviderDefinition,
    ProviderError,
    Request,
    Response,
    RouterConfig,
)

from retrieval.errors import CiteqaError
from retrieval.workspace import open_workspace
from retrieval.workspace_errors import ADVICE, credentials_tried

PROVIDER = "databricks"

# The fields of Databricks' foundation-model API: it takes max_tokens, and reports usage in a stream when asked to.
_DIALECT = OpenAIChatCompat(
    instruction_role="system",
    max_tokens_field="max_tokens",
    stream_usage="include",
    thinking_format="reasoning_effort",
    tool_result_name="omit",
)


class DatabricksEngine:
    """DSPy's engine at the endpoints of the workspace, with credentials that are fresh at each request.

    The workspace is opened when it is first asked. With `as_user`, a request bears the token of the user who
    asks in this context. Where the environment names an address and a key for LiteLLM (DATABRICKS_API_BASE,
    DATABRICKS_API_KEY), these are used. Safe to share between threads.
    """

    def __init__(self, *, timeout_s: float, api_base: str | None = None, as_user: bool = False) -> None:
        self._timeout_s = timeout_s
        self._api_base = api_base or os.environ.get("DATABRICKS_API_BASE")
        self._as_user = as_user
        self._engine_at = lru_cache(maxsize=4)(self._build)

    def complete(self, request: Request) -> Response:
        """One response.

        Raises:
            NotConfiguredError: if there are no credentials, or nobody whose token to bear.
            LM15Error: what DSPy knows of failures; refused credentials say which were tried.
        """
        with self._credentials_told():
            return self._engine().complete(request)

    def stream(self, request: Request) -> Iterator[Any]:
        """The events of one response. Raises as `complete`."""
        with self._credentials_told():
            yield from self._engine().stream(request)

    def _engine(self) -> LM15Engine:
        return self._engine_at(self._api_base or f"{open_workspace().host}/serving-endpoints")

    def _build(self, base_url: str) -> LM15Engine:
        definition = ProviderDefinition(
            id=PROVIDER,
            dialect="openai-chat",
            adapter=_DatabricksChat,
            async_adapter=AsyncOpenAIChatLM,
            access=AccessPolicy(provider=PROVIDER, base_url=base_url),
            compat=_DIALECT,
        )
        return LM15Engine(
            RouterConfig(
                env={},
                providers=(definition,),
                api_keys={PROVIDER: self._token},
                timeouts=timeouts_for(self._timeout_s),
            )
        )

    def _token(self) -> str:
        if not self._as_user and (key := os.environ.get("DATABRICKS_API_KEY")):
            return key
        return open_workspace().token(as_user=self._as_user)

    @contextmanager
    def _credentials_told(self) -> Iterator[None]:
        try:
            yield
        except AuthError as error:
            reason = error.message.strip().splitlines()[0].rstrip(".")
            kind = "permission" if error.status == 403 else "auth"
            tried = credentials_tried(self._as_user)
            raise AuthError(f"{reason}. {tried} {ADVICE[kind]}", status=error.status) from error
        except CiteqaError as error:
            raise NotConfiguredError(str(error), provider=PROVIDER) from error


class _DatabricksChat(OpenAIChatLM):  # type: ignore[misc, unused-ignore]
    """OpenAI's protocol, but for errors, which are Databricks' own: `{"error_code": …, "message": …}`."""

    def normalize_error(self, status: int, body: str) -> ProviderError:
        """The error as DSPy has it, with what Databricks said."""
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if isinstance(said, dict) and "error" not in said and said.get("message"):
            body = json.dumps(
                {"error": {"message": str(said["message"]).rstrip("."), "code": said.get("error_code")}}
            )
        error: ProviderError = super().normalize_error(status, body)
        return error

"""Whose question it is: the token of the user who asks, for as long as the question is answered.

It is held by the context, so that it follows the work into copied contexts and never meets another question's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

USER_TOKEN_HEADER = "x-forwarded-access-token"
"""Where Databricks Apps puts the token of the user who sends a request, if the app may act for users."""

_token: ContextVar[str | None] = ContextVar("asking_user_token", default=None)


@contextmanager
def asking_for(token: str | None) -> Iterator[None]:
    """Within, `user_token()` is this one: what is asked on behalf of the user bears it.

    Enter it in the thread that does the work, and never across a `yield`.
    """
    before = _token.set(token or None)
    try:
        yield
    finally:
        _token.reset(before)


def user_token() -> str | None:
    """The token of the user who asks; None where nobody's is known."""
    return _token.get()


def invoker_token() -> str | None:
    """On Databricks Model Serving, the token of whoever sent the request that this thread answers; else None.

    Model Serving keeps it with the thread of the request: read it there, before any other thread takes over.
    """
    if not is_model_serving():
        return None
    try:
        from mlflowserving.scoring_server.agent_utils import (  # type: ignore[import-not-found, unused-ignore]
            fetch_obo_token,
        )
    except ImportError:  # as Databricks' own clients do where the server is an older one
        token = threading.main_thread().__dict__.get("invokers_token")
    else:
        token = fetch_obo_token()
    return str(token) if token else None


def is_model_serving() -> bool:
    """Whether this process is a model on Databricks Model Serving."""
    names = ("IS_IN_DB_MODEL_SERVING_ENV", "IS_IN_DATABRICKS_MODEL_SERVING_ENV")
    return any(os.environ.get(name) == "true" for name in names)

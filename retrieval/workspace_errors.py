"""What went wrong with a Databricks workspace, in one line: what was asked, what it said, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from retrieval.errors import CiteqaError, WorkspaceError
from retrieval.secrets import hide_secrets

_REASON_CHARACTERS = 300

ADVICE = {
    "auth": "Renew the token, or sign in with `databricks auth login`; `databricks auth describe` shows what is used.",
    "permission": "Ask the owner for it, or deploy with it among the agent's resources.",
    "not_found": "Check the name (catalog.schema.name for what Unity Catalog holds) and the workspace.",
    "busy": "Ask again later, or raise the limit in the workspace.",
    "timeout": "It did not answer in time: ask again, or raise the timeout.",
    "network": "Check DATABRICKS_HOST and the network.",
    "broken": "Its answer broke off or was no JSON: ask again; if it stays, a proxy between may be the cause.",
    "server": "Ask again later; https://status.databricks.com tells of disturbances.",
    "refused": "",
}
"""What to do, by the kind of an error."""

_KINDS = {
    400: "refused",
    401: "auth",
    403: "permission",
    404: "not_found",
    408: "timeout",
    429: "busy",
    503: "busy",
    504: "timeout",
}


@contextmanager
def workspace_errors(
    what: str, error_type: Callable[[str], CiteqaError] = WorkspaceError, *, as_user: bool = False
) -> Iterator[None]:
    """Within, errors of Databricks' clients and of the network become an `error_type` of one line.

    `what` begins it, as in "The index main.rag.passages cannot be searched". With `as_user`, the credentials
    were those of the user who asks. Other errors, ours among them, pass as they are.
    """
    try:
        yield
    except CiteqaError:
        raise
    except Exception as error:
        kind = kind_of(error)
        if kind is None:
            raise
        raise error_type(sentence(what, kind, error, as_user=as_user)) from error


def kind_of(error: BaseException) -> str | None:
    """Which key of ADVICE an error of Databricks' clients or the network belongs to; None if it is neither."""
    if (status := status_of(error)) is not None:
        return _KINDS.get(status, "server" if status >= 500 else "refused")
    import requests

    # The SDK retries until its time is up, and then says what it last met only as the cause.
    if type(error) is TimeoutError and error.__cause__ is not None:
        return kind_of(error.__cause__) or "timeout"
    if isinstance(error, requests.Timeout | TimeoutError):
        return "timeout"
    if isinstance(error, requests.exceptions.RetryError):
        return "busy"
    # A body that breaks off is a ChunkedEncodingError, a half-sent JSON text a JSONDecodeError.
    if isinstance(error, requests.exceptions.ChunkedEncodingError | JSONDecodeError):
        return "broken"
    if isinstance(error, requests.exceptions.InvalidJSONError | requests.exceptions.ContentDecodingError):
        return "broken"
    if isinstance(error, requests.RequestException | ConnectionError):
        return "network"
    return None


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of the SDK, of AI Search's client or of requests stands for; None if none."""
    given = getattr(error, "status_code", None)
    if isinstance(given, int) and _is_of(error, "databricks"):
        return given
    response = getattr(error, "response", None)
    if response is not None and isinstance(getattr(response, "status_code", None), int):
        return int(response.status_code)
    if not _is_of(error, "databricks"):
        return None
    return _status_of_sdk_error(error)


def sentence(what: str, kind: str, error: object, *, as_user: bool = False) -> str:
    """One line: what could not be done, what was said, whose credentials were tried, what to do."""
    if type(error) is TimeoutError and error.__cause__ is not None:
        error = f"{error}: {error.__cause__}"
    # To refusals the SDK appends its whole configuration.
    said = (_body_message(error) or str(error)).partition(" Config: host=")[0]
    reason = " ".join(hide_secrets(said).split()).rstrip(".")
    reason = reason if len(reason) <= _REASON_CHARACTERS else f"{reason[: _REASON_CHARACTERS - 1]}…"
    parts = [f"{what.rstrip('.')}: {reason or type(error).__name__}."]
    if kind in ("auth", "permission"):
        parts.append(credentials_tried(as_user))
    return " ".join([*parts, ADVICE[kind]]).strip()


def _body_message(error: object) -> str:
    """What the body of a refusal says, where requests' error tells the status alone; empty where it says nothing."""
    try:
        said = getattr(error, "response", None).json()  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return ""
    return str(said.get("message") or "") if isinstance(said, dict) else ""


def credentials_tried(as_user: bool) -> str:
    """A sentence on whose credentials an answer refused."""
    if as_user:
        return "Tried: the token of the user who asks (on behalf of)."
    from retrieval.workspace import methods_opened

    methods = methods_opened()
    return f"Tried: {' and '.join(methods)}." if methods else "No credentials were tried."


def _is_of(error: BaseException, package: str) -> bool:
    return any(type_.__module__.partition(".")[0] == package for type_ in type(error).__mro__)


def _status_of_sdk_error(error: BaseException) -> int | None:
    """The SDK's errors do not carry their status: their type says it."""
    try:
        from databricks.sdk.errors import platform
        from databricks.sdk.errors.base import DatabricksError
    except ImportError:
        return None
    for status, type_ in platform.STATUS_CODE_MAPPING.items():
        if isinstance(error, type_):
            return int(status)
    return 400 if isinstance(error, DatabricksError) else None

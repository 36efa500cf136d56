"""What goes wrong while serving, in the forms that clients read: OpenAI's, Databricks', and a person's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from program.lm_errors import hide_secrets
from retrieval.errors import (
    CiteqaError,
    FilterError,
    LanguageModelError,
    RequestError,
    RetrievalError,
    StorageError,
)

_DATABRICKS_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "BAD_REQUEST",
    408: "REQUEST_TIMEOUT",
    413: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    502: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}

_LANGUAGE_MODEL_STATUS = {"rate_limit": 429, "timeout": 504}
"""By the kind of a LanguageModelError; any other is a bad gateway."""

_LANGUAGE_MODEL_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request was not answered, or not to its end.

    `code` is ours, stable and in lower case; `retry_after_s` says when another try makes sense.
    """

    status: int
    code: str
    message: str
    retry_after_s: float | None = None

    @property
    def error_code(self) -> str:
        """Databricks' code of the status."""
        return _DATABRICKS_CODES.get(self.status, "INTERNAL_ERROR")

    def body(self) -> dict[str, Any]:
        """The JSON body: `error` as the OpenAI API has it, `error_code` and `message` as Databricks does."""
        default = "invalid_request_error" if self.status < 500 else "server_error"
        error = {
            "message": self.message,
            "type": _OPENAI_TYPES.get(self.status, default),
            "code": self.code,
            "param": None,
        }
        return {"error": error, "error_code": self.error_code, "message": self.message}

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, where it is known."""
        return (
            {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        )

    def event(self, sequence_number: int) -> dict[str, Any]:
        """The last event of a stream that broke: OpenAI's `error`, with Databricks' form of it inside.

        One event for both: the openai client stops at the first that it takes for an error, and reads no
        key called `error` in this one; Databricks' clients read `databricks_output` of the last.
        """
        return {
            "type": "error",
            "code": self.code,
            "message": self.message,
            "param": None,
            "sequence_number": sequence_number,
            "databricks_output": {"error": {"error_code": self.error_code, "message": self.message}},
        }


class RequestFailedError(Exception):
    """Ends the handling of a request with a failure that its client is told."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def bad_request(message: str) -> RequestFailedError:
    """The client has to mend its request."""
    return RequestFailedError(Failure(400, "bad_request", message))


def to_failure(error: BaseException) -> Failure | None:
    """What a client is told of `error`; None for a programming error, whose text is not for clients."""
    match error:
        case RequestFailedError():
            return error.failure
        case RequestError() | FilterError():
            return Failure(400, "bad_request", hide_secrets(str(error)))
        case LanguageModelError():
            return _language_model_failure(error)
        case RetrievalError():
            return Failure(503, "retrieval_failed", hide_secrets(str(error)))
        case StorageError():
            return Failure(503, "storage_failed", hide_secrets(str(error)))
        case CiteqaError():
            return Failure(500, "not_configured", hide_secrets(str(error)))
        case _:
            return None


def _language_model_failure(error: LanguageModelError) -> Failure:
    status = _LANGUAGE_MODEL_STATUS.get(error.kind, 502)
    retry_after_s = _LANGUAGE_MODEL_RETRY_AFTER_S if error.kind == "rate_limit" else None
    code = f"language_model_{error.kind}" if error.kind in _LANGUAGE_MODEL_STATUS else "language_model_failed"
    return Failure(status, code, hide_secrets(str(error)), retry_after_s)


def internal_error(request_id: str) -> Failure:
    """The failure of a programming error: the log has its trace under the request id, the client has not."""
    return Failure(
        500, "internal_error", f"Something went wrong here. The server's log has it as {request_id}."
    )

"""Who asks, where a proxy says so: nobody then passes for somebody else."""

from __future__ import annotations

from mlflow.types.agent import ChatContext
from mlflow.types.responses import ResponsesAgentRequest
from starlette.datastructures import Headers

from program.serving.failures import Failure, RequestFailedError


def user_by_header(headers: Headers, header: str) -> str:
    """The user that the proxy names.

    Raises:
        RequestFailedError: 401, if it names none.
    """
    user = headers.get(header, "").strip()
    if not user:
        raise RequestFailedError(
            Failure(
                401, "user_unknown", f"The request does not say who asks: the header {header} is missing."
            )
        )
    return user


def ask_as(request: ResponsesAgentRequest, user: str) -> ResponsesAgentRequest:
    """The request as this user's, whoever it says that it is of."""
    context = request.context or ChatContext()
    custom = {key: value for key, value in (request.custom_inputs or {}).items() if key != "user_id"}
    return request.model_copy(
        update={
            "context": context.model_copy(update={"user_id": user}),
            "custom_inputs": custom if request.custom_inputs is not None else None,
        }
    )

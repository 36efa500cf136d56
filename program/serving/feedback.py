"""What people say of an answer, kept on its trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import mlflow
from mlflow.entities import AssessmentSource, AssessmentSourceType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from program.serving.failures import Failure, RequestFailedError
from program.serving.traces import TraceRecorder
from program.well_formed import well_formed_value

T = TypeVar("T")

FEEDBACK_NAME = "user_feedback"
"""As Databricks' chat app names it, so that both can be counted together."""

_PENDING_TIMEOUT_S = 20.0
_TRIES = 5
_FIRST_PAUSE_S = 0.2


class Feedback(BaseModel):
    """A person's word on one answer. With `assessment_id`, it takes the place of an earlier one."""

    model_config = ConfigDict(extra="forbid")

    trace_id: str = Field(min_length=1, max_length=128)
    value: bool
    comment: Annotated[str | None, BeforeValidator(well_formed_value)] = Field(None, max_length=10_000)
    assessment_id: str | None = Field(None, max_length=128)
    user: str | None = Field(None, max_length=256)


def log_feedback(feedback: Feedback, recorder: TraceRecorder | None) -> str:
    """Put the feedback on its trace, waiting for a trace that is on its way to the store; the assessment's id.

    Raises:
        RequestFailedError: 404 if there is no such trace, 503 if it is still on its way, if the store
            fails, or if nothing is traced here.
    """
    if recorder is None:
        raise RequestFailedError(Failure(503, "tracing_off", "This server keeps no traces, so no feedback."))
    if not recorder.wait_for(feedback.trace_id, _PENDING_TIMEOUT_S):
        raise RequestFailedError(
            Failure(503, "trace_pending", "The trace of this answer is not stored yet. Try again.", 5)
        )
    return _tried(lambda: _log(feedback))


def _log(feedback: Feedback) -> str:
    comment = feedback.comment or None
    source = AssessmentSource(AssessmentSourceType.HUMAN, feedback.user or "playground")
    if feedback.assessment_id:
        logged = mlflow.override_feedback(
            trace_id=feedback.trace_id,
            assessment_id=feedback.assessment_id,
            value=feedback.value,
            rationale=comment,
            source=source,
        )
    else:
        logged = mlflow.log_feedback(
            trace_id=feedback.trace_id,
            name=FEEDBACK_NAME,
            value=feedback.value,
            rationale=comment,
            source=source,
        )
    return str(logged.assessment_id)


def _tried(call: Callable[[], T]) -> T:
    """`call`, tried again while the store is busy."""
    pause_s = _FIRST_PAUSE_S
    for is_last in [False] * (_TRIES - 1) + [True]:
        try:
            return call()
        except MlflowException as error:
            reason = str(error).partition("\n")[0]
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise RequestFailedError(Failure(404, "trace_unknown", f"{reason.rstrip('.')}.")) from None
            if is_last:
                raise RequestFailedError(
                    Failure(503, "store_failed", f"The feedback was not kept: {reason}")
                ) from None
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")

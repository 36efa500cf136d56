"""Labels that people put on a run's traces in MLflow's pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlflow.entities import AssessmentSourceType, Feedback, TraceInfo
from mlflow.tracing.client import TracingClient

from eval.labels import Label, to_value
from eval.metric_names import JUDGE_PREFIX
from eval.records import AnswerRecord
from program.settings import TrackingSettings
from program.tracking import connect, tracking_errors


def read_trace_labels(records: Iterable[AnswerRecord], settings: TrackingSettings) -> list[Label]:
    """The labels on the traces of these answers.

    Raises:
        StorageError: if the tracking store cannot be reached.
    """
    ids = [record.trace_id for record in records if record.trace_id]
    connect(settings)
    with tracking_errors(settings.uri):
        return list(human_labels(TracingClient().store.batch_get_trace_infos(ids)))


def human_labels(infos: Iterable[TraceInfo]) -> Iterator[Label]:
    """People's feedback that says yes or no, under the name of what it answers.

    A judge's verdict that a person corrected there counts as the person's; what was corrected does not.
    """
    for info in infos:
        for assessment in info.assessments or ():
            if not isinstance(assessment, Feedback) or assessment.valid is False:
                continue
            if assessment.source is None or assessment.source.source_type != AssessmentSourceType.HUMAN:
                continue
            value = to_value(assessment.value)
            if value is not None:
                name = str(assessment.name).removeprefix(JUDGE_PREFIX)
                yield Label(JUDGE_PREFIX + name, value, trace_id=info.trace_id)

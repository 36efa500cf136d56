"""Scorers that watch production: registered with the workspace, and running from their own source alone."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from fake_workspace import FakeWorkspace
from mlflow.entities import SpanType, Trace
from mlflow.genai.scorers import Scorer

from eval.monitoring.schedule import Watch, list_monitoring, start_monitoring, stop_monitoring
from eval.monitoring.trace_scorers import TRACE_SCORERS
from eval.traces import collect_traces
from program.cli import cli
from program.settings import TrackingSettings
from retrieval.errors import ConfigurationError, StorageError, WorkspaceError

TRACKING = TrackingSettings(uri="databricks", experiment="/Shared/citeqa")
SETTINGS = ("--set", "tracking.uri=databricks", "--set", "tracking.experiment=/Shared/citeqa")


def answer(*uris: str, **custom: Any) -> dict[str, Any]:
    annotations = [{"type": "url_citation", "url": uri, "title": uri} for uri in uris]
    content = [{"type": "output_text", "text": "…", "annotations": annotations}]
    message = {"type": "message", "id": "m", "role": "assistant", "content": content}
    return {"output": [message], "custom_outputs": custom}


def trace_of(*searches: list[str]) -> Trace:
    def work() -> None:
        with mlflow.start_span("predict", span_type=SpanType.AGENT):
            for uris in searches:
                with mlflow.start_span("search", span_type=SpanType.RETRIEVER) as span:
                    span.set_outputs([{"page_content": "x", "metadata": {"doc_uri": uri}} for uri in uris])

    with collect_traces() as collector:
        return collector.call(work).traces[0]


def as_databricks_runs_it(name: str) -> Any:
    """The scorer made anew from what is stored of it, as Databricks' job does, with nothing of ours at hand."""
    mlflow.set_tracking_uri("databricks")
    stored = json.dumps(TRACE_SCORERS[name].model_dump())
    assert "import eval" not in stored
    assert "from eval" not in stored
    return Scorer.model_validate(json.loads(stored))


@pytest.mark.parametrize(
    ("name", "outputs", "value"),
    [
        ("cited", answer("https://a"), True),
        ("cited", answer(), False),
        ("cited", answer(abstained=True), None),
        ("cited", "some text of another agent", False),
        ("abstained", answer(abstained=True), True),
        ("abstained", answer("https://a", abstained=False), False),
        ("abstained", {"output": []}, None),
        ("dropped_markers", answer(dropped_markers=2), 2),
        ("fell_back", answer(fallback_reason="the model is away"), True),
        ("fell_back", answer(abstained=False), False),
        ("fell_back", "text", None),
    ],
)
def test_what_an_answer_tells_without_gold(
    workspace: FakeWorkspace, name: str, outputs: Any, value: Any
) -> None:
    assert as_databricks_runs_it(name)(outputs=outputs) == value


def test_documents_of_several_searches_count_once(workspace: FakeWorkspace) -> None:
    scorer = as_databricks_runs_it("documents_found")
    assert scorer(trace=trace_of(["https://a", "https://b"], ["https://b"])) == 2
    assert scorer(trace=trace_of([])) == 0
    assert scorer(trace=trace_of()) is None


def test_all_of_ours_are_started_listed_and_stopped(workspace: FakeWorkspace) -> None:
    started = start_monitoring(TRACKING, sample_rate=0.2, filter="attributes.status = 'OK'")
    assert {watch.name for watch in started} == {f"citeqa_{name}" for name in TRACE_SCORERS}
    assert started[0] == Watch("citeqa_cited", 0.2, "attributes.status = 'OK'")
    assert list_monitoring(TRACKING) == started
    stop_monitoring(TRACKING, ["cited"])
    rates = {watch.name: watch.sample_rate for watch in list_monitoring(TRACKING)}
    assert rates.pop("citeqa_cited") == 0
    assert set(rates.values()) == {0.2}
    (scheduled,) = workspace.datasets.scorers.values()
    assert len(scheduled) == len(TRACE_SCORERS)


def test_starting_again_changes_the_share_and_keeps_one_scorer_of_each_name(workspace: FakeWorkspace) -> None:
    start_monitoring(TRACKING, ["cited"], sample_rate=0.2)
    assert start_monitoring(TRACKING, ["cited"], sample_rate=0.5) == list_monitoring(TRACKING)
    assert list_monitoring(TRACKING) == [Watch("citeqa_cited", 0.5)]


def test_mlflows_judges_are_started_beside_ours(workspace: FakeWorkspace) -> None:
    watches = start_monitoring(TRACKING, ["cited"], judges=["groundedness"], sample_rate=0.1)
    assert [watch.name for watch in watches] == ["citeqa_cited", "citeqa_groundedness"]


def test_an_unknown_name_is_refused_with_the_nearest_before_anything_is_begun(
    workspace: FakeWorkspace,
) -> None:
    with pytest.raises(ConfigurationError, match=r"No scorer is called 'cites'\. .*cited"):
        start_monitoring(TRACKING, ["cites"], sample_rate=0.1)
    with pytest.raises(ConfigurationError, match=r"No judge is called 'grounded'"):
        start_monitoring(TRACKING, judges=["grounded"], sample_rate=0.1)
    assert workspace.datasets.scorers == {}


def test_a_store_that_does_not_score_by_itself_says_what_to_run_instead() -> None:
    with pytest.raises(ConfigurationError, match=r"citeqa eval --traces citeqa --since 1d"):
        start_monitoring(TrackingSettings(uri="sqlite:///x.db"), sample_rate=0.1)


def test_no_permission_is_told_in_one_line(workspace: FakeWorkspace) -> None:
    workspace.fault("scheduled-scorers", times=9, status=403, code="PERMISSION_DENIED", message="no EDIT")
    with pytest.raises((StorageError, WorkspaceError), match="no EDIT") as told:
        start_monitoring(TRACKING, ["cited"], sample_rate=0.1)
    assert "\n" not in str(told.value)


def test_the_command_line_starts_shows_and_stops(workspace: FakeWorkspace) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["monitor", *arguments, *SETTINGS])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "citeqa_cited: 50% of the traces" in run("start", "cited", "--sample", "0.5")
    assert "citeqa_cited: 50% of the traces" in run("status")
    assert "citeqa_cited: stopped" in run("stop")

"""Thumbs and comments land on the answer's trace, and the trace is one click away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient

Fixture = Callable[..., Any]

IRON = "When does iron melt?"


def _assessments(page: Any, store: str) -> list[tuple[bool, str | None]]:
    """What was said of the page's last answer, in the MLflow store."""
    words = page.evaluate(
        "Object.entries(localStorage).find(([key]) => key.startsWith('citeqa.conversation.'))[1]"
    )
    trace_id = page.evaluate("(words) => JSON.parse(words).turns.at(-1).answer.traceId", words)
    trace = MlflowClient(tracking_uri=store).get_trace(trace_id)
    valid = [one for one in trace.info.assessments if one.valid is not False]
    return [(one.feedback.value, one.rationale) for one in valid]


def test_a_thumb_and_a_comment_are_kept_on_the_trace(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    good, bad = turn.get_by_role("button", name="Good answer"), turn.get_by_role("button", name="Bad answer")
    good.click()
    turn.get_by_text("Thank you. Saved with the trace.").wait_for()
    assert good.get_attribute("aria-pressed") == "true"
    assert _assessments(page, extractive_server.store) == [(True, None)]
    turn.get_by_label("What was good or bad about it?").fill("Too <b>short</b>")
    with page.expect_response("**/api/feedback"):
        bad.click()
    turn.get_by_text("Thank you. Saved with the trace.").wait_for()
    assert _assessments(page, extractive_server.store) == [(False, "Too <b>short</b>")]
    page.reload()
    assert page.get_by_role("button", name="Bad answer").get_attribute("aria-pressed") == "true"


def test_feedback_that_fails_is_told_and_sent_again(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    failure = {"error": {"message": "no such trace"}}
    page.route("**/api/feedback", lambda route: route.fulfill(status=404, json=failure))
    turn.get_by_role("button", name="Good answer").click()
    turn.get_by_text("Not saved: no such trace").wait_for()
    page.unroute("**/api/feedback")
    turn.get_by_role("button", name="Try again").click()
    turn.get_by_text("Thank you. Saved with the trace.").wait_for()
    assert _assessments(page, extractive_server.store) == [(True, None)]


def test_feedback_waits_out_a_store_that_is_busy(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    page.route("**/api/feedback", lambda route: route.fulfill(status=503, json={}), times=1)
    turn.get_by_role("button", name="Good answer").click()
    turn.get_by_text("Thank you. Saved with the trace.").wait_for()
    assert _assessments(page, extractive_server.store) == [(True, None)]


def test_the_trace_opens_in_a_new_tab(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    address = f"{extractive_server.url}/health"
    page.route("**/api/trace-link*", lambda route: route.fulfill(json={"url": address}))
    with page.context.expect_page() as opened, page.expect_request("**/api/trace-link*") as asked:
        turn.get_by_role("button", name="Trace").click()
    opened.value.wait_for_url(address)
    assert "trace_id=tr-" in asked.value.url
    assert opened.value.evaluate("window.opener") is None


def test_a_trace_that_cannot_be_opened_leaves_no_empty_tab(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    failure = {"error": {"message": "start it with: mlflow ui"}}
    page.route("**/api/trace-link*", lambda route: route.fulfill(status=503, json=failure))
    turn.get_by_role("button", name="Trace").click()
    turn.get_by_text("The trace cannot be opened: start it with: mlflow ui").wait_for()
    assert len(page.context.pages) == 1


def test_without_traces_nothing_is_offered_that_needs_them(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)

    def without(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "tracing": False})

    page.route("**/api/playground", without)
    page.reload()
    turn = ask(page, IRON)
    assert turn.get_by_role("button", name="Copy").count() == 1
    assert turn.get_by_role("button", name="Good answer").count() == 0
    assert turn.get_by_role("button", name="Trace").count() == 0

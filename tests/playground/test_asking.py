"""Asking on the page: the answer as it streams, stopping it, following up, and what fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Fixture = Callable[..., Any]

ANSWER = {
    "answerable": True,
    "answer": "Water boils at 100 degrees. [1] That is **known**.\n\n- one\n- two `[1]`",
}
LONG = " ".join(f"Word{number} of the answer." for number in range(120))


def test_a_question_is_answered_with_its_sources(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, "When does iron melt?")
    assert "Iron melts at 1538 degrees." in turn.locator(".answer-text").inner_text()
    assert turn.locator(".marker").count() >= 1
    assert turn.locator(".sources > .source-list .source").count() >= 1
    assert turn.locator(".made").inner_text().startswith("extractive (no language model)")
    assert page.title() == "When does iron melt? · citeqa"
    assert page.locator("#announcer").inner_text().startswith("Answer complete, ")


def test_an_answer_shows_while_it_is_written(open_page: Fixture, model_server: Any, model: Any) -> None:
    model.fills({"answerable": True, "answer": f"Start of it. [1] {LONG[:1400]}"}, delay_s=0.01)
    page = open_page(model_server)
    page.locator("#question").fill("When does water boil?")
    page.keyboard.press("Enter")
    page.get_by_text("Word3 of").wait_for()
    assert page.locator(".turn").get_attribute("data-status") == "writing"
    # The link is there as soon as its marker is, and stays the same element to the end.
    page.locator(".marker").evaluate("(marker) => { marker.kept = true; }")
    assert page.locator(".marker").get_attribute("href").startswith("https://docs.example/water")
    assert page.locator("#announcer").inner_text() == "Answer is being written"
    page.locator(".turn[data-status=done]").wait_for()
    assert page.locator(".marker").evaluate("(marker) => marker.kept")
    assert "Word50 of" in page.locator(".answer-text").inner_text()


def test_a_models_markdown_is_shown_and_markers_in_code_stay_text(
    open_page: Fixture, ask: Fixture, model_server: Any, model: Any
) -> None:
    model.fills(ANSWER)
    turn = ask(open_page(model_server), "When does water boil?")
    assert turn.locator("strong").inner_text() == "known"
    assert turn.locator(".answer-text li").all_inner_texts() == ["one", "two [1]"]
    assert turn.locator(".answer-text code").inner_text() == "[1]"
    assert turn.locator(".marker").count() == 1
    assert turn.locator(".made .reader-name").inner_text() == "openai/test"


def test_stop_ends_the_answer_and_keeps_what_was_said(
    open_page: Fixture, model_server: Any, model: Any
) -> None:
    model.fills({"answerable": True, "answer": LONG}, delay_s=0.02)
    page = open_page(model_server)
    page.locator("#question").fill("When does water boil?")
    page.keyboard.press("Enter")
    page.get_by_text("Word3 of").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped. What was said so far is kept.").wait_for()
    assert model.wait_for_hang_up()
    assert "Word3 of" in page.locator(".answer-text").inner_text()
    assert "Word119 of" not in page.locator(".answer-text").inner_text()
    assert page.locator("#question").evaluate("(field) => field === document.activeElement")
    model.forget()
    model.fills(ANSWER)
    page.get_by_role("button", name="Ask again").click()
    page.locator(".turn[data-status=done]").wait_for()
    assert page.locator(".turn").count() == 1


def test_a_follow_up_sends_the_earlier_turns(
    open_page: Fixture, ask: Fixture, model_server: Any, model: Any
) -> None:
    model.fills(ANSWER)
    page = open_page(model_server)
    ask(page, "When does water boil?")
    model.forget()
    model.fills({"standalone_question": "When does iron melt?"})
    model.fills({"answerable": True, "answer": "At 1538 degrees. [1]"})
    turn = ask(page, "And when does iron melt?")
    assert "Water boils at 100 degrees." in model.prompt(0)
    assert "When does water boil?" in model.prompt(0)
    assert "Searched for: When does iron melt?" in turn.inner_text()
    assert page.locator(".turn").count() == 2


def test_a_failed_model_is_told_and_the_question_can_be_asked_again(
    open_page: Fixture, ask: Fixture, model_server: Any, model: Any
) -> None:
    model.says("the model is on <b>holiday</b>", status=500)
    page = open_page(model_server)
    turn = ask(page, "When does water boil?", status="failed")
    failure = turn.get_by_role("alert")
    assert "No answer" in failure.inner_text()
    assert "<b>holiday</b>" in failure.inner_text()
    model.forget()
    model.fills(ANSWER)
    turn.get_by_role("button", name="Try again").click()
    page.locator(".turn[data-status=done]").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_what_was_said_before_the_model_broke_off_stays(
    open_page: Fixture, ask: Fixture, model_server: Any, model: Any
) -> None:
    model.fills({"answerable": True, "answer": LONG}, cut_after=60)
    turn = ask(open_page(model_server), "When does water boil?", status="failed")
    assert "Word3 of" in turn.locator(".answer-text").inner_text()
    assert "The answer broke off" in turn.get_by_role("alert").inner_text()


def test_a_connection_that_ends_early_is_no_answer(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    delta = 'data: {"type": "response.output_text.delta", "delta": "Half"}\n\n: wait\n\n'
    page.route("**/responses", lambda route: route.fulfill(body=delta, content_type="text/event-stream"))
    turn = ask(page, "When does iron melt?", status="failed")
    assert turn.locator(".answer-text").inner_text() == "Half"
    assert "The connection ended before the answer was complete." in turn.inner_text()
    page.unroute("**/responses")
    page.route("**/responses", lambda route: route.abort())
    turn.get_by_role("button", name="Try again").click()
    page.get_by_text("The server could not be reached. Is it running?").wait_for()


def test_a_fallback_is_marked_as_such(
    open_page: Fixture, ask: Fixture, guarded_server: Any, model: Any
) -> None:
    model.says("no such model", status=404)
    page = open_page(guarded_server)
    _give_token(page)
    turn = ask(page, "When does iron melt?")
    note = turn.get_by_role("note").inner_text()
    assert note.startswith("The language model failed, so sentences from the documents answer instead.")
    assert turn.locator(".made").inner_text().startswith("extractive (no language model)")


def test_an_answer_that_is_none_is_marked(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    turn = ask(open_page(extractive_server), "Who was Napoleon's second cousin?")
    assert "The documents found do not hold an answer." in turn.inner_text()


def test_a_busy_server_says_how_long_to_wait(
    open_page: Fixture, ask: Fixture, guarded_server: Any, model: Any
) -> None:
    model.fills({"answerable": True, "answer": LONG}, delay_s=0.02)
    first, second = open_page(guarded_server), open_page(guarded_server)
    for page in (first, second):
        _give_token(page)
    first.locator("#question").fill("When does water boil?")
    first.keyboard.press("Enter")
    first.get_by_text("Word3 of").wait_for()
    turn = ask(second, "When does iron melt?", status="failed")
    assert "The server is busy." in turn.inner_text()
    waiting = turn.get_by_role("button", name="Try again in")
    assert waiting.is_disabled()
    first.get_by_role("button", name="Stop").click()
    model.forget()
    model.fills(ANSWER)
    turn.get_by_role("button", name="Try again", exact=True).click(timeout=30_000)
    second.locator(".turn[data-status=done]").wait_for()


def test_the_token_is_asked_for_and_kept_in_the_tab(
    open_page: Fixture, ask: Fixture, guarded_server: Any, model: Any
) -> None:
    model.fills(ANSWER)
    page = open_page(guarded_server)
    _give_token(page, "wrong")
    page.get_by_text("That token was not accepted.").wait_for()
    _give_token(page)
    page.locator(".reader .reader-name").wait_for()
    page.reload()
    page.locator(".reader .reader-name").wait_for()
    ask(page, "When does water boil?")
    assert "canary" not in page.evaluate("JSON.stringify(localStorage)")


def test_without_a_token_the_answer_says_what_is_missing(
    open_page: Fixture, ask: Fixture, guarded_server: Any
) -> None:
    page = open_page(guarded_server)
    page.get_by_role("button", name="Cancel").click()
    page.locator("#question").fill("When does water boil?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The server asks for a token.").last.wait_for()


@pytest.mark.parametrize("key", ["isComposing", "keyCode"])
def test_enter_in_an_input_method_does_not_send(open_page: Fixture, extractive_server: Any, key: str) -> None:
    page = open_page(extractive_server)
    page.locator("#question").fill("ふじさん")
    value = "true" if key == "isComposing" else "229"
    event = f"new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, cancelable: true, {key}: {value}}})"
    assert page.locator("#question").evaluate(f"(field) => field.dispatchEvent({event})")
    assert page.locator(".turn").count() == 0
    page.keyboard.press("Shift+Enter")
    assert page.locator("#question").input_value() == "ふじさん\n"
    page.keyboard.press("Enter")
    page.locator(".turn[data-status=done]").wait_for()


def test_a_long_answer_is_drawn_on_and_finished_parts_stay_as_they_are(
    open_page: Fixture, model_server: Any, model: Any
) -> None:
    text = "\n".join(f"- item {number} of **many**, `code` [1]" for number in range(300))
    model.fills({"answerable": True, "answer": text}, chunk=8)
    page = open_page(model_server)
    page.locator("#question").fill("When does water boil?")
    page.keyboard.press("Enter")
    page.locator(".answer-text li").first.evaluate("(item) => { item.kept = true; }")
    page.locator(".turn[data-status=done]").wait_for(timeout=30_000)
    assert page.locator(".answer-text li").count() == 300
    assert page.locator(".marker").count() == 300
    assert page.locator(".answer-text li").first.evaluate("(item) => item.kept")


def _give_token(page: Any, token: str = "canary-token-0123456789") -> None:
    page.locator("#token").fill(token)
    page.get_by_role("button", name="Continue").click()


def test_what_a_model_searches_for_shows_while_it_searches(
    open_page: Fixture, start_server: Fixture, model: Any
) -> None:
    hostile = "<img src=x onerror=window.injected=9> iron"
    calls = [{"name": "search", "args": {"query": query}} for query in ("water boils", hostile)]
    model.fills({"next_thought": "Both.", "tool_calls": json.dumps(calls)})
    model.fills({"next_thought": "Enough.", "tool_calls": "[]"}, delay_s=2)
    model.fills(ANSWER)
    server = start_server(
        {
            "language_model": {"model": "openai/test", "api_base": model.url, "cache": False},
            "program": {"kind": "react"},
        }
    )
    page = open_page(server)
    page.locator("#question").fill("When do they change?")
    page.keyboard.press("Enter")
    page.get_by_text(f"Searching for: {hostile}…").wait_for()
    page.locator(".turn[data-status=done]").wait_for()
    assert page.locator(".made .searched").inner_text() == f"Searched for: water boils · {hostile}"
    assert page.locator(".searching").count() == 0
    assert page.locator(".marker").count() == 1

"""Conversations: kept in the browser, several of them, in several tabs, with options of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Fixture = Callable[..., Any]

IRON = "When does iron melt?"
WATER = "When does water boil?"


def test_conversations_survive_a_reload(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    ask(page, IRON)
    said = page.locator(".answer-text").inner_text()
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".turn").count() == 0
    ask(page, WATER)
    page.reload()
    assert page.locator(".question").all_inner_texts() == [WATER]
    assert page.locator(".conversation-link").all_inner_texts() == [WATER, IRON]
    page.get_by_role("link", name=IRON).click()
    assert page.locator(".answer-text").inner_text() == said
    assert page.locator(".marker").first.get_attribute("href").startswith("/?document=notes")
    page.go_back()
    page.locator(".question", has_text=WATER).wait_for()
    assert page.locator(".turn").count() == 1


def test_a_conversation_is_renamed(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    ask(page, IRON)
    page.get_by_role("button", name=f"Rename “{IRON}”").click()
    page.get_by_role("textbox", name="Conversation title").fill("Metals")
    page.keyboard.press("Enter")
    assert page.get_by_role("heading", level=1).inner_text() == "Metals"
    page.reload()
    assert page.locator(".conversation-link").all_inner_texts() == ["Metals"]


def test_a_deleted_conversation_can_be_brought_back(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    ask(page, IRON)
    page.get_by_role("button", name=f"Delete “{IRON}”").click()
    assert page.locator(".turn").count() == 0
    assert _stored(page) == []
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".question").all_inner_texts() == [IRON]
    assert len(_stored(page)) == 1


def test_all_conversations_are_deleted_once_that_is_confirmed(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    ask(page, IRON)
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Cancel").click()
    assert len(_stored(page)) == 1
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
    page.locator(".conversation-link").wait_for(state="detached")
    assert _stored(page) == []


def test_two_tabs_add_to_one_conversation_without_loss(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    first = open_page(extractive_server)
    ask(first, IRON)
    second = first.context.new_page()
    second.goto(first.url)
    second.locator(".turn").wait_for()
    ask(second, WATER)
    first.locator(".question", has_text=WATER).wait_for()
    ask(first, "What is steel?")
    second.locator(".turn[data-status=done] .question", has_text="What is steel?").wait_for()
    assert second.locator(".question").all_inner_texts() == [IRON, WATER, "What is steel?"]
    second.get_by_role("button", name="New conversation").click()
    ask(second, "Is mercury liquid?")
    first.get_by_role("link", name="Is mercury liquid?").wait_for()
    assert [len(one["turns"]) for one in _stored(first)] == [3, 1]


def test_a_conversation_deleted_in_another_tab_does_not_come_back(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    first = open_page(extractive_server)
    ask(first, IRON)
    second = first.context.new_page()
    second.goto(first.url)
    second.get_by_role("button", name=f"Delete “{IRON}”").click()
    first.locator("#welcome").wait_for()
    ask(first, WATER)
    assert [one["title"] for one in _stored(first)] == [WATER]


def test_without_storage_the_page_still_answers(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    refuse = "{ get() { throw new DOMException('', 'SecurityError'); } }"
    script = f"Object.defineProperty(window, 'localStorage', {refuse})"
    page.route(
        "**/playground/theme.js", lambda route: route.fulfill(content_type="text/javascript", body=script)
    )
    page.reload()
    page.get_by_text("This browser keeps no storage for this page.").wait_for()
    ask(page, IRON)


def test_full_storage_is_told_and_the_answer_stays(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    page.evaluate(
        """() => {
          for (let size = 5_000_000; size >= 1; size = Math.floor(size / 2)) {
            try { localStorage.setItem(`filler-${size}`, "x".repeat(size)); } catch { /* full */ }
          }
        }"""
    )
    ask(page, IRON)
    page.get_by_text("This browser's storage is full.").wait_for()
    assert "1538" in page.locator(".answer-text").inner_text()


def test_options_are_sent_and_remembered_with_the_conversation(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    page.locator("#options summary").click()
    page.get_by_label("Passages to read").fill("2")
    assert json.loads(page.get_by_label("custom_inputs, as JSON").input_value()) == {"k": 2}
    page.get_by_label("custom_inputs, as JSON").fill('{"k": 1, "filters": {"lang": "ja"}}')
    assert page.get_by_label("Passages to read").input_value() == "1"
    with page.expect_request("**/responses") as sent:
        turn = ask(page, "富士山の高さは？")
    body = sent.value.post_data_json
    assert body["custom_inputs"] == {"k": 1, "filters": {"lang": "ja"}}
    assert body["context"]["conversation_id"] == _stored(page)[0]["id"]
    assert turn.locator(".source").count() == 1
    page.reload()
    assert page.locator("#options-summary").inner_text() == 'k: 1 · filters: {"lang":"ja"}'
    page.get_by_role("button", name="New conversation").click()
    assert page.locator("#options-summary").inner_text() == ""


def test_what_the_server_offers_can_be_chosen(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    offered = {
        "programs": ["default", "verse"],
        "languages": ["en", "ja"],
        "examples": ["When does iron melt?"],
    }
    page.route("**/api/playground", lambda route: route.fulfill(json={**route.fetch().json(), **offered}))
    page.reload()
    page.locator("#options summary").click()
    page.get_by_label("Program", exact=True).select_option("verse")
    page.get_by_label("Language of the documents").select_option("Japanese")
    raw = page.get_by_label("custom_inputs, as JSON")
    assert json.loads(raw.input_value()) == {"program": "verse", "filters": {"lang": "ja"}}
    page.get_by_label("Program", exact=True).select_option("default")
    page.get_by_label("Language of the documents").select_option("Any")
    assert raw.input_value() == ""
    page.get_by_role("button", name=IRON).click()
    page.locator(".turn[data-status=done]").wait_for()


def test_options_that_cannot_be_sent_are_told_in_words(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    page.locator(".reader .reader-name").wait_for()
    page.locator("#options summary").click()
    raw, problem = page.get_by_label("custom_inputs, as JSON"), page.locator("#option-raw-problem")
    for words, told in [
        ('{"k": 8,\n "x": }', "Not valid JSON: look at line 2, character 7."),
        ("[1]", "Must be an object"),
        ('{"kk": 1}', "“kk” is not known. Known: k, filters, program"),
        ('{"k": "8"}', "“k” must be a whole number."),
        ('{"k": 101}', "“k” must be at most 100."),
        ('{"k": 0}', "“k” must be at least 1."),
        ('{"filters": []}', "“filters” must be an object in braces."),
        ('{"program": "verse"}', "There is no program “verse”. There are: default."),
    ]:
        raw.fill(words)
        assert told in problem.inner_text()
        assert raw.get_attribute("aria-invalid") == "true"
    page.locator("#question").fill(IRON)
    page.keyboard.press("Enter")
    assert page.locator(".turn").count() == 0
    page.get_by_role("button", name="Reset").click()
    assert problem.inner_text() == ""
    page.locator("#question").press("Enter")
    page.locator(".turn[data-status=done]").wait_for()


def _stored(page: Any) -> list[dict[str, Any]]:
    """The conversations in the browser's storage, oldest first."""
    entries = page.evaluate("Object.entries(localStorage)")
    words = [value for key, value in entries if key.startswith("citeqa.conversation.")]
    return sorted(map(json.loads, words), key=lambda one: one["turns"][0]["askedAt"])

"""Text of others - documents, titles, addresses, models, the browser's storage - is shown, and does nothing.

That nothing was injected and no dangerous element is in the page is asserted by `open_page` for every test;
here it is tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Fixture = Callable[..., Any]

HOSTILE = '<img src=x onerror="window.injected=1"><script>window.injected=2</script>'


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("At how many degrees does mercury freeze?", "<img src=x onerror="),
        ("At how many degrees does gallium melt in the hand?", "Gallium gpj.exe"),
    ],
)
def test_hostile_documents_are_inert(
    open_page: Fixture, ask: Fixture, extractive_server: Any, question: str, shown: str
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, question)
    assert shown in turn.inner_text()
    turn.locator("details.uncited summary").click()
    for marker in turn.locator(".marker").all():
        assert marker.get_attribute("href").startswith(("/?document=", "https://docs.example/"))
    turn.locator(".marker").first.hover()
    page.get_by_role("tooltip").wait_for()
    turn.locator(".marker[data-document]").first.click()
    page.locator("mark.passage").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "document=" not in url)


def test_a_hostile_question_is_inert(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    turn = ask(page, f"lead? {HOSTILE}")
    assert turn.locator(".question").inner_text() == f"lead? {HOSTILE}"
    assert page.title().startswith("lead? <img")
    page.reload()
    assert HOSTILE[:20] in page.locator(".conversation-link").inner_text()


def test_a_hostile_model_is_inert(open_page: Fixture, ask: Fixture, model_server: Any, model: Any) -> None:
    answer = (
        f"{HOSTILE} [1] [x](javascript:window.injected=3) ![y](data:text/html,z) <a href='javascript:1'>z</a>\n\n"
        f"```html\n{HOSTILE}\n```\n\n| {HOSTILE} |\n|---|\n| [q](vbscript:1) |\n\n<javascript:window.injected=4>"
    )
    model.fills({"answerable": True, "answer": answer})
    turn = ask(open_page(model_server), "When does water boil?")
    assert turn.locator(".answer-text a:not(.marker)").count() == 0
    assert turn.locator(".answer-text img, .answer-text script").count() == 0
    assert "<script>window.injected=2</script>" in turn.locator("pre").inner_text()


def test_corrupt_storage_is_left_out(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    contents = [
        "not json",
        "null",
        "[]",
        '{"version": 1}',
        '{"version": 2, "id": "4", "turns": []}',
        '{"version": 1, "id": "another", "turns": []}',
        '{"version": 1, "id": "6", "turns": [null, 1, {"id": 1}, {"id": "a", "question": "q", "answer": 5}]}',
    ]
    page = open_page(extractive_server)
    script = "(words) => words.forEach((word, id) => localStorage.setItem(`citeqa.conversation.${id}`, word))"
    page.evaluate(script, contents)
    page.goto(f"{extractive_server.url}/?conversation=6")
    assert page.locator(".turn .question").all_inner_texts() == ["q"]
    assert page.locator(".conversation-link").count() == 1
    ask(page, "When does iron melt?")


def test_hostile_storage_is_inert(open_page: Fixture, extractive_server: Any) -> None:
    citation = {
        "number": 1,
        "start": 0,
        "end": 3,
        "url": "javascript:window.injected=1",
        "title": HOSTILE,
        "quote": HOSTILE,
    }
    source = {"number": 2, "doc_uri": "data:text/html,x", "title": HOSTILE, "snippet": HOSTILE, "score": "x"}
    answer = {
        "status": HOSTILE,
        "text": f"[1] {HOSTILE}",
        "citations": [citation, {"number": HOSTILE}],
        "outputs": {
            "reader": HOSTILE,
            "sources": [source],
            "fallback_reason": HOSTILE,
            "timings_ms": HOSTILE,
        },
        "traceId": HOSTILE,
        "error": {"kind": "toString", "message": HOSTILE},
        "feedback": {"value": HOSTILE},
    }
    turn = {"id": HOSTILE, "question": HOSTILE, "answer": answer}
    conversation = {
        "version": 1,
        "id": "ID",
        "title": HOSTILE,
        "turns": [turn],
        "customInputs": {"k": HOSTILE},
    }
    page = open_page(extractive_server)
    page.evaluate(
        "(words) => localStorage.setItem('citeqa.conversation.ID', words)", json.dumps(conversation)
    )
    page.goto(f"{extractive_server.url}/?conversation=ID")
    page.locator(".marker").hover()
    page.get_by_role("tooltip").get_by_text(HOSTILE).first.wait_for()
    assert page.locator(".turn .marker").get_attribute("href").startswith("/?document=javascript%3A")


def test_hostile_server_messages_are_inert(open_page: Fixture, ask: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    body = {"error": {"message": HOSTILE}}
    page.route(
        "**/responses", lambda route: route.fulfill(status=500, json=body, headers={"X-Request-Id": HOSTILE})
    )
    turn = ask(page, "When does iron melt?", status="failed")
    assert HOSTILE in turn.get_by_role("alert").inner_text()


def test_a_trace_link_that_is_no_web_address_is_not_followed(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    page.route(
        "**/api/trace-link*", lambda route: route.fulfill(json={"url": "javascript:window.injected=1"})
    )
    turn = ask(page, "When does iron melt?")
    turn.get_by_role("button", name="Trace").click()
    turn.get_by_text("The trace cannot be opened:").wait_for()
    assert len(page.context.pages) == 1

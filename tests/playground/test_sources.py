"""The sources of an answer: links in the text, what shows at them, the lists, and the document view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

Fixture = Callable[..., Any]

SEA = "By how many degrees does sea water boil later than sweet water?"
IRON = "When does iron melt?"


def test_a_marker_leads_to_the_web_page_at_the_quote(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    turn = ask(open_page(extractive_server), SEA)
    marker = turn.locator(".marker").first
    href = marker.get_attribute("href")
    assert href.startswith(
        "https://docs.example/water?lang=en#boiling:~:text=Sea%20water%20boils%20a%20little,"
    )
    assert marker.get_attribute("target") == "_blank"
    assert marker.get_attribute("rel") == "noopener noreferrer"
    assert marker.inner_text() == "[1]"


def test_the_source_shows_at_a_marker_that_is_pointed_at(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, SEA)
    popover = page.get_by_role("tooltip")
    turn.locator(".marker").first.hover()
    popover.wait_for()
    words = popover.inner_text()
    assert "Water" in words
    assert "Sea water boils a little later" in words
    assert "Score" in words
    popover.hover()
    page.wait_for_timeout(400)
    assert popover.is_visible()
    page.mouse.move(5, 5)
    popover.wait_for(state="hidden")


def test_the_source_shows_at_a_focused_marker_and_escape_closes_it(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, SEA)
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "marker":
            break
    popover = page.get_by_role("tooltip")
    popover.wait_for()
    assert turn.locator(".marker:focus").get_attribute("aria-describedby") == popover.get_attribute("id")
    assert turn.locator(".marker:focus").get_attribute("aria-label").startswith("Source ")
    page.keyboard.press("Escape")
    popover.wait_for(state="hidden")


def test_cited_sources_are_kept_apart_from_what_was_only_retrieved(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    turn = ask(open_page(extractive_server), SEA)
    cited = turn.locator(".sources > .source-list .source")
    assert cited.first.locator(".source-number").inner_text() == turn.locator(".marker").first.get_attribute(
        "data-number"
    )
    assert "Sea water boils a little later" in cited.first.locator("blockquote").first.inner_text()
    assert cited.first.locator(".place").inner_text() == "docs.example/water"
    uncited = turn.locator("details.uncited")
    assert not uncited.locator(".source").first.is_visible()
    uncited.locator("summary").click()
    assert uncited.locator(".source").first.is_visible()
    numbers = turn.locator(".source .source-number").all_inner_texts()
    assert len(set(numbers)) == len(numbers)


def test_a_source_without_a_web_address_opens_in_the_document_view(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, "How was wrought iron made?")
    turn.locator(".marker").first.click()
    view = page.get_by_role("dialog", name="Iron")
    view.locator("mark.passage").wait_for()
    assert "puddling in a furnace" in view.locator("mark.passage").inner_text()
    assert (
        view.locator("mark.passage strong").inner_text() == "Wrought iron was made by puddling in a furnace."
    )
    assert page.title() == "Iron · citeqa"
    assert view.locator(".place").inner_text() == "notes/iron.md"
    # Scrolled to, though sixty paragraphs come before it.
    assert view.locator("mark.passage").evaluate(
        "(mark) => { const at = mark.getBoundingClientRect(); return at.bottom > 0 && at.top < innerHeight; }"
    )
    page.go_back()
    view.wait_for(state="hidden")
    assert page.locator(".turn").count() == 1


def test_the_document_view_has_an_address_of_its_own(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, IRON)
    href = turn.locator(".marker").first.get_attribute("href")
    query = parse_qs(urlsplit(href).query)
    assert query["document"] == ["notes/iron.md"]
    other = open_page(extractive_server, href)
    view = other.get_by_role("dialog", name="Iron")
    # The crab before it is one code point and two UTF-16 units.
    assert view.locator("mark.passage").inner_text().startswith("# Iron")
    assert view.locator("mark.passage strong").inner_text().endswith("Iron melts at 1538 degrees.")
    other.keyboard.press("Escape")
    view.wait_for(state="hidden")
    other.wait_for_url(f"{extractive_server.url}/")


def test_every_passage_can_be_looked_at_in_the_index(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    turn = ask(page, SEA)
    turn.get_by_role("link", name="Show in index: Water").first.click()
    page.get_by_role("dialog", name="Water").locator("mark.passage").wait_for()
    original = page.get_by_role("link", name="Open the original")
    assert original.get_attribute("href").startswith("https://docs.example/water?lang=en#boiling:~:text=")


def test_a_document_that_is_not_indexed_is_told(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server, "/?document=nowhere.md")
    page.get_by_text("The document cannot be shown:").wait_for()
    page.get_by_role("button", name="Close", exact=True).click()
    page.wait_for_url(f"{extractive_server.url}/")


def test_an_answer_is_copied_with_its_sources(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server, permissions=["clipboard-read", "clipboard-write"])
    turn = ask(page, SEA)
    turn.get_by_role("button", name="Copy").click()
    turn.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "[1]" in copied
    assert "- [1] [Water](<https://docs.example/water?lang=en#boiling>)" in copied

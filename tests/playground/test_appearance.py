"""How the page is used: two languages, a phone, the keyboard alone, a screen reader, and in the dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Fixture = Callable[..., Any]

PHONE = {"width": 360, "height": 740}
IRON = "When does iron melt?"

# WCAG 2's contrast of each visible text with what it stands on; what is disabled is exempt.
CONTRASTS = """() => {
  const parse = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    const over = (under, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const style = getComputedStyle(node);
    if (!walker.currentNode.data.trim()) continue;
    if (!node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (style.fontSize === "0px" || node.closest(":disabled, .visually-hidden, noscript")) continue;
    const [a, b] = [luminance(parse(style.color).slice(0, 3)), luminance(ground(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) weak.push([walker.currentNode.data.slice(0, 40), contrast]);
  }
  return weak;
}"""


def test_the_page_speaks_the_browsers_language_and_changes_it_in_place(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server, locale="ja-JP")
    assert page.locator("html").get_attribute("lang") == "ja"
    turn = ask(page, "富士山の高さは？")
    assert "3776" in turn.locator(".answer-text").inner_text()
    assert turn.locator(".answer-text").get_attribute("lang") == "ja"
    assert turn.locator(".sources-heading").inner_text() == "出典"
    assert turn.locator(".made").inner_text().startswith("抽出型（言語モデルなし）")
    assert page.locator("#announcer").inner_text().startswith("回答が完成しました。")
    page.get_by_role("button", name="English").click()
    assert page.locator("html").get_attribute("lang") == "en"
    assert turn.locator(".sources-heading").inner_text() == "Sources"
    assert page.get_by_placeholder("Ask a question…").count() == 1
    page.reload()
    assert page.locator(".sources-heading").inner_text() == "Sources"


def test_every_module_is_named_to_load_at_once(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    page.locator(".reader .reader-name").wait_for()
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)"
    )
    named = page.evaluate(
        "[...document.querySelectorAll('link[rel=modulepreload]')].map((e) => e.getAttribute('href'))"
    )
    modules = {path for path in loaded if path.endswith(".js")}
    assert {*named, "/playground/app.js", "/playground/theme.js"} == modules


def test_both_languages_say_the_same_things(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    keys = "import('/playground/messages.js').then(({LANGUAGES: {en, ja}}) => [Object.keys(en), Object.keys(ja)])"
    english, japanese = page.evaluate(keys)
    assert sorted(english) == sorted(japanese)


@pytest.mark.parametrize("locale", ["en-GB", "ja-JP"])
def test_a_phone_needs_no_sideways_scrolling(
    open_page: Fixture, ask: Fixture, model_server: Any, model: Any, locale: str
) -> None:
    wide = "x" * 300
    answer = f"{wide} [1]\n\n```\n{wide}\n```\n\n| {wide} | b |\n|---|---|\n| c | d |\n\nhttps://docs.example/{wide}"
    model.fills({"answerable": True, "answer": answer})
    page = open_page(model_server, viewport=PHONE, locale=locale, has_touch=True, is_mobile=True)
    fits = "document.documentElement.scrollWidth <= innerWidth && visualViewport.width === 360"
    assert page.evaluate(fits)
    turn = ask(page, f"At how many degrees does water boil? {wide}")
    turn.locator(".uncited summary").click()
    turn.locator(".thumb").first.click()
    turn.locator(".comment textarea").wait_for()
    page.locator("#options summary").click()
    assert page.evaluate(fits)
    page.locator("#options summary").click()
    turn.locator(".source-foot a").first.click()
    page.locator(".document-text").wait_for()
    assert page.evaluate(fits)


def test_a_phone_keeps_the_conversations_in_a_drawer(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server, viewport=PHONE)
    ask(page, IRON)
    assert not page.get_by_role("link", name=IRON).is_visible()
    page.get_by_role("button", name="Open conversations").click()
    page.get_by_role("link", name=IRON).wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("link", name=IRON).wait_for(state="hidden")
    assert page.locator("#open-sidebar").evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="New conversation").click()
    page.locator("#welcome").wait_for()
    assert page.locator("#open-sidebar").get_attribute("aria-expanded") == "false"


def test_the_keyboard_alone_is_enough(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server)
    page.locator(".reader .reader-name").wait_for()
    page.locator(".skip-link").focus()
    assert page.locator(".skip-link").evaluate("(link) => link.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    page.keyboard.type("How was wrought iron made?")
    page.keyboard.press("Enter")
    page.locator(".turn[data-status=done]").wait_for()
    focused = "document.activeElement"
    for _ in range(60):
        page.keyboard.press("Shift+Tab")
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none", page.evaluate(f"{focused}.outerHTML")
        if page.evaluate(f"{focused}.className") == "marker":
            break
    page.keyboard.press("Enter")
    page.locator("mark.passage").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "document=" not in url)
    assert page.evaluate(f"{focused}.className") == "marker"


def test_landmarks_headings_and_names_are_there_for_a_screen_reader(
    open_page: Fixture, ask: Fixture, extractive_server: Any
) -> None:
    page = open_page(extractive_server)
    ask(page, IRON)
    for landmark in ("banner", "main", "complementary", "navigation", "form"):
        assert page.get_by_role(landmark).count() == 1, landmark
    levels = page.evaluate(
        """[...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
          .filter((e) => e.checkVisibility())
          .map((e) => +e.tagName[1])"""
    )
    assert levels == sorted(levels)
    assert levels[:3] == [1, 2, 3]
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, a, input, select, textarea")]
          .filter((e) => !(e.textContent || e.ariaLabel || e.labels?.length || "").toString().trim())
          .map((e) => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    open_page: Fixture, ask: Fixture, guarded_server: Any, model: Any, scheme: str
) -> None:
    model.says("down", status=500)
    page = open_page(guarded_server, color_scheme=scheme)
    assert page.evaluate(CONTRASTS) == []
    page.locator("#token").fill("canary-token-0123456789")
    page.keyboard.press("Enter")
    page.locator(".reader .reader-name").wait_for()
    assert page.evaluate(CONTRASTS) == []
    turn = ask(page, IRON)
    turn.locator(".thumb").first.click()
    page.locator("#options summary").click()
    page.locator("#option-raw").fill("{")
    assert page.evaluate(CONTRASTS) == []
    page.locator("#option-raw").fill("")
    page.locator("#options summary").click()
    page.route("**/responses", lambda route: route.abort())
    ask(page, "And water?", status="failed")
    assert page.evaluate(CONTRASTS) == []
    turn.locator(".source-foot a").first.click()
    page.locator("mark.passage").wait_for()
    assert page.evaluate(CONTRASTS) == []


def test_the_colours_can_be_chosen_and_are_remembered(open_page: Fixture, extractive_server: Any) -> None:
    page = open_page(extractive_server, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours: as the system").click()
    page.get_by_role("button", name="Colours: light").click()
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate(ground) != light
    page.get_by_role("button", name="Colours: dark").click()
    assert page.evaluate(ground) == light

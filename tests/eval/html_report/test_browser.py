"""The report in a real browser: nothing is fetched or refused, both themes can be read, a phone shows it whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.html_report.report import write_report
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved
from eval.sweep.results import SweepResult

Make = Callable[..., Any]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = {"width": 390, "height": 800}

# WCAG 2's contrast of each visible text, in drawings too, with what it stands on.
WEAK = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const parse = (color) => {
    canvas.clearRect(0, 0, 1, 1);
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
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, title")) continue;
    const style = getComputedStyle(node);
    const ink = node.closest("svg") ? style.fill : style.color;
    const [a, b] = [luminance(parse(ink).slice(0, 3)), luminance(ground(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (contrast < 4.5) weak.push([walker.currentNode.data.slice(0, 40), contrast]);
  }
  return seen > 300 ? weak : [`only ${seen} texts`];
}"""
CUT_OFF = """() => [...document.querySelectorAll("svg text")].filter((text) => {
  const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
  return inner.left < outer.left - 1 || inner.right > outer.right + 1
    || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
}).map((text) => text.textContent)"""
UNFOLD = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium, and there is none on the PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(sweep: SweepResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "sweep.html"
    write_report(sweep, path)
    return path


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file; when the test is over, nothing else may have been asked for, refused, or gone wrong."""
    contexts, troubles = [], []

    def show(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(f"error: {error.message}"))
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on(
            "request", lambda request: troubles.append(request.url) if request.url != path.as_uri() else None
        )
        page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read_and_none_is_cut_off(show: Make, report: Path, theme: str) -> None:
    page = show(report, color_scheme=theme)
    page.evaluate(UNFOLD)
    assert page.evaluate(WEAK) == []
    assert page.evaluate(CUT_OFF) == []


def test_the_theme_follows_the_system_until_the_button_says_otherwise(show: Make, report: Path) -> None:
    page = show(report, color_scheme="dark")
    dot = "getComputedStyle(document.querySelector('.fill-accent')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(f"[{dot}, {ground}]")
    page.get_by_role("button", name="Show in light colours").click()
    light = page.evaluate(f"[{dot}, {ground}]")
    assert dark[0] != light[0]
    assert (dark[1], light[1]) == ("rgb(23, 22, 19)", "rgb(250, 249, 246)")
    page.get_by_role("button", name="Show in dark colours").click()
    assert page.evaluate(f"[{dot}, {ground}]") == dark


def test_a_phone_needs_no_sideways_scrolling_and_boxes_scroll_by_keyboard(show: Make, report: Path) -> None:
    page = show(report, viewport=PHONE, is_mobile=True, has_touch=True)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    box = page.locator("#leaderboard .scroll").first
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth && box.tabIndex === 0")
    box.focus()
    page.keyboard.press("ArrowRight")
    # Not `wait_for_function`, which may evaluate text in the page: that is what the page forbids.
    for _ in range(100):
        if box.evaluate("(box) => box.scrollLeft") > 0:
            break
        page.wait_for_timeout(50)
    assert box.evaluate("(box) => box.scrollLeft") > 0


def test_the_leaderboard_is_sorted_by_keyboard_and_says_so(show: Make, report: Path) -> None:
    page = show(report)
    table = page.locator("table.board")
    trials = "(table) => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.match(/#\\d+/)[0])"
    assert table.evaluate(trials)[0] == "#4"
    table.get_by_role("button", name="Trial").focus()
    page.keyboard.press("Enter")
    assert table.evaluate(trials) == ["#1", "#2", "#3", "#4"]
    assert table.get_by_role("columnheader", name="Trial").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert table.evaluate(trials) == ["#4", "#3", "#2", "#1"]
    table.get_by_role("button", name="from baseline").click()
    assert table.evaluate(trials)[-1] == "#1"
    assert table.locator("[aria-sort]").count() == 1
    table.get_by_role("button", name="from baseline").click()
    assert table.evaluate(trials)[-1] == "#1"
    assert table.evaluate(trials)[0] == "#4"


def test_on_paper_everything_is_unfolded_and_light(show: Make, report: Path) -> None:
    page = show(report, color_scheme="dark")
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(folded)
    assert before > 5
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == 0
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 30, 27)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == before


def test_hostile_text_does_nothing(show: Make, make_sweep: Make, tmp_path: Path) -> None:
    hostile = (
        "</title></style></script><img src=https://evil.example/x onerror=alert(1)><script>alert(2)</script>"
    )
    uris = ["javascript:alert(3)", f"https://docs.example/'\">{hostile}"]

    def question(number: int) -> Question:
        return Question(
            f"q{number}", f"{number} {hostile}", ((GoldItem(uris[number % 2]),),), tags={"type": hostile}
        )

    def record(question: Question, parameters: Any, random: Any) -> AnswerRecord:
        retrieved = tuple(Retrieved(doc_uri=uri) for uri in uris[: random.randrange(3)])
        return AnswerRecord(
            id=question.id, answer=hostile, retrieved=retrieved, cited_uris=tuple(uris), latency_ms=1
        )

    path = tmp_path / "hostile.html"
    factors = {hostile: [hostile, "b" * 400], "retrieval.k": [3]}
    write_report(make_sweep(factors, questions=6, question=question, record=record, name=hostile), path)
    page = show(path, viewport=PHONE)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("h1").inner_text() == hostile
    assert page.locator("img, iframe, script:not(main ~ script)").count() == 0
    assert page.evaluate(CUT_OFF) == []
    page.locator("#hardest a").first.hover()

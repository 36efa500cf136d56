"""A real browser on the real page, served by real servers: extractive over hostile documents, and with a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from retrieval.local_index import LocalIndex
from retrieval.types import Document

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 10_000
TOKEN = "canary-token-0123456789"

HOSTILE = '<img src=x onerror="window.injected=1"><script>window.injected=2</script>'

DOCUMENTS = [
    Document(
        "https://docs.example/water?lang=en#boiling",
        "# Water\n\nWater boils at 100 degrees, and it melts - as ice - at 0 degrees. "
        "Sea water boils a little later than sweet water, since the salt that is dissolved in it "
        "holds the molecules back, & more so the more of it there is in the pot.",
        "Water",
        "en",
    ),
    Document(
        "notes/iron.md",
        "# Iron\n\nRust is not iron. 🦀 Iron melts at 1538 degrees. Steel is iron with carbon.\n\n"
        + "Iron is heavy.\n\n" * 60
        + "Wrought iron was made by puddling in a furnace.",
        "Iron",
        "en",
    ),
    Document(
        "https://docs.example/fuji",
        "# 富士山\n\n富士山の高さは3776メートルです。山頂では水が約88度で沸騰します。",
        "富士山",
        "ja",
    ),
    Document(
        "javascript:window.injected=3//",
        f"Mercury freezes at minus 39 degrees {HOSTILE}. Mercury is a liquid metal.",
        f"Mercury {HOSTILE}",
        "en",
    ),
    Document(
        "data:text/html,<script>window.injected=4</script>",
        "Gallium melts in the hand at 30 degrees, [click](javascript:window.injected=5) and `<b>code</b>`.",
        "Gallium \u202egpj.exe",
        "en",
    ),
    Document(
        'https://docs.example/"><img src=x onerror=window.injected=6>',
        "Lead melts at 327 degrees & is soft.",
        "Lead",
        "en",
    ),
]


@dataclass(frozen=True)
class RunningServer:
    """A `citeqa serve` of its own process. `store` is the MLflow store that its traces go to."""

    url: str
    store: str


StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("playground") / "index"
    LocalIndex.build(path, DOCUMENTS)
    return str(path)


@pytest.fixture(scope="session")
def start_server(index_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts `citeqa serve` with settings by their dotted names, and stops it when the tests are over."""
    running: list[subprocess.Popen[str]] = []

    def start(settings: dict[str, Any], **environment: str) -> RunningServer:
        folder = tmp_path_factory.mktemp("server")
        store = f"sqlite:///{folder}/mlflow.db"
        config = {
            "retrieval": {"index": index_path},
            "tracking": {"uri": store},
            "serving": {"port": 0, "trace_spool": str(folder / "spool"), **settings.pop("serving", {})},
            **settings,
        }
        file = folder / "agent.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("citeqa")), "serve", "--config", str(file)]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "OPENAI_API_KEY": "sk-canary", **environment},
            )
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, (folder / "log").read_text()
        return RunningServer(line[line.index("http://") :].strip(), store)

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def extractive_server(start_server: StartServer) -> RunningServer:
    return start_server({})


@pytest.fixture(scope="session")
def model_server(start_server: StartServer, lasting_language_model: Any) -> RunningServer:
    """With a scripted language model and no fallback."""
    return start_server({"language_model": _language_model(lasting_language_model)})


@pytest.fixture(scope="session")
def guarded_server(start_server: StartServer, lasting_language_model: Any) -> RunningServer:
    """Asks for a token, answers one question at a time, and falls back to sentences of the documents."""
    return start_server(
        {
            "language_model": _language_model(lasting_language_model),
            "reader": {"fallback": "extractive"},
            "serving": {"max_concurrent": 1, "max_queued": 0},
        },
        CITEQA_TOKEN=TOKEN,
    )


def _language_model(server: Any) -> dict[str, Any]:
    return {"model": "openai/test", "api_base": server.url, "cache": False, "num_retries": 0, "timeout_s": 20}


@pytest.fixture
def model(lasting_language_model: Any) -> Any:
    """The language model behind `model_server` and `guarded_server`, with nothing scripted yet."""
    lasting_language_model.forget()
    return lasting_language_model


# Of a module, not of the session: while playwright runs, no other test of the process could use asyncio.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium, and there is none on the PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


class Tabs:
    """Tabs of a browser. A tab that a test is through with serves the next one, emptied: a new one takes longer."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._free: dict[str, list[Any]] = {}
        self._used: list[tuple[str, Any]] = []
        self.troubles: list[str] = []

    def open(self, options: dict[str, Any]) -> Any:
        key = repr(sorted(options.items()))
        free = self._free.setdefault(key, [])
        page = free.pop() if free else self._new(options)
        self._used.append((key, page))
        return page

    def _new(self, options: dict[str, Any]) -> Any:
        context = self._browser.new_context(**options)
        context.set_default_timeout(TIMEOUT_MS)
        context.on("page", self._watch)
        return context.new_page()

    def _watch(self, page: Any) -> None:
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error.message}"))
        page.on("console", lambda message: self._console(message.text))

    def _console(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.troubles.append(text)

    def give_back(self) -> None:
        """Assert that nothing was injected into any open page and nothing refused, and empty the tabs."""
        used, self._used = self._used, []
        for key, page in used:
            for one in page.context.pages:
                if one.url.startswith("http"):
                    assert one.evaluate(INJECTED) == []
                if one != page:
                    one.close()
            page.unroute_all()
            page.goto(urljoin(page.url, "/playground/icon.svg"))
            page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
            self._free[key].append(page)
        troubles, self.troubles = self.troubles, []
        assert troubles == []


INJECTED = """() => [
  ...(window.injected === undefined ? [] : [`ran: ${window.injected}`]),
  ...document.querySelectorAll("body script, iframe, object, embed, base, body style"),
  ...document.querySelectorAll("img:not([src^='/playground/'])"),
  ...[...document.querySelectorAll("*")].filter((e) => [...e.attributes].some(({ name }) => /^on/i.test(name))),
  ...[...document.querySelectorAll("[href], [src]")].filter((e) =>
    !/^(https?:|\\/|#)/.test(e.getAttribute("href") ?? e.getAttribute("src"))),
].map((found) => found.outerHTML ?? found)"""


@pytest.fixture(scope="module")
def tabs(browser: Any) -> Tabs:
    return Tabs(browser)


@pytest.fixture
def open_page(tabs: Tabs) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server in a browser profile of its own.

    Names and values beside the server are a browser context's options, such as `locale` or `color_scheme`.
    When the test is over, nothing may have been injected into the page, or refused by its policy.
    """

    def open_page(server: RunningServer, path: str = "/", **options: Any) -> Any:
        page = tabs.open({"viewport": {"width": 1000, "height": 700}, "locale": "en-GB", **options})
        page.goto(server.url + path)
        return page

    yield open_page
    tabs.give_back()


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Asks on a page, and waits until the answer is `status`; the last turn."""

    def ask(page: Any, question: str, status: str = "done") -> Any:
        page.locator("#question").fill(question)
        page.keyboard.press("Enter")
        page.locator(f".turn:last-child[data-status={status}] .question", has_text=question).wait_for()
        return page.locator(".turn").nth(page.locator(".turn").count() - 1)

    return ask

"""Secrets are planted wherever they can be, faults are made to repeat them, and nothing that is written shows one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fake_workspace import FakeWorkspace

from program import cli

CANARY = "canary"
PLANTED = {
    "OPENAI_API_KEY": "sk-canary-openai-0123456789",
    "DATABRICKS_TOKEN": "dapi-canary-0123456789abcdef",
    "CITEQA_AGENT_TOKEN": "canary-agent-token",
    "CITEQA_TOKEN": "canary-server-token",
    "PGPASSWORD": "canary-password",
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-password",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret",
}
DOCUMENT = "# Water\n\nWater boils at 100 degrees at sea level.\n"
QUESTION = (
    '{"inputs": {"question": "When does water boil?"}, "expectations": {"expected_retrieved_context": []}}\n'
)

Run = Callable[..., int]


@pytest.fixture
def place(workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A directory to work in, with a document and a question, in an environment full of secrets."""
    folder = tmp_path / "work"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "water.md").write_text(DOCUMENT, encoding="utf-8")
    (folder / "quiz.jsonl").write_text(QUESTION, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    # Absolute: MLflow remembers a store by its address, also when the directory is another one.
    monkeypatch.setenv("CITEQA_TRACKING__URI", f"sqlite:///{folder / 'build' / 'mlflow.db'}")
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    workspace.identity.add_token("ann@example.com", PLANTED["DATABRICKS_TOKEN"])
    answer = (
        "[[ ## answer ## ]]\nAt 100 degrees [1].\n\n[[ ## answerable ## ]]\nTrue\n\n[[ ## completed ## ]]"
    )
    workspace.endpoints.add_chat("llm", lambda body, user: answer)
    workspace.endpoints.add_embeddings("vectors", lambda texts: [[1.0, len(text)] for text in texts])
    mlflow.tracing.reset()
    mlflow.tracing.enable()
    yield folder
    mlflow.tracing.reset()


@pytest.fixture
def run(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Run]:
    """Runs `citeqa`; at the end nothing that it said, logged or wrote may hold a secret."""
    caplog.set_level(logging.DEBUG)
    for talkative in ("urllib3", "httpcore", "asyncio"):
        logging.getLogger(talkative).setLevel(logging.INFO)
    said: list[str] = []

    def citeqa(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["citeqa", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        except Exception as error:  # noqa: BLE001 - as Python does it at the end of a process
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        captured = capfd.readouterr()
        said.append(captured.out + captured.err)
        print(said[-1])  # pytest shows it where a test fails
        return int(code or 0)

    yield citeqa
    mlflow.flush_trace_async_logging()
    assert CANARY not in "".join(said)
    assert CANARY not in caplog.text
    assert leaks(place) == []


def leaks(place: Path) -> list[str]:
    """The files that hold a canary."""
    files = (Path(folder) / name for folder, _, names in os.walk(place) for name in names)
    return [str(file.relative_to(place)) for file in files if CANARY.encode() in file.read_bytes()]


VECTORS = ("--set", "embedder.model=databricks/vectors", "--set", "embedder.cache=null")
WITH_A_MODEL = (
    "--set", "language_model.model=databricks/llm", "--set", "reader.kind=lm",
    "--set", "language_model.num_retries=0", "--set", "language_model.cache=false",
    "--set", "reader.fallback=none",
)  # fmt: skip


def repeat_the_token(workspace: FakeWorkspace, pattern: str) -> None:
    """Let what answers there tell the token that it got, as careless gateways do."""
    token = PLANTED["DATABRICKS_TOKEN"]
    workspace.fault(
        pattern,
        times=99,
        status=403,
        code="PERMISSION_DENIED",
        message=f"Bearer {token} ({PLANTED['PGPASSWORD']}) may not do that",
    )


def test_indexing_asking_and_evaluating_write_no_secret(run: Run, place: Path) -> None:
    assert run("index", "--corpus", "docs", "--base-url", "https://docs.example", *VECTORS) == 0
    assert run("ask", "When does water boil?", *VECTORS, *WITH_A_MODEL) == 0
    assert run("search", "water", *VECTORS, "--explain") == 0
    assert (
        run("eval", "--dataset", "quiz.jsonl", "--set", "evaluation.split=null", *VECTORS, *WITH_A_MODEL) == 0
    )
    assert any((place / "build").rglob("*.db"))


def test_a_logged_agent_holds_no_secret(run: Run, place: Path) -> None:
    assert run("index", "--corpus", "docs", "--base-url", "https://docs.example") == 0
    assert run("log", *WITH_A_MODEL) == 0
    assert list(place.rglob("MLmodel"))


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["one line", "debug"])
def test_what_a_careless_workspace_repeats_is_hidden(
    run: Run, workspace: FakeWorkspace, debug: tuple[str, ...]
) -> None:
    assert run("index", "--corpus", "docs", "--base-url", "https://docs.example", *VECTORS) == 0
    repeat_the_token(
        workspace, "chat/completions|embeddings|managed-evals|serving-endpoints|vector-search|mlflow"
    )
    in_workspace = ("--set", "tracking.uri=databricks", "--set", "tracking.experiment=/Shared/citeqa")
    assert run("ask", "When does water boil?", *WITH_A_MODEL, *debug) != 0
    assert run("search", "water", *VECTORS, *debug) != 0
    assert run("eval", "--agent", "endpoints:/qa", "--dataset", "quiz.jsonl", *debug) != 0
    assert run("monitor", "status", *in_workspace, *debug) != 0
    assert run("search", "water", "--set", "retrieval.backend=vector_search",
               "--set", "retrieval.vector_search.index=a.b.c", *debug) != 0  # fmt: skip


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["one line", "debug"])
def test_credentials_that_are_refused_are_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...]
) -> None:
    assert run("index", "--corpus", "docs", "--base-url", "https://docs.example") == 0
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "canary-client-secret")
    assert run("ask", "When does water boil?", *WITH_A_MODEL, *debug) != 0
    assert run("eval", "--agent", "endpoints:/qa", "--dataset", "quiz.jsonl", *debug) != 0


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["one line", "debug"])
def test_a_password_in_the_address_of_a_database_is_not_shown(run: Run, debug: tuple[str, ...]) -> None:
    address = "postgresql://ann:canary-in-address@127.0.0.1:9/passages"
    assert run("search", "water", "--set", "retrieval.backend=pgvector",
               "--set", f"retrieval.pgvector.dsn={address}", *debug) != 0  # fmt: skip

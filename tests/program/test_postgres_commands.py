"""The command line over PostgreSQL, from documents to an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from program.cli import cli
from program.postgres import open_database
from program.remote_settings import PgVectorSettings
from retrieval.errors import ConfigurationError

Run = Callable[..., str]


@pytest.fixture
def run(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`citeqa …` with a configuration that names the empty database, beside two pages of documents."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "water.md").write_text("# Water\n\nWater boils at 100 degrees at sea level.")
    (tmp_path / "docs" / "iron.md").write_text("# Iron\n\nIron melts at 1538 degrees.")
    (tmp_path / "agent.yaml").write_text(
        f"corpus: {{path: docs, base_url: https://docs.example/}}\n"
        f"retrieval: {{backend: pgvector, pgvector: {{dsn: '{postgres}', table: kb.passages}}}}\n"
        "memory: {store: 'sqlite:///memory.db'}\n"
    )

    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--config", "agent.yaml"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    yield run
    open_database(PgVectorSettings(dsn=postgres)).close()


def test_documents_are_indexed_searched_and_asked(run: Run) -> None:
    assert run("index").startswith("table kb.passages: 2 documents, 2 passages (2 added")
    assert "(0 added, 0 replaced, 0 deleted, 2 unchanged)" in run("index")
    assert "https://docs.example/iron" in run("search", "at what degrees does iron melt", "-k", "1")
    assert "2 passages" in run("search", "iron", "--explain")

    answer = json.loads(run("ask", "At what degrees does water boil?", "--json"))
    assert answer["citations"][0]["doc_uri"] == "https://docs.example/water"


def test_a_conversation_goes_on_from_one_command_to_the_next(run: Run) -> None:
    run("index")
    run("ask", "At what degrees does water boil?", "--conversation", "c")

    answer = json.loads(run("ask", "And iron?", "--conversation", "c", "--json"))

    assert answer["query"] == "At what degrees does water boil?\nAnd iron?"
    assert answer["memory"] == {"recalled_messages": 2, "kept": True}


@pytest.mark.parametrize("words", [["index", "stats"], ["index", "duplicates"]])
def test_what_only_an_index_of_our_own_tells_is_refused(run: Run, words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="backend is pgvector"):
        run(*words)

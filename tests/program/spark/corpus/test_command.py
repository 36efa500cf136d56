"""`citeqa index --engine spark` on the command line, as far as it goes without Spark."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import write_deltalake

from program.commands.index import index
from program.settings import load_settings
from program.spark.corpus.listing import list_corpus
from program.spark.corpus.plan import Plan
from program.spark.corpus.registry import State
from retrieval.errors import ConfigurationError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "build/passages"], "Error: --to is for Spark. Add --engine spark"),
        (["--json"], "Error: --json is for Spark. Add --engine spark"),
        (
            ["--engine", "spark", "--watch"],
            "Error: --watch follows files here. On Spark, run the command again",
        ),
    ],
)
def test_options_that_contradict_each_other_are_told(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(index, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


def test_where_to_must_be_said() -> None:
    result = CliRunner().invoke(index, ["--engine", "spark"])
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception).startswith("Where do the passages go? Say --to catalog.schema.table")


@pytest.fixture
def up_to_date(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a run whose table is as the folder is; Spark can not be started."""
    later = time.time() + 60
    monkeypatch.setattr(time, "time_ns", lambda: int(later * 1e9))
    arguments = ["--engine", "spark", "--corpus", str(folder), "--to", str(tmp_path / "passages")]
    settings = load_settings(None, [f"corpus.path={folder}", f"pipeline.table={tmp_path / 'passages'}"])
    plan = Plan.of(settings, print)
    listing = list_corpus(str(folder), plan.recipe.reading)
    state = State(plan.made_with, listing.reading, listing.digest, documents=5, passages=12)
    write_deltalake(str(tmp_path / "passages"), pa.table({"chunk_id": ["a"]}))
    write_deltalake(str(tmp_path / "passages_sources"), pa.table({"state": [state.as_text()]}))
    monkeypatch.setattr("program.spark.corpus.run.open_spark", None)
    return arguments


def test_where_nothing_has_changed_spark_is_not_started(up_to_date: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(index, up_to_date)
    assert (result.exit_code, result.exception, result.stderr) == (0, None, "")
    assert result.stdout.startswith(
        f"{tmp_path / 'passages'}: 5 documents, 12 passages (0 added, 0 replaced, 0 deleted, 5 unchanged) in "
    )


def test_the_report_is_there_for_machines(up_to_date: list[str]) -> None:
    report = json.loads(CliRunner().invoke(index, [*up_to_date, "--json"]).stdout)
    assert (report["documents"], report["unchanged"], report["written"], report["refused"]) == (5, 5, 0, [])
    assert report["seconds"] > 0
    assert "listing" in report["stages"]


@pytest.mark.parametrize("text", [None, "", "no json", "{}", '{"made_with": 1}', "[]"])
def test_a_state_of_another_version_is_none(text: str | None) -> None:
    assert State.parse(text) is None


def test_a_state_is_read_as_it_was_written() -> None:
    state = State("a", "b", "c", 1, 2)
    assert State.parse(state.as_text()) == state

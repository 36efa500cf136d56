"""`citeqa search`: what was found, and why, for people and for machines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from program.commands.search import search
from program.text_layout import columns
from retrieval.errors import FilterError, IndexUnusableError


@pytest.fixture
def run(index_path: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(
            search, [*arguments, "--set", f"retrieval.index={index_path}"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_passages_come_with_their_place_their_source_and_how_they_begin(run: Any) -> None:
    said = run("when does water boil", "-k", "2").splitlines()
    assert said[0] == " 1  Water"
    assert said[1].startswith("    https://docs.example/water")
    assert said[2].startswith("    # Water Water boils at 100 degrees")
    assert len([line for line in said if line.strip().startswith("https://")]) == 2


def test_an_explanation_has_a_table_of_stages_and_the_terms_that_matched(run: Any) -> None:
    said = run("when does water boil", "--explain")
    assert "searched      by words, letters (0.3); 4 passages" in said
    assert "searched for  water " in said
    header = next(line for line in said.splitlines() if line.startswith("passage"))
    assert header.split() == ["passage", "score", "words", "letters"]
    assert "has water " in said


def test_columns_stand_under_one_another_in_japanese_too(run: Any) -> None:
    said = run("水 沸騰 water degrees", "--explain", "-k", "4").splitlines()
    start = next(place for place, line in enumerate(said) if line.startswith("passage"))
    rows = said[start : said.index("", start)]
    assert any("富士山" in row for row in rows)
    assert len({columns(row) for row in rows}) == 1


def test_json_has_everything_that_a_machine_may_want(run: Any) -> None:
    plain = json.loads(run("iron", "--json"))
    assert plain["mode"] == "lexical"
    first = plain["results"][0]
    assert first["doc_uri"] == "https://docs.example/iron"
    assert first["rank"] == 1
    assert "stages" not in first
    told = json.loads(run("iron", "--json", "--explain"))
    assert told["results"][0]["stages"]["lexical"]["rank"] == 1
    assert told["results"][0]["stages"]["dense"] is None
    assert list(told["terms"]) == list(told["results"][0]["terms"]) == ["iron"]


def test_filters_hold_and_are_shown(run: Any) -> None:
    said = run("degrees 沸騰", "--filter", "lang=ja", "--explain")
    assert "only where    lang = ja" in said
    assert "docs.example/water" not in said
    with pytest.raises(FilterError):
        run("x", "--filter", "lang")


def test_what_is_not_there_is_said(run: Any) -> None:
    assert run("zebra").strip() == "Nothing was found."
    assert "Nothing was found." in run("zebra", "--explain")
    assert json.loads(run("zebra", "--json"))["results"] == []


def test_a_mode_that_the_index_cannot_be_searched_by_is_refused(run: Any) -> None:
    with pytest.raises(IndexUnusableError, match="no vectors"):
        run("iron", "--mode", "dense")

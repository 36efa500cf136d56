"""A sweep's file is read strictly: every mistake is one line that says where it is and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.sweep.results import Objective
from eval.sweep.space import build_space
from eval.sweep.specification import (
    Range,
    SweepSpecification,
    objectives_of,
    parse_specification,
    read_specification,
)
from retrieval.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
K = {"factors": {"retrieval.k": [3, 5]}}


def complaint(raw: dict[Any, Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse_specification(raw, "s.yaml")
    return str(raised.value)


def test_a_file_states_only_what_differs_from_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("factors:\n  retrieval.k: [3, 5]\n", encoding="utf-8")
    sweep = read_specification(file)
    assert sweep == SweepSpecification(factors={"retrieval.k": [3, 5]})
    assert (sweep.search.method, sweep.select_on, sweep.report_on) == ("grid", "dev", "test")
    assert objectives_of(sweep) == (Objective("fact_recall"),)


def test_the_example_of_the_project_is_valid_down_to_its_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = read_specification("configs/sweep.yaml")
    space = build_space(sweep, "configs/sweep.yaml")
    assert space.size == 24
    assert len({str(space.settings(parameters)) for parameters in space.grid()}) == 24


@pytest.mark.parametrize("name", ["usd", "tokens", "latency_ms", "abstained_answerable"])
def test_costs_times_and_mistakes_are_made_small(name: str) -> None:
    sweep = parse_specification({**K, "objectives": [f"{name}", "recall@5"]}, "s.yaml")
    assert objectives_of(sweep) == (Objective(name, minimize=True), Objective("recall@5"))


def test_no_file_says_where_an_example_is(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"No sweep file at '.*none\.yaml'\. See configs/sweep\.yaml"
    ):
        read_specification(tmp_path / "none.yaml")


def test_a_directory_and_bytes_that_are_no_text_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: Größe".encode("latin-1"))
    for file in (tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_specification(file)


def test_a_mistake_in_yaml_is_named_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: x\nfactors:\n  retrieval.k: [3, 5\nsearch: {}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        read_specification(file)
    assert str(raised.value) == f"{file}, line 4: not valid YAML: expected ',' or ']', but got ':'"


@pytest.mark.parametrize("text", ["", "- a\n", "5\n", "factors\n"])
def test_a_file_without_keys_says_what_it_must_hold(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="must hold keys such as `factors:`"):
        read_specification(file)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "s.yaml: factors is missing."),
        ({"factors": {}}, "s.yaml: factors: "),
        ({**K, "factor": {}}, "s.yaml: unknown key 'factor'. Did you mean 'factors'? "),
        ({**K, "search": {"metod": "tpe"}}, "s.yaml: unknown key 'search.metod'. Did you mean 'method'? "),
        ({**K, "racing": {"alfa": 0.1}}, "s.yaml: unknown key 'racing.alfa'. Did you mean 'alpha'? "),
        ({**K, "search": {"method": "bayes"}}, "s.yaml: search.method: "),
        ({**K, "budget": {"usd": 0}}, "s.yaml: budget.usd: "),
        ({**K, "name": "a b"}, "s.yaml: name: "),
        ({"factors": {"retrieval.k": []}}, "s.yaml: factors: retrieval.k has no value, so the grid is empty"),
        ({"factors": {"retrieval.k": [3, 5, 3.0]}}, "s.yaml: factors: retrieval.k names a value twice: [3, 5, 3.0]"),
        ({"factors": {"retrieval.k": {"low": 5, "high": 3}}}, "low = 5 must be below high = 3"),
        ({"factors": {"retrieval.k": {"low": 1, "high": 3, "log": True, "step": 1}}}, "log needs low > 0 and no step"),
        ({"factors": {"retrieval.k": {"low": 0, "high": 3, "log": True}}}, "log needs low > 0 and no step"),
        ({"factors": {"reader.abstain_below": {"low": 0.1, "high": 0.5}}}, "reader.abstain_below: a grid needs a step"),
        ({"factors": {"retrieval.k": {"low": 1, "high": 9, "log": True}}}, "retrieval.k: a grid has no log"),
        ({**K, "holdout": 0.3, "report_on": "test"}, "s.yaml: give report_on or holdout, not both"),
        ({**K, "racing": {}, "objectives": ["recall@5", "usd"]}, "s.yaml: racing compares by one objective"),
        ({**K, "objectives": ["usd", "usd"]}, "s.yaml: an objective is named twice: usd, usd"),
        ({**K, "objectives": []}, "s.yaml: objectives: "),
        ({**K, "objectives": ["recal@5"]}, "s.yaml: objectives: No metric is called 'recal@5'. Did you mean"),
        ({**K, "objectives": ["recall"]}, "s.yaml: objectives: Metric 'recall' needs a cutoff"),
        ({**K, "objectives": ["judge_correctness"]}, "a language model's verdict, for which a sweep asks none"),
        ({**K, "set": {"retrieval.filters": {"day": __import__("datetime").date(2024, 1, 1)}}}, "write it in quotes"),
        ({"factors": {"reader.abstain_below": [0.1, float("inf")]}}, "inf] is no value of a setting"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(raw: dict[str, Any], says: str) -> None:
    text = complaint(raw)
    assert says in text
    assert text.startswith("s.yaml: ")
    assert "\n" not in text


@pytest.mark.parametrize("values", [5, "abc", None, {"low": 1}, {"low": "x", "high": 3}])
def test_what_is_neither_values_nor_a_range_names_the_factor_once(values: Any) -> None:
    text = complaint({"factors": {"retrieval.k": values}})
    assert "\n" not in text
    assert text.startswith("s.yaml: factors.retrieval.k")


def test_a_misspelt_end_of_a_range_names_the_nearest() -> None:
    text = complaint({"factors": {"retrieval.k": {"low": 1, "hihg": 3}}})
    assert "factors.retrieval.k.high is missing" in text
    assert "unknown key 'factors.retrieval.k.hihg'. Did you mean 'high'?" in text


def test_a_key_that_is_no_text_is_refused_and_not_raised() -> None:
    assert "s.yaml" in complaint({1: 2, **K})
    assert "s.yaml" in complaint({"factors": {7: [1]}})


def test_each_of_several_mistakes_has_its_line() -> None:
    lines = complaint({"factor": 1, "budget": {"usd": -1}, "search": {"trials": 0}}).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("s.yaml: ") for line in lines)


def test_a_range_is_of_whole_numbers_only_where_both_ends_and_steps_are() -> None:
    assert Range(low=1, high=5).whole
    assert Range(low=1, high=5, step=1).whole
    assert not Range(low=1, high=5, step=2).whole
    assert not Range(low=1.0, high=5.0).whole

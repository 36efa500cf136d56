"""A scored run read from disk: all values at once, evidence when it is asked for, mistakes by their place."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.comparison.loading import read_scored_run
from eval.comparison.score_files import read_run_directory, read_score_file
from program.settings import TrackingSettings
from retrieval.errors import ConfigurationError, DataError


def read(source: str | Path) -> object:
    return read_scored_run(str(source), TrackingSettings(uri="sqlite:///nowhere/mlflow.db"))


def test_a_run_directory_has_the_values_tags_reasons_and_settings_that_were_written(candidate: Path) -> None:
    run = read_run_directory(candidate)
    assert run.name == "candidate"
    assert run.source == str(candidate / "scores.jsonl")
    assert list(run.questions) == ["q1", "q2", "q3", "q4"]
    assert run.questions["q3"] == "高さは何メートルですか"
    np.testing.assert_array_equal(run.values["recall@1"], [0.0, 1.0, 1.0, np.nan])
    assert run.tags["q3"] == {"lang": "ja"}
    assert run.unscored == {"q4": "The model is out."}
    assert run.settings == {"retrieval.k": 3}
    assert run.dataset
    assert run.matched_by == "id"


def test_evidence_is_read_line_by_line_when_it_is_asked_for(candidate: Path) -> None:
    run = read_run_directory(candidate)
    assert run.row("q2")["answer"] == "It is 10 m deep."
    assert run.row("q3")["cited_uris"] == ["https://d/c"]
    assert run.row("q1")["retrieved"][0]["doc_uri"] == "https://d/x"
    assert run.row("nobody") == {}


def test_a_file_alone_is_a_run_without_settings(candidate: Path, tmp_path: Path) -> None:
    file = tmp_path / "copied.jsonl"
    file.write_bytes((candidate / "scores.jsonl").read_bytes())
    run = read(file)
    assert (run.name, run.settings, run.uris) == ("copied", {}, None)  # type: ignore[attr-defined]


def test_evidence_stays_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    row = {"question": "?", "tags": {}, "error": None, "answer": "x" * 20_000}
    lines = (json.dumps({"id": f"q{i}", **row, "metrics": {"mrr": i / 1000}}) for i in range(1000))
    file.write_text("\n".join(lines), encoding="utf-8")
    tracemalloc.start()
    run = read_score_file(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(run.questions) == 1000
    assert len(run.row("q999")["answer"]) == 20_000
    assert peak < 4_000_000 < file.stat().st_size


def test_reading_changes_nothing_on_disk(candidate: Path) -> None:
    file = candidate / "scores.jsonl"
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    before = file.read_bytes()
    assert len(read_score_file(file).questions) == 4
    assert file.read_bytes() == before


def test_values_that_are_no_numbers_are_none(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    rows = [
        {"id": "1", "question": "?", "metrics": {"mrr": float("nan"), "map": 0.5}},
        {"id": "2", "question": "?", "metrics": {"mrr": float("inf"), "map": None}},
        {"id": "3", "question": "?", "metrics": {}},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    run = read_score_file(file)
    assert np.isnan(run.values["mrr"]).all()
    np.testing.assert_array_equal(run.values["map"], [0.5, np.nan, np.nan])
    assert run.unscored == {"3": "not answered"}


GOOD = '{"id": "1", "question": "?", "metrics": {"mrr": 1.0}}\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "2", "question"', "line 2: not valid JSON"),
        ("[1, 2]", "line 2: not a scored question: it holds list"),
        ('{"id": 7, "question": "?", "metrics": {}}', "scores.jsonl, line 2: not a scored question: id = 7"),
        ('{"id": "2", "question": "?"}', "metrics = None"),
        ('{"id": "2", "question": "?", "metrics": {"mrr": "high"}}', "metrics.mrr = 'high'"),
        ('{"id": "1", "question": "?", "metrics": {}}', "line 2: question '1' is there twice"),
    ],
)
def test_a_line_that_is_no_scored_question_is_told_with_its_number(
    tmp_path: Path, line: str, told: str
) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(GOOD + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2") as raised:
        read(file)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(GOOD + GOOD.replace('"1"', '"2"'))
    run = read_score_file(file)
    file.write_text(GOOD.replace('"1"', '"3"') + GOOD)
    with pytest.raises(DataError, match="changed while it was read"):
        run.row("1")


def nothing(path: Path) -> Path:
    return path / "nothing"


def empty(path: Path) -> Path:
    path.mkdir()
    return path


def unscored(path: Path) -> Path:
    path.mkdir()
    (path / "answers.jsonl").touch()
    return path


def results(path: Path) -> Path:
    for name in ("one", "two"):
        (path / name).mkdir(parents=True)
        (path / name / "scores.jsonl").write_text(GOOD)
    return path


def blank(path: Path) -> Path:
    path.write_text("\n\n")
    return path


def damaged(path: Path) -> Path:
    path.mkdir()
    (path / "scores.jsonl").write_text(GOOD)
    (path / "run.json").write_text("{")
    return path


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (nothing, "no MLflow store at 'sqlite:///nowhere/mlflow.db'"),
        (empty, "holds no scores.jsonl"),
        (unscored, "not scored yet"),
        (results, "holds 2 runs. Name one, such as"),
        (blank, "holds no scored question"),
        (damaged, "run.json is damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_run_says_what_to_name(tmp_path: Path, place: Callable[[Path], Path], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        read(place(tmp_path / "place"))
    assert not Path("nowhere").exists()


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is empty"):
        read(" ")

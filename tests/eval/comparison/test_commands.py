"""`citeqa compare` and `citeqa gate` as a person, or CI, meets them: over real runs of `citeqa eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from eval.evaluate import evaluate
from program.settings import Settings

Call = Callable[..., Any]
MakeSettings = Callable[..., Settings]


@pytest.fixture
def runs(make_settings: MakeSettings) -> tuple[Path, Path, str]:
    """Two evaluations of the library that differ in k, and the store of both."""
    wide = evaluate(make_settings(retrieval={"k": 3}))
    narrow = evaluate(make_settings(retrieval={"k": 1}, reader={"max_sentences": 1}))
    return wide.result.path, narrow.result.path, make_settings().tracking.uri


def test_two_evaluations_are_compared_in_a_table_and_question_by_question(
    citeqa: Call, runs: tuple[Path, Path, str]
) -> None:
    a, b, _ = runs
    said = citeqa("compare", a, b, "--questions", "2")
    assert said.code == 0, said.err
    assert said.err == ""
    assert f"A: {a.name} (12 questions, 0 unscored) from {a / 'scores.jsonl'}" in said.out
    assert "Compared: 12 questions, matched by id; 0 only in A, 0 only in B" in said.out
    assert "  retrieval.k: 3 → 1\n" in said.out
    assert "  reader.max_sentences: 2 → 1" in said.out
    assert "\nrecall@1: no question differs (10 compared).\n" in said.out
    rows = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "metric A B B − A interval p p corr. better worse same n d shows ≥" in rows
    assert "lang n recall@1 ndcg@1 citation_precision citation_recall abstention_accuracy" in rows
    assert "latency_ms ↓" in said.out
    assert said.out.count("\n  why: ") >= 2
    assert said.out.count("\n  A: ") == said.out.count("\n  B: ") == 2


def test_the_same_for_a_machine(citeqa: Call, runs: tuple[Path, Path, str]) -> None:
    a, b, _ = runs
    body = json.loads(
        citeqa("compare", a, b, "--json", "--metric", "citation_recall", "--metric", "latency_ms").out
    )
    assert list(body["headline"]) == ["citation_recall", "latency_ms"]
    assert body["others"] == {}
    assert body["headline"]["latency_ms"]["lower_is_better"] is True
    assert body["questions"]["compared"] == 12
    assert body["settings"]["retrieval.k"] == [3, 1]
    assert body["headline"]["citation_recall"]["n"] == 10
    assert {change["kind"] for change in body["changes"]} <= {"gained", "lost"}
    assert body["changes"][0]["a"]["answer"] != body["changes"][0]["b"]["answer"]


def test_a_run_is_named_by_directory_file_or_mlflow_run_alike(
    citeqa: Call, runs: tuple[Path, Path, str]
) -> None:
    a, b, uri = runs
    store = ("--set", f"tracking.uri={uri}", "--json", "--metric", "citation_recall")
    run_id = json.loads((b / "run.json").read_text())["mlflow_run_id"]
    by_path = json.loads(citeqa("compare", a, b, *store).out)
    for name in (b / "scores.jsonl", b.name, run_id, f"runs:/{run_id}"):
        said = citeqa("compare", a, name, *store)
        assert said.code == 0, said.err
        assert json.loads(said.out)["headline"] == by_path["headline"]
        assert said.err == ""


def test_runs_over_different_questions_are_warned_of_on_stderr_and_in_the_table(
    citeqa: Call, make_settings: MakeSettings, runs: tuple[Path, Path, str]
) -> None:
    few = evaluate(make_settings(evaluation={"limit": 5}))
    said = citeqa("compare", runs[0], few.result.path)
    warning = "The runs are not over the same questions: 5 are compared, 7 are only in A, 0 only in B."
    assert f"Warning: {warning}" in said.err
    assert f"! {warning}" in said.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "Error: No file or directory at 'nowhere'"),
        (["quiz.jsonl"], "Error: No file at 'quiz.jsonl'."),
    ],
)
def test_what_is_no_run_is_one_line(citeqa: Call, baseline: Path, arguments: list[str], told: str) -> None:
    assert citeqa("compare", baseline, *arguments).complaint.startswith(told)
    assert citeqa("gate", baseline, *arguments).complaint.startswith(told)


def test_a_metric_that_is_misspelt_names_the_nearest(citeqa: Call, baseline: Path, candidate: Path) -> None:
    told = "Error: 'baseline' has no metric 'recal@1'. Did you mean 'recall@1'?"
    assert told in citeqa("compare", baseline, candidate, "--metric", "recal@1").complaint
    assert told in citeqa("gate", baseline, candidate, "--max-drop", "recal@1=0.1").complaint


def test_the_gate_is_open_where_nothing_fell_and_writes_its_reports(
    citeqa: Call, runs: tuple[Path, Path, str], tmp_path: Path
) -> None:
    a, _, _ = runs
    said = citeqa(
        "gate", a, a, "--max-drop", "recall@1=0.8", "--junit", "out/gate.xml", "--markdown", "out/gate.md"
    )
    assert said.code == 0, said.err
    assert "The gate is open" in said.out
    suites = ElementTree.parse(tmp_path / "out/gate.xml").getroot()
    assert [case.attrib["name"] for case in suites.iter("testcase")] == ["recall@1", "questions compared"]
    assert (tmp_path / "out/gate.md").read_text(encoding="utf-8").startswith("### ✅ The gate is open")


def test_the_gate_closes_with_exit_code_1_after_its_table(
    citeqa: Call, write_many: Callable[[str, int], Path], tmp_path: Path
) -> None:
    good, bad = write_many("good", 38), write_many("bad", 20)
    said = citeqa("gate", good, bad, "--max-drop", "recall@1=0.02", "--markdown", "gate.md")
    assert said.code == 1
    assert said.out.rstrip().endswith("The gate is closed: recall@1")
    assert "recall@1 fell by 0.450" in said.out
    text = (tmp_path / "gate.md").read_text(encoding="utf-8")
    assert "Questions that lost most" in text
    assert "rank 1 → not retrieved" in text
    assert citeqa("gate", bad, good, "--max-drop", "recall@1=0.02").code == 0
    assert citeqa("gate", good, bad, "--max-drop", "recall@1=0.6").code == 0


def test_a_gate_without_power_fails_where_power_is_required(
    citeqa: Call, write_many: Callable[[str, int], Path]
) -> None:
    good, other = write_many("good", 38), write_many("other", 37)
    command = ("gate", good, other, "--max-drop", "recall@1=0.02")
    assert "too few questions" in citeqa(*command).out
    assert citeqa(*command).code == 0
    assert citeqa(*command, "--require-power").code == 1


def test_a_candidate_that_failed_on_some_questions_does_not_slip_through(
    citeqa: Call, baseline: Path, candidate: Path
) -> None:
    said = citeqa("gate", baseline, candidate, "--max-drop", "abstention_accuracy=1")
    assert said.code == 1
    assert "The gate is closed: questions compared" in said.out
    assert "Warning: 1 of the 4 common questions are unscored in B" in said.err
    assert (
        citeqa(
            "gate", baseline, candidate, "--max-drop", "abstention_accuracy=1", "--max-missing", "0.3"
        ).code
        == 0
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-drop", "recall@1"],
        ["--max-drop", "recall@1=-1"],
        ["--confidence", "95"],
        ["--require-power"],
        ["--max-drop", "recall@1=0.1", "--junit", "baseline/scores.jsonl/x.xml"],
    ],
)
def test_what_the_gate_cannot_do_is_one_line_and_exit_code_2(
    citeqa: Call, baseline: Path, arguments: list[str]
) -> None:
    assert citeqa("gate", baseline, baseline, *arguments).complaint.startswith("Error: ")


def test_comparing_directories_imports_neither_mlflow_nor_scipy(baseline: Path, candidate: Path) -> None:
    probe = (
        "import sys; sys.argv = ['citeqa', *sys.argv[1:]]\n"
        "from program.cli import main\n"
        "main()\n"
        "print(sorted({'mlflow', 'dspy', 'scipy', 'pandas', 'optuna'} & set(sys.modules)))"
    )
    for command in ("compare", "gate"):
        arguments = [sys.executable, "-c", probe, command, str(baseline), str(baseline)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=baseline.parent)
        assert done.stdout.endswith("[]\n")

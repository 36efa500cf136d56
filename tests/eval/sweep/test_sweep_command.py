"""`citeqa sweep` as a person meets it: what it says, where it says it, and what it leaves behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from eval.sweep import command as module
from eval.sweep.run import SweepProgress
from program.cli import main
from program.commands.sweep import _advance
from program.settings import load_settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], mlflow_as_found: None
) -> Run:
    """Calls `citeqa sweep`: its exit code, and what it said on stdout and stderr. The report is of one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        module, "write_report_once", lambda result: (result.path / "report.html").write_text("x")
    )

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["citeqa", "sweep", *arguments])
        capfd.readouterr()
        try:
            main()
        except SystemExit as end:
            return (int(end.code or 0), *capfd.readouterr())
        return (0, *capfd.readouterr())

    return call


def complaint(said: tuple[int, str, str]) -> str:
    code, out, err = said
    assert (code, out) == (2, ""), said
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    return err.removeprefix("Error: ").removesuffix("\n")


def test_the_ranking_is_on_stdout_and_nothing_else_anywhere(run: Run, sweeps: Any) -> None:
    code, out, err = run(str(sweeps.write()), "--no-mlflow")
    assert (code, err) == (0, "")
    assert out.startswith(
        "quiz, split all: 12 questions; 2 configurations ranked; no language model was asked\n"
    )
    assert "Best: k=3" in out
    assert "(baseline)" in out


def test_json_is_the_whole_result_and_what_is_on_disk(run: Run, sweeps: Any) -> None:
    code, out, err = run(str(sweeps.write()), "--no-mlflow", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    path = Path(result["path"])
    assert json.loads((path / "result.json").read_bytes()) == result
    assert [trial["parameters"] for trial in result["trials"]] == [{"retrieval.k": 3}, {"retrieval.k": 1}]
    assert result["winner"] in (1, 2)
    assert {"mean", "low", "high", "n"} <= set(result["trials"][0]["intervals"]["recall@3"])
    assert load_settings(path / "winner.yaml").retrieval.k in (1, 3)
    assert run(str(sweeps.write()), "--no-mlflow", "--json") == (0, out, "")


def test_it_is_logged_to_mlflow_unless_one_says_no(run: Run, sweeps: Any, store: str) -> None:
    file = str(sweeps.write(sections={"tracking": {"uri": store}}))
    run(file, "--no-mlflow")
    client = mlflow.MlflowClient(store)
    assert client.get_experiment_by_name("citeqa") is None
    code, _, err = run(file)
    assert (code, err) == (0, "")
    experiment = client.get_experiment_by_name("citeqa")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_without_a_file_that_of_the_project_is_meant(run: Run, sweeps: Any, tmp_path: Path) -> None:
    assert complaint(run()) == "No sweep file at 'configs/sweep.yaml'. See configs/sweep.yaml for one."
    (tmp_path / "configs").mkdir()
    sweeps.write().rename(tmp_path / "configs" / "sweep.yaml")
    assert run("--no-mlflow")[0] == 0


def test_a_mistake_is_one_line_and_each_of_several_has_its_own(run: Run, sweeps: Any) -> None:
    file = sweeps.write(factors={"retrieval.kk": [1]})
    assert complaint(run(str(file))) == f"{file}: factors.retrieval.kk: no such setting. Did you mean 'k'?"
    file = sweeps.write(
        factors={"retrieval.kk": [1], "reader.kind": ["lm", "ml"], "tracking.uri": ["a", "b"]}
    )
    assert len(complaint(run(str(file))).splitlines()) == 3


def test_a_mistake_in_yaml_names_file_and_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("factors:\n  retrieval.k: [1\n", encoding="utf-8")
    assert complaint(run("s.yaml")).startswith("s.yaml, line 3: not valid YAML: ")


def test_a_large_grid_is_refused_until_it_is_confirmed(run: Run, sweeps: Any) -> None:
    file = str(sweeps.write(max_trials=1))
    assert "the grid has 2 configurations, more than max_trials = 1" in complaint(run(file))
    assert run(file, "--yes", "--no-mlflow")[0] == 0


def test_failures_are_shown_and_retried_when_one_says_so(run: Run, sweeps: Any, language_model: Any) -> None:
    section = {"model": "openai/test", "api_base": language_model.url, "num_retries": 0}
    failing = True

    def layout(body: dict[str, Any]) -> str:
        if failing and "bread" in str(body["messages"][-1]["content"]).rpartition("[[ ## question ## ]]")[2]:
            return "no layout at all"
        return "[[ ## answerable ## ]]\nTrue\n\n[[ ## answer ## ]]\nSo it is [1].\n\n[[ ## completed ## ]]"

    language_model.computes(layout)
    file = str(sweeps.write(sections={"language_model": section}, factors={"retrieval.k": [3]}))
    code, out, _ = run(file, "--no-mlflow")
    assert code == 0
    assert "#1: 1 questions failed and are in no mean (to retry: --retry-errors)" in out
    failing = False
    asked = len(language_model.requests)
    assert run(file, "--no-mlflow")[1] == out
    assert len(language_model.requests) == asked
    code, out, _ = run(file, "--no-mlflow", "--retry-errors")
    assert "failed" not in out, "what could not be read is asked anew, and not replayed"
    assert len(language_model.requests) == asked + 1
    mlflow.dspy.autolog(disable=True)


def test_three_failing_configurations_are_one_line(run: Run, sweeps: Any) -> None:
    file = sweeps.write(set={"reader.kind": "lm"}, factors={"retrieval.k": [1, 2, 3, 4]})
    said = complaint(run(str(file), "--no-mlflow"))
    assert said.startswith("Stopped: 3 configurations failed one after the other, the last (")
    assert "\n" not in said


def test_a_budget_that_is_spent_is_told_with_what_is_finished(
    run: Run, sweeps: Any, reading_model: Any
) -> None:
    section = reading_model.section(max_tokens=300)
    keys = {"sections": {"language_model": section}, "factors": {"language_model.max_tokens": [300, 200]}}
    code, out, _ = run(str(sweeps.write(**keys, budget={"tokens": 300})), "--no-mlflow")
    assert code == 0
    assert "\nNot all were tried: the budget of 300 tokens is spent.\n" in out
    code, out, _ = run(str(sweeps.write(**keys)), "--no-mlflow")
    assert "2 configurations ranked; 24 answers by a language model, 432 tokens, 0.1944 USD\n" in out


def test_debug_shows_the_trace(run: Run, sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.errors import ConfigurationError

    with pytest.raises(ConfigurationError):
        run(str(sweeps.write(factors={"retrieval.kk": [1]})), "--debug")


@pytest.mark.parametrize(
    "arguments", [["--engine", "dask"], ["a.yaml", "b.yaml"], ["--json=yes"], ["--tasks", "0"]]
)
def test_a_wrong_option_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


class Bar:
    """As tqdm's, of which only what is set is kept."""

    def __init__(self) -> None:
        self.n, self.total, self.text = 0, None, ""

    def update(self, by: int) -> None:
        self.n += by

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.text = text


def test_progress_counts_over_all_configurations_and_tells_the_cost() -> None:
    from eval.sweep.results import NOTHING, Spending

    bar = Bar()
    _advance(bar, SweepProgress(1, 4, 5, 12, NOTHING))
    assert (bar.n, bar.total, bar.text) == (5, 48, "configuration 1/4")
    _advance(bar, SweepProgress(3, 4, 6, 12, Spending(1.239, 1, 1, 1)))
    assert (bar.n, bar.text) == (30, "configuration 3/4, 1.24 USD")
    unknown = Bar()
    _advance(unknown, SweepProgress(2, None, 1, 12, Spending(None, 1, 1, 1)))
    assert (unknown.n, unknown.total, unknown.text) == (13, None, "configuration 2")


def test_the_winner_alone_can_be_evaluated_by_the_next_command(run: Run, sweeps: Any) -> None:
    _, out, _ = run(str(sweeps.write(factors={"reader.abstain_below": [0.0, 0.2]})), "--no-mlflow", "--json")
    winner = Path(json.loads(out)["path"]) / "winner.yaml"
    written = yaml.safe_load(winner.read_text(encoding="utf-8"))
    assert written["reader"]["abstain_below"] in (0.0, 0.2, 0.4)
    assert winner.read_text(encoding="utf-8").startswith(
        "# The best of 3 configurations of the sweep 'quiz': "
    )


def test_the_report_is_drawn_once_for_what_it_shows(sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.html_report import report
    from eval.sweep.run import SweepOptions

    drawn: list[Path] = []

    def draw(result: Any, path: Path) -> None:
        drawn.append(path)
        path.write_text("<!doctype html>", encoding="utf-8")

    monkeypatch.setattr(report, "write_report", draw)
    for _ in range(2):
        result = module.sweep_file(str(sweeps.write()), SweepOptions(), log_to_mlflow=False)
    assert drawn == [result.path / "report.html"]
    (result.path / "report.html").unlink()
    module.sweep_file(str(sweeps.write()), SweepOptions(), log_to_mlflow=False)
    module.sweep_file(
        str(sweeps.write(set={"evaluation.slices": ["lang"]})), SweepOptions(), log_to_mlflow=False
    )
    assert len(drawn) >= 2


def test_the_real_report_is_one_file_that_names_the_winner(sweeps: Any) -> None:
    from eval.sweep.run import SweepOptions

    result = module.sweep_file(str(sweeps.write()), SweepOptions(), log_to_mlflow=False)
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "retrieval.k" in page
    assert 'src="http' not in page

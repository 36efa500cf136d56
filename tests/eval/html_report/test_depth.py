"""Curves of recall by depth agree with the metric that they continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.ground_truth import GroundTruth
from eval.html_report.depth import DepthCurve, DepthTally
from eval.html_report.depth_chart import depth_exhibit
from eval.html_report.question_evidence import read_question_evidence
from eval.html_report.rows import GoldOf, read_rows
from eval.metrics import default_metrics
from eval.records import RunDirectory
from eval.run import RunPlan, answer_run, score_run
from eval.sweep.results import Spending, SweepResult, Trial
from program.agent import CiteqaAgent
from program.settings import validate_settings


def curve_of(trial: Trial) -> DepthCurve:
    tally = DepthTally(trial.number, GoldOf(trial))
    for row in read_rows(trial):
        tally.take(row)
    return tally.curve()


def test_a_curve_is_recall_at_each_depth(sweep: SweepResult) -> None:
    for trial in sweep.trials:
        curve = curve_of(trial)
        for k in (1, 3):
            found = trial.summary.overall.intervals[f"recall@{k}"]
            assert curve.recall[k - 1] == pytest.approx(found.mean)
            assert curve.questions == found.n
        assert list(curve.recall) == sorted(curve.recall)


@pytest.mark.usefixtures("mlflow_as_found")
def test_a_curve_of_a_real_run_is_its_recall(library: Path, quiz: GroundTruth, tmp_path: Path) -> None:
    sections = {
        "retrieval": {"index": str(library), "k": 3},
        "evaluation": {"uris": {"strip_fragment": True}},
    }
    settings = validate_settings([("test", sections)])
    plan = RunPlan("quiz", {}, quiz, default_metrics((1, 3)))
    with RunDirectory(tmp_path / "run") as directory:
        directory.write_manifest({"settings": settings.model_dump(mode="json")})
        answer_run(plan, directory, CiteqaAgent(settings).predict, list)
        done = score_run(plan, directory)
    trial = Trial(1, {}, "complete", "", done.path, {}, done.summary, Spending())
    curve = curve_of(trial)
    assert curve.questions == 10
    for k in (1, 3):
        assert curve.recall[k - 1] == pytest.approx(done.summary.overall.intervals[f"recall@{k}"].mean)
    assert GoldOf(trial).normalize("https://docs.example/a#b") == "https://docs.example/a"


def test_curves_that_repeat_another_are_left_out_but_never_the_baselines(sweep: SweepResult) -> None:
    recall = {1: (0.5, 0.6), 2: (0.5, 0.7), 3: (0.5, 0.7), 4: (0.5, 0.7)}
    curves = [DepthCurve(number, recall[number], 36) for number in (4, 1, 2, 3)]
    exhibit = depth_exhibit(sweep, curves)
    assert exhibit is not None
    assert exhibit.header == ("Documents", "the winner #4", "the baseline #1")
    assert exhibit.rows == [("1", "0.500", "0.500"), ("2", "0.700", "0.600")]
    assert "the winner #4 finds 70\u00a0% of the gold and the baseline #1 60\u00a0%" in exhibit.finding


def test_the_best_are_tried_for_a_curve_and_the_winner_stands_first(sweep: SweepResult) -> None:
    evidence = read_question_evidence(sweep)
    assert [curve.trial for curve in evidence.curves] == [
        4,
        1,
        *(n for n in sweep.ranking if n not in (4, 1)),
    ]


def test_unanswerable_and_unscored_questions_are_in_no_curve(sweep: SweepResult) -> None:
    rows = list(read_rows(sweep.trials[0]))
    tally = DepthTally(1, GoldOf(sweep.trials[0]))
    tally.take({**rows[0], "error": "timed out"})
    tally.take({**rows[1], "gold": []})
    assert tally.curve() == DepthCurve(1, (), 0)

"""How far a judge agrees with people: kappa and its interval, and which labels tell anything of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import AssessmentSource
from sklearn.metrics import cohen_kappa_score

from eval.agreement import ENOUGH, measure_agreement
from eval.agreement_table import render_agreement
from eval.evaluate import evaluate
from eval.judges.judgements import Judgement
from eval.labels import Label, compare_with_labels, read_labels, to_value
from eval.records import AnswerRecord
from eval.report import render_evaluation, render_json
from program.settings import Settings
from retrieval.errors import GroundTruthError

MakeSettings = Callable[..., Settings]
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def columns(counts: tuple[int, int, int, int]) -> tuple[list[bool], list[bool]]:
    """Verdicts and labels with so many both yes, judge alone, people alone, and both no."""
    cells = [(True, True), (True, False), (False, True), (False, False)]
    rows = [cell for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    return [judge for judge, _ in rows], [people for _, people in rows]


def test_kappa_is_that_of_cohens_formula_on_a_textbook_table() -> None:
    # 50 grant proposals, two readers: https://en.wikipedia.org/wiki/Cohen%27s_kappa#Simple_example
    found = measure_agreement("judge_m", *columns((20, 5, 10, 15)))
    assert found.kappa is not None
    assert found.kappa.mean == pytest.approx(0.4)
    assert found.raw.mean == pytest.approx(0.7)
    assert (found.both_yes, found.judge_yes, found.judge_no, found.both_no, found.n) == (20, 5, 10, 15, 50)


@given(pairs)
def test_kappa_and_agreement_are_in_bounds_and_inside_their_intervals(rows: list[tuple[bool, bool]]) -> None:
    judge, people = [a for a, _ in rows], [b for _, b in rows]
    found = measure_agreement("judge_m", judge, people, resamples=200)
    assert found.n == len(rows)
    assert 0 <= found.raw.low <= found.raw.high <= 1
    if found.kappa is None:
        assert len({*judge, *people}) == 1, "not defined only where both say one thing"
        return
    assert -1 <= found.kappa.low <= found.kappa.high <= 1
    assert found.kappa.mean == pytest.approx(cohen_kappa_score(judge, people))


@given(pairs)
def test_kappa_does_not_depend_on_who_is_the_judge_nor_on_what_yes_is_called(
    rows: list[tuple[bool, bool]],
) -> None:
    judge, people = [a for a, _ in rows], [b for _, b in rows]
    kappa = measure_agreement("judge_m", judge, people, resamples=10).kappa
    swapped = measure_agreement("judge_m", people, judge, resamples=10).kappa
    negated = measure_agreement(
        "judge_m", [not a for a in judge], [not b for b in people], resamples=10
    ).kappa
    values = {None if found is None else round(found.mean, 9) for found in (kappa, swapped, negated)}
    assert len(values) == 1


def test_chance_agreement_is_a_kappa_of_nothing_however_high_it_looks() -> None:
    rng = np.random.default_rng(3)
    judge, people = rng.random(4000) < 0.9, rng.random(4000) < 0.9
    found = measure_agreement("judge_m", judge.tolist(), people.tolist())
    assert found.kappa is not None
    assert found.raw.mean > 0.8
    assert abs(found.kappa.mean) < 0.05


def test_the_interval_holds_the_true_kappa_about_as_often_as_it_says() -> None:
    # Judge and people say yes to 60 %, and agree as often as a kappa of .5 means.
    cells = np.array([0.48, 0.12, 0.12, 0.28])
    truth = (0.76 - 0.52) / 0.48
    rng = np.random.default_rng(7)
    held = 0
    for number in range(300):
        judge, people = columns(tuple(rng.multinomial(80, cells)))
        kappa = measure_agreement("judge_m", judge, people, resamples=400, seed=number).kappa
        held += kappa is not None and kappa.low <= truth <= kappa.high
    assert 0.90 <= held / 300 <= 0.985


def test_too_few_labels_and_too_few_of_one_kind_are_said() -> None:
    few = measure_agreement("judge_m", *columns((5, 1, 1, 5)))
    assert f"12 labels are too few to mean anything: label {ENOUGH} or more" in few.caution
    lopsided = measure_agreement("judge_m", *columns((95, 2, 1, 2)))
    assert "only 4 of 100 labels are of the rarer kind" in lopsided.caution
    assert measure_agreement("judge_m", *columns((20, 5, 10, 15))).caution == ""


def test_verdicts_and_labels_must_pair_up() -> None:
    for judge, people in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="give one of each"):
            measure_agreement("judge_m", judge, people)


def test_labels_are_read_from_tables_in_the_words_that_people_use(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,judge,label\nq1,correctness,Yes\nq2,judge_correctness,0\n", encoding="utf-8")
    assert read_labels(table) == [
        Label("judge_correctness", True, "q1"),
        Label("judge_correctness", False, "q2"),
    ]
    lines = tmp_path / "labels.jsonl"
    lines.write_text(
        '{"trace_id": "tr-1", "judge": "safety", "label": true, "answer": "水"}', encoding="utf-8"
    )
    assert read_labels(lines) == [Label("judge_safety", True, None, "tr-1", "水")]
    assert [to_value(label) for label in (True, "PASS", 1, "fail", 0.0)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "q", "judge": "safety", "label": "maybe"}', "label is 'maybe'. Write yes or no"),
        ('{"id": "q", "label": "yes"}', "a label needs `id` (of the question) or `trace_id`, and `judge`"),
        ("", "holds no label"),
    ],
)
def test_unusable_labels_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(GroundTruthError) as raised:
        read_labels(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)
    with pytest.raises(GroundTruthError, match="No labels at"):
        read_labels(tmp_path / "missing.csv")


def judgement(value: float | None) -> Judgement:
    return Judgement(
        id="q", metric="judge_m", scorer="Safety", model="m", judge="j", evidence="e", value=value
    )


def test_only_labels_of_the_answers_that_were_judged_count() -> None:
    records = {f"q{n}": AnswerRecord(id=f"q{n}", answer=f"a{n}", trace_id=f"tr-{n}") for n in range(6)}
    values = {"q0": 1.0, "q1": 0.0, "q2": 1.0, "q3": None, "q4": 0.5, "q5": 1.0}
    judgements = {id_: {"judge_m": judgement(value)} for id_, value in values.items()}
    report = compare_with_labels(
        [
            Label("judge_m", True, "q0"),
            Label("judge_m", True, trace_id="tr-1"),
            Label("judge_m", True, "q2", answer="another answer"),
            Label("judge_m", True, "q3"),
            Label("judge_m", True, "q4"),
            Label("judge_m", True, "q5"),
            Label("judge_m", False, "q5"),
            Label("judge_m", True, "nowhere"),
            Label("judge_other", True, "q0"),
        ],
        judgements,
        records,
    )
    (found,) = report.agreements
    assert (found.both_yes, found.judge_no, found.n) == (1, 1, 2)
    assert (report.elsewhere, report.outdated, report.tied) == (4, 1, 1)
    shown = render_agreement(report)
    assert "Labels left out: 4 of answers or judges without a verdict" in shown
    assert "Labels left out: 1 of another answer than this run's" in shown
    assert "2 labels are too few" in shown


def test_the_majority_of_several_labels_counts() -> None:
    labels = [Label("judge_m", value, "q") for value in (True, False, False)]
    report = compare_with_labels(labels, {"q": {"judge_m": judgement(0.0)}}, {"q": AnswerRecord(id="q")})
    assert report.agreements[0].both_no == 1


def test_no_label_at_all_is_said_and_no_option_shows_nothing() -> None:
    assert render_agreement(None) == ""
    assert render_agreement(compare_with_labels([], {}, {})) == "No label is of a verdict in this run."


@pytest.fixture
def judged(make_settings: MakeSettings, language_model: Any) -> Settings:
    """The quiz, each answer of which a model on the wire judges by a guideline: Japanese ones are bad."""
    language_model.computes(
        lambda body: json.dumps(
            {"rationale": "so", "result": "no" if any(c in str(body) for c in "緑富月") else "yes"}
        )
    )
    return make_settings(
        evaluation={
            "judges": [{"name": "Guidelines", "guidelines": ["Answer in English."]}],
            "judge_model": {"model": "openai/judge-1", "api_base": language_model.url},
        }
    )


def test_an_evaluation_shows_the_agreement_with_a_file_of_labels(judged: Settings, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    rows = [
        {"id": f"q{n:02}", "judge": "guidelines", "label": "no" if n in (10, 11, 3) else "yes"}
        for n in range(1, 13)
    ]
    labels.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    evaluation = evaluate(judged, labels=str(labels))
    shown = render_evaluation(evaluation)
    assert "judge / people" in shown
    assert "12 labels are too few to mean anything" in shown
    people = [row["label"] == "yes" for row in rows]
    judge = [evaluation.result.scores[str(row["id"])]["judge_guidelines"] == 1 for row in rows]
    kappa = cohen_kappa_score(judge, people)
    assert 0 < kappa < 1
    (found,) = json.loads(render_json(evaluation))["labels"]["agreements"]
    assert found["kappa"]["mean"] == pytest.approx(kappa)
    logged = mlflow.MlflowClient().get_run(str(evaluation.mlflow_run_id)).data.metrics
    assert logged["judge_guidelines.kappa"] == pytest.approx(kappa)
    assert evaluate(judged, labels=str(labels), rescore=True).labels == evaluation.labels


def test_labels_that_people_left_on_traces_count_and_those_of_judges_do_not(judged: Settings) -> None:
    evaluation = evaluate(judged)
    for id_, value in (("q01", True), ("q02", "no"), ("q10", "somehow")):
        mlflow.log_feedback(
            trace_id=str(evaluation.result.records[id_].trace_id),
            name="guidelines",
            value=value,
            source=AssessmentSource(source_type="HUMAN", source_id="someone"),
        )
    report = evaluate(judged, rescore=True, labels="traces").labels
    assert report is not None
    (found,) = report.agreements
    assert (found.both_yes, found.judge_yes, found.n) == (1, 1, 2)

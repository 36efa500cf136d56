"""Question by question: what was gained, what was lost, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.comparison.changes import GoldChange, QuestionChange, question_changes
from eval.comparison.comparison import compare_runs
from eval.comparison.score_files import read_run_directory
from eval.questions import GoldItem, Question
from eval.scored_runs import ScoredRun

MakeRun = Callable[..., ScoredRun]
Records = Callable[..., Any]


def changes(a: Path, b: Path, **options: Any) -> dict[str, QuestionChange]:
    comparison = compare_runs(read_run_directory(a), read_run_directory(b))
    return {change.id: change for change in question_changes(comparison, **options)}


def test_each_question_that_changed_says_what_became_of_its_gold(baseline: Path, candidate: Path) -> None:
    found = changes(baseline, candidate)
    assert set(found) == {"q1", "q2"}
    lost, gained = found["q1"], found["q2"]
    assert (lost.kind, lost.gain) == ("lost", -1.0)
    assert lost.gold == [GoldChange(("https://d/a",), 1, None, True, False)]
    assert lost.reasons == ["gold https://d/a: rank 1 → not retrieved", "gold https://d/a: cited → not cited"]
    assert lost.metrics["recall@2"] == (1.0, 0.0)
    assert (lost.a.answer, lost.b.answer) == ("It is hot.", "It is cold.")
    assert lost.b.retrieved == ("https://d/x", "https://d/y")
    assert gained.kind == "gained"
    assert gained.reasons == ["gold https://d/b: rank 2 → rank 1", "gold https://d/b: not cited → cited"]
    assert gained.tags == {"lang": "en"}


def test_only_what_was_lost_or_gained_and_only_so_many(baseline: Path, candidate: Path) -> None:
    assert list(changes(baseline, candidate, only="lost")) == ["q1"]
    assert list(changes(baseline, candidate, only="gained")) == ["q2"]
    assert len(changes(baseline, candidate, count=1)) == 1
    assert changes(baseline, candidate, count=0) == {}
    assert changes(baseline, baseline) == {}


def test_alternatives_count_by_the_best_of_them_and_addresses_by_the_runs_own_rule(
    write_run: Callable[..., Path], answered: Records
) -> None:
    questions = (Question("q", "Which?", ((GoldItem("https://d/a/"), GoldItem("https://d/b#part")),)),)
    settings = {"evaluation": {"uris": {"strip_fragment": True}}}
    a = write_run("a", answered("q", "x", "b", "a", latency_ms=1), questions=questions, settings=settings)
    b = write_run("b", answered("q", "x", "y", "a", latency_ms=2), questions=questions, settings=settings)
    comparison = compare_runs(read_run_directory(a), read_run_directory(b), ["latency_ms"])
    (change,) = question_changes(comparison)
    assert [(gold.rank_a, gold.rank_b) for gold in change.gold] == [(2, 3)]
    assert change.reasons == ["gold https://d/a/ or https://d/b#part: rank 2 → rank 3"]


def test_declining_to_answer_is_a_reason(write_run: Callable[..., Path], answered: Records) -> None:
    a = write_run("a", answered("q1", "a"), answered("q4", "x", abstained=True))
    b = write_run("b", answered("q1", "a", abstained=True), answered("q4", "x"))
    found = changes(a, b)
    assert found["q1"].reasons == ["answered → abstained"]
    assert found["q4"].reasons == ["abstained → answered"]
    assert (found["q1"].kind, found["q4"].kind) == ("lost", "lost")


def test_the_most_changed_come_first_and_lower_is_a_gain_where_lower_is_better(make_run: MakeRun) -> None:
    a = make_run("a", abstained_answerable=[0, 1, 0, 1, 0], dropped_markers=[0, 0, 0, 2, 0])
    b = make_run("b", abstained_answerable=[0, 0, 1, 1, 0], dropped_markers=[0, 0, 0, 0, 0])
    comparison = compare_runs(a, b, ["abstained_answerable", "dropped_markers"])
    found = question_changes(comparison)
    assert [(change.id, change.gain) for change in found] == [("q3", 2.0), ("q1", 1.0), ("q2", -1.0)]


def test_times_weigh_nothing_beside_other_metrics(make_run: MakeRun) -> None:
    a = make_run("a", mrr=[0, 0.5], latency_ms=[10, 500])
    b = make_run("b", mrr=[1, 0.5], latency_ms=[10, 5])
    assert [change.id for change in question_changes(compare_runs(a, b, ["mrr", "latency_ms"]))] == ["q0"]
    assert [change.id for change in question_changes(compare_runs(a, b, ["latency_ms"]))] == ["q1"]


def test_evidence_is_read_for_the_shown_questions_alone(make_run: MakeRun) -> None:
    read: list[str] = []

    def row(id_: str) -> dict[str, Any]:
        read.append(id_)
        return {}

    a = replace(make_run("a", mrr=[0, 0, 0, 0]), row=row)
    b = replace(make_run("b", mrr=[0.1, 0.9, 0.2, 0.3]), row=row)
    (change,) = question_changes(compare_runs(a, b), 1)
    assert read == ["q1", "q1"]
    assert (change.a.answer, change.gold, change.reasons) == ("", [], [])


def test_rounding_is_no_change(make_run: MakeRun) -> None:
    a, b = make_run("a", mrr=[0.1 + 0.2, 1.0]), make_run("b", mrr=[0.3, 1.0])
    assert question_changes(compare_runs(a, b)) == []


def test_another_answer_is_the_reason_when_nothing_else_is(
    write_run: Callable[..., Path], answered: Records
) -> None:
    a = write_run("a", answered("q1", "a", answer="hot", latency_ms=1))
    b = write_run("b", answered("q1", "a", answer="cold", latency_ms=2))
    comparison = compare_runs(read_run_directory(a), read_run_directory(b), ["latency_ms"])
    (change,) = question_changes(comparison)
    assert change.reasons == ["another answer from the same gold documents"]

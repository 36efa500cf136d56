"""What the gate writes for people and for CI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from eval.comparison.changes import question_changes
from eval.comparison.comparison import Comparison, compare_runs
from eval.comparison.gate import Gate, check_gate
from eval.comparison.gate_reports import render_gate, render_junit, render_markdown
from eval.comparison.score_files import read_run_directory
from eval.scored_runs import ScoredRun

MakeRun = Callable[..., ScoredRun]


@pytest.fixture
def comparison(make_run: MakeRun) -> Comparison:
    """Recall fell for certain, facts held, and citations differ on too few questions to tell."""
    rng = np.random.default_rng(1)
    base = (rng.random(200) < 0.9).astype(float)
    fallen = np.where(np.arange(200) < 60, 0.0, base)
    cited = np.where(np.arange(200) < 2, 1 - base, base)
    a = make_run("main", recall_at_5=base, fact_recall=base * 0.5, citation_recall=base)
    b = make_run("pull", recall_at_5=fallen, fact_recall=base * 0.5 + 0.1, citation_recall=cited)
    tags = {id_: {"lang": "ja" if place < 50 else "en"} for place, id_ in enumerate(a.questions)}
    return compare_runs(replace(a, tags=tags), b)


@pytest.fixture
def gate(comparison: Comparison) -> Gate:
    return check_gate(comparison, {"recall@5": 0.02, "fact_recall": 0.01, "citation_recall": 0.02})


def test_the_terminal_names_what_closed_the_gate_last(gate: Gate) -> None:
    text = render_gate(gate)
    assert text.endswith("The gate is closed: recall@5")
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert rows["fact_recall"].startswith("fact_recall held: that it fell by more than 0.010 is ruled out")
    assert "no certain fall, too few questions" in text
    assert "Candidate: pull from pull.jsonl" in text


def test_an_open_gate_says_what_it_does_not_prove(comparison: Comparison) -> None:
    text = render_gate(check_gate(comparison, {"fact_recall": 0.01, "citation_recall": 0.02}))
    assert text.endswith("The gate is open: no certain fall, but not ruled out for citation_recall")
    assert render_gate(check_gate(comparison, {"fact_recall": 0.01})).endswith(
        "The gate is open: every metric held"
    )


def test_junit_has_a_test_case_for_each_metric_as_the_common_schema_wants_it(gate: Gate) -> None:
    suites = ElementTree.fromstring(render_junit(gate))
    assert suites.tag == "testsuites"
    (suite,) = suites
    assert suite.tag == "testsuite"
    cases = {case.attrib["name"]: case for case in suite}
    assert list(cases) == ["recall@5", "fact_recall", "citation_recall", "questions compared"]
    for counted in (suites, suite):
        assert counted.attrib["tests"] == "4"
        assert counted.attrib["failures"] == str(len(suites.findall(".//failure"))) == "1"
        assert counted.attrib["errors"] == "0"
        assert float(counted.attrib["time"]) >= 0
    for case in cases.values():
        assert set(case.attrib) == {"name", "classname", "time"}
        assert [child.tag for child in case] in (["failure"], ["system-out"])
    failure = cases["recall@5"][0]
    assert failure.tag == "failure"
    assert failure.attrib["type"] == "fell"
    assert failure.attrib["message"].startswith("recall@5 fell by")
    assert "too few for such a margin" in (cases["citation_recall"][0].text or "")


def test_a_lack_of_power_is_a_failure_where_power_is_required(comparison: Comparison) -> None:
    gate = check_gate(comparison, {"citation_recall": 0.02}, require_power=True)
    (failure,) = ElementTree.fromstring(render_junit(gate)).iter("failure")
    assert failure.attrib["type"] == "too few questions to see such a fall"


def test_xml_stays_well_formed_whatever_a_metric_is_called(make_run: MakeRun) -> None:
    name = 'a<b>&"\x00\x1b\ud800 評価'
    run = replace(make_run("a", mrr=[1, 0]), values={name: np.array([1.0, 0.0])})
    xml = render_junit(check_gate(compare_runs(run, run), {}))
    assert ElementTree.fromstring(xml.encode()).find(".//testcase").attrib["name"].endswith("評価")  # type: ignore[union-attr]


def test_the_markdown_has_the_metrics_the_slices_that_fell_and_the_worst_questions(
    baseline: Path, candidate: Path, gate: Gate
) -> None:
    text = render_markdown(gate)
    assert text.startswith("### ❌ The gate is closed: recall@5\n")
    (row,) = [line for line in text.splitlines() if line.startswith("| recall@5")]
    assert row.endswith("| ❌ fell |")
    assert row.count("|") == 8
    assert "- lang ja: recall@5 −" in text
    assert "lang en: fact_recall" not in text
    comparison = compare_runs(read_run_directory(baseline), read_run_directory(candidate))
    worst = question_changes(comparison, 5, only="lost")
    text = render_markdown(check_gate(comparison, {}), worst)
    assert "- `q1` How hot is it?\n  recall@2 1.000 → 0.000" in text
    assert "  - gold https://d/a: rank 1 → not retrieved" in text
    assert "q2" not in text.split("<details>")[1]


def test_a_question_makes_no_markdown_no_html_and_calls_nobody(make_run: MakeRun) -> None:
    rude = "<img src=x> | `code` **bold** @octocat\n# title [link](http://x) mail@host 質問_1_"
    a = replace(make_run("a`b", mrr=[1, 1]), questions={"q`0": rude, "q1": "fine"})
    b = replace(make_run("b", mrr=[0, 1]), questions=a.questions)
    comparison = compare_runs(a, b)
    text = render_markdown(check_gate(comparison, {}), question_changes(comparison, only="lost"))
    (line,) = [line for line in text.splitlines() if "octocat" in line]
    assert line == (
        r"- `q'0` \<img src=x\> \| \`code\` \*\*bold\*\* "
        + "@\u200boctocat"
        + r" \# title \[link\](http://x) mail@host 質問_1\_"
    )
    assert "`a'b`" in text


def test_the_summary_fits_a_pull_request_comment(make_run: MakeRun) -> None:
    ids = [f"q{i}" for i in range(300)]
    a, b = make_run("a", ids, mrr=[1.0] * 300), make_run("b", ids, mrr=[0.0] * 300)
    long = {id_: f"{id_} " + "why " * 5000 for id_ in ids}
    tags = {id_: {"type": f"t{place}"} for place, id_ in enumerate(ids)}
    comparison = compare_runs(replace(a, questions=long, tags=tags), replace(b, questions=long))
    text = render_markdown(check_gate(comparison, {}), question_changes(comparison, 5, only="lost"))
    assert len(text) < 10_000

"""The whole page: what it holds, what it never holds, and the sweeps that are out of the ordinary."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest

from eval.html_report.question_evidence import read_question_evidence
from eval.html_report.report import render_report, write_report
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved
from eval.sweep.results import Objective, SweepResult, Trial
from retrieval.errors import DataError, StorageError

Make = Callable[..., Any]

HOSTILE = "</style></script><img src=x onerror=alert(1)><script>alert(2)</script>\"'><b>&{{7*7}}"
CHARTS = 5


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.elements)


def assert_harmless(html: str) -> Page:
    """One style, one script, nothing to fetch, no handlers, and links to http(s) or into the page alone."""
    page = Page(html)
    assert (page.count("script"), page.count("style"), page.count("svg")) == (1, 1, html.count("<svg "))
    assert not {tag for tag, _ in page.elements} & {
        "img",
        "iframe",
        "link",
        "object",
        "embed",
        "base",
        "image",
    }
    for tag, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset")
        ]
        href = attributes.get("href")
        if href is not None:
            assert href.startswith("#") or (tag == "a" and re.match("https?://", href))
            assert not href.startswith("http") or attributes["rel"] == "noopener noreferrer"
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "xmlns" not in html
    return page


@pytest.fixture(scope="module")
def html(sweep: SweepResult) -> str:
    return render_report(sweep)


def test_the_page_holds_every_part(html: str) -> None:
    page = assert_harmless(html)
    assert page.count("svg") == CHARTS
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == [
        "verdict", "leaderboard", "differences", "cost", "effects", "slices", "depth", "hardest", "settings"
    ]  # fmt: skip
    assert 'aria-label="Forest plot of paired differences in recall@3 from the baseline #1"' in html
    assert "chunking.max_tokens" in page.text
    assert "2026-11-25" in page.text
    labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
    assert all(labels)


def test_ids_are_unique_and_every_reference_has_its_target(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    found = [value for _, attributes in page.elements for value in attributes.values() if value]
    referred = {
        one for value in found for one in re.findall(r"^#(\S+)$|^url\(#(\S+)\)$", value) for one in one if one
    }
    labelled = {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a}
    assert referred
    assert (referred | labelled) <= set(ids)


def test_the_same_result_gives_the_same_bytes_in_any_process(
    sweep: SweepResult, html: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep.pickle").write_bytes(pickle.dumps(sweep))
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\naxes.grid: True\n")
    program = (
        "import hashlib, pickle, sys; result = pickle.load(open('sweep.pickle', 'rb'))\n"
        "import eval.html_report.report as report\n"
        "assert not {'matplotlib', 'mlflow', 'dspy', 'scipy', 'optuna', 'pandas'} & set(sys.modules)\n"
        "html = report.render_report(result); import matplotlib\n"
        "assert matplotlib.rcParams['font.size'] == 30\n"
        "assert not {'matplotlib.pyplot', 'mlflow', 'dspy', 'scipy', 'pandas'} & set(sys.modules)\n"
        "print(hashlib.sha256(html.encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_text_of_others_is_shown_and_never_run(make_sweep: Make) -> None:
    uris = [
        "javascript:alert(3)",
        f"https://docs.example/{HOSTILE}",
        "data:text/html,<script>alert(4)</script>",
    ]

    def question(number: int) -> Question:
        gold = tuple((GoldItem(uri),) for uri in uris)
        return Question(
            f"{number}{HOSTILE}", f"{number} {HOSTILE} \ud83d", gold, tags={"type": HOSTILE, "lang": HOSTILE}
        )

    def record(question: Question, parameters: Any, random: Random) -> AnswerRecord:
        retrieved = tuple(Retrieved(doc_uri=uri) for uri in uris[: random.randrange(4)])
        if question.id.startswith("3"):
            return AnswerRecord(id=question.id, error=f"{HOSTILE} \x00")
        return AnswerRecord(
            id=question.id, answer=HOSTILE, retrieved=retrieved, cited_uris=tuple(uris), latency_ms=5
        )

    factors = {f"reader.{HOSTILE}": [HOSTILE, "$x^2$ \x07"], "retrieval.k": [3, 4]}
    result = make_sweep(
        factors, questions=8, question=question, record=record, name=HOSTILE, dataset=HOSTILE, split=HOSTILE,
        stopped_early=HOSTILE, settings={HOSTILE: HOSTILE}, provenance={HOSTILE: [HOSTILE]},
    )  # fmt: skip
    trials = [replace(result.trials[0], state="failed", reason=HOSTILE), *result.trials[1:]]
    page = assert_harmless(
        render_report(replace(result, trials=trials, ranking=[2, 3, 4], winner=2, baseline=4))
    )
    assert page.text.count(HOSTILE) > 20
    links = [a["href"] for tag, a in page.elements if tag == "a" and not (a["href"] or "").startswith("#")]
    assert set(links) == {uris[1]}


def test_the_policy_of_the_page_names_the_style_and_the_script_that_it_holds(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    for tag in ("style", "script"):
        body = html[html.index(f"<{tag}>") + len(tag) + 2 : html.index(f"</{tag}>")]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;")


def test_japanese_is_declared_and_drawn_without_a_warning(make_sweep: Make) -> None:
    styles = ["丁寧に、そして詳しく説明する長い文体", "簡潔"]
    html = render_report(make_sweep({"reader.文体": styles, "retrieval.k": [3, 5]}))
    assert re.search(r'lang="ja">\d+番目の設定はどう変えますか', html)
    assert re.search(r'<blockquote dir="auto" lang="ja">それは\dです', html)
    assert re.search(r"<text [^>]*>簡潔</text>", html)


def test_one_configuration_has_nothing_to_compare_with(make_sweep: Make) -> None:
    html = render_report(make_sweep({"retrieval.k": [3]}, baseline=None))
    page = assert_harmless(html)
    assert "Only #1 was completed" in page.text
    assert "There is no second completed configuration to compare with." in page.text
    assert page.count("svg") == 1


def without_ranking(sweep: SweepResult) -> SweepResult:
    """Every configuration failed."""
    trials = [replace(trial, state="failed", reason="The key is wrong.") for trial in sweep.trials]
    return replace(
        sweep, trials=trials, ranking=[], pareto=[], winner=None, baseline=None,
        against_baseline={}, against_winner={}, effects=[],
    )  # fmt: skip


def test_without_a_completed_configuration_the_reasons_are_shown(sweep: SweepResult) -> None:
    page = assert_harmless(render_report(without_ranking(sweep)))
    assert "There is nothing to recommend" in page.text
    assert page.text.count("The key is wrong.") == len(sweep.trials)
    assert page.count("svg") == 0


def test_without_a_baseline_all_are_compared_with_the_winner(make_sweep: Make) -> None:
    html = render_report(make_sweep(baseline=None))
    assert "Forest plot of paired differences in recall@3 from the winner #4" in html


def test_three_objectives_are_each_weighed_against_the_first(make_sweep: Make) -> None:
    objectives = (Objective("recall@3"), Objective("usd", minimize=True), Objective("precision@3"))
    html = render_report(make_sweep(objectives=objectives))
    labels = re.findall(r'aria-label="recall@3 against ([^;]+);', html)
    assert labels == [
        "US dollars per question",
        "precision@3, mean over questions",
        "latency per question, ms",
    ]
    assert "What is traded for what?" in html


def test_an_objective_of_time_ranks_but_questions_are_judged_by_quality(make_sweep: Make) -> None:
    objectives = (Objective("latency_ms", minimize=True), Objective("recall@3"))
    page = Page(render_report(make_sweep(objectives=objectives)))
    assert "by the mean recall@3" in page.text
    assert "latency_ms ↓" in page.text


def test_a_metric_without_a_value_is_a_dash(sweep: SweepResult) -> None:
    nothing: dict[str, float | None] = {"recall@3": None}
    trials = [*sweep.trials[:3], replace(sweep.trials[3], objectives=nothing)]
    one = replace(
        sweep, trials=trials, ranking=[2, 3, 1, 4], winner=2, against_baseline={2: sweep.against_baseline[2]}
    )
    html = render_report(one)
    assert re.search(r"#4\s*</th>\s*<td class=\"number\"><span dir=\"auto\">–</span></td>", html)
    assert "An objective applies to no question in #4." in html


def test_an_unknown_price_is_no_price(sweep: SweepResult) -> None:
    trials = [replace(trial, spending=replace(trial.spending, usd=None)) for trial in sweep.trials]
    page = Page(render_report(replace(sweep, trials=trials, spent=replace(sweep.spent, usd=None))))
    assert "a price that is not known" in page.text
    assert "tokens per question (lower is better)" in page.text
    assert "$" not in page.text.split("Settings and provenance")[0]


def test_three_hundred_configurations_are_capped_and_the_page_says_so(sweep: SweepResult) -> None:
    first = sweep.trials[0]
    trials = [
        replace(
            first,
            number=n,
            parameters={"retrieval.k": n, "reader.kind": f"kind-{n}"},
            objectives={"recall@3": 1 - n / 400},
        )
        for n in range(1, 301)
    ]
    pair = sweep.against_baseline[4]
    effects = [
        replace(sweep.effects[0], factor=name, means={label(n): (1 - n / 400, 1) for n in range(1, 301)})
        for name, label in (("retrieval.k", str), ("reader.kind", "kind-{}".format))
    ]
    many = replace(
        sweep, trials=trials, ranking=list(range(1, 301)), winner=1, baseline=300, effects=effects,
        against_baseline=dict.fromkeys(range(1, 300), pair), against_winner=dict.fromkeys(range(2, 301), pair),
    )  # fmt: skip
    html = render_report(many)
    page = assert_harmless(html)
    assert "199 more, which rank lower, are left out here." in page.text
    assert re.search(r'class="baseline">\s*<td class="number" data-sort="300">', html)
    assert "Drawn: the best 30 of 299. All are in the table below." in page.text
    assert "1 to 60" in page.text
    assert "289 other values" in page.text
    assert len(html) < 1_500_000


def test_stopped_configurations_stand_below_with_their_reasons(sweep: SweepResult) -> None:
    stopped = replace(sweep.trials[1], state="stopped", reason="hopeless after 20 questions")
    trials = [sweep.trials[0], stopped, *sweep.trials[2:]]
    ranking = [number for number in sweep.ranking if number != 2]
    page = Page(render_report(replace(sweep, trials=trials, ranking=ranking)))
    assert "Not ranked: 1 stopped or failed" in page.text
    assert "hopeless after 20 questions" in page.text


def test_questions_that_failed_are_counted_with_their_reasons(make_sweep: Make) -> None:
    def record(question: Question, parameters: Any, random: Random) -> AnswerRecord:
        if question.id == "q0003":
            return AnswerRecord(id=question.id, error="429 Too many requests")
        return AnswerRecord(id=question.id, answer="so", latency_ms=1)

    page = Page(render_report(make_sweep(record=record, questions=10)))
    assert (
        "4 answers could not be scored, and are in no mean: 1 in #1, 1 in #2, 1 in #3 and 1 in #4."
        in page.text
    )
    assert "4 × 429 Too many requests" in page.text


def test_hard_questions_show_where_their_gold_went(make_sweep: Make) -> None:
    found, lost = "https://docs.example/gold", "https://docs.example/other"

    def question(number: int) -> Question:
        return Question(f"q{number}", f"What is {number}?", ((GoldItem(found),),))

    def record(question: Question, parameters: Any, random: Random) -> AnswerRecord:
        ranking = {"q0": [found], "q1": [lost], "q2": [lost, found]}[question.id]
        retrieved = tuple(Retrieved(doc_uri=uri) for uri in ranking)
        return AnswerRecord(
            id=question.id, answer="This. [1]", retrieved=retrieved, cited_uris=tuple(ranking[:1])
        )

    evidence = read_question_evidence(
        make_sweep(objectives=(Objective("mrr"),), questions=3, question=question, record=record)
    )
    assert [(one.id, one.mean) for one in evidence.hardest] == [("q1", 0.0), ("q2", 0.5)]
    assert [one.happened for one in evidence.hardest[0].attempts] == [
        "No gold among 1 retrieved document. It answered from other documents."
    ]
    assert evidence.hardest[1].attempts[0].happened == "Gold at document rank 2, but not cited."
    assert [source.is_gold for source in evidence.hardest[1].attempts[0].retrieved] == [False, True]


def test_a_run_directory_that_is_gone_is_said_to_be(make_sweep: Make) -> None:
    result = make_sweep()
    for trial in result.trials[:2]:
        shutil.rmtree(trial.path)
    page = assert_harmless(render_report(result))
    assert "The run directories of 2 configurations are gone" in " ".join(page.text.split())
    for trial in result.trials[2:]:
        shutil.rmtree(trial.path)
    assert sorted(read_question_evidence(result).missing) == [1, 2, 3, 4]


def test_a_damaged_row_is_named(make_sweep: Make) -> None:
    result = make_sweep(questions=5)
    file = result.trials[3].path / "scores.jsonl"
    file.write_bytes(file.read_bytes() + b'{"id": 3}\n')
    with pytest.raises(
        DataError, match=r"scores\.jsonl, line 6: not a scored question .* run the sweep again"
    ):
        render_report(result)


def test_rows_are_read_one_at_a_time(make_sweep: Make) -> None:
    result: SweepResult = make_sweep({"retrieval.k": [3, 5]}, questions=20)
    for trial in result.trials:
        _lengthen(trial, copies=40, padding=10_000)
    size = sum((trial.path / "scores.jsonl").stat().st_size for trial in result.trials)
    assert size > 15_000_000
    tracemalloc.start()
    evidence = read_question_evidence(result)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert evidence.curves[0].questions > 500
    assert peak < 5_000_000


def _lengthen(trial: Trial, *, copies: int, padding: int) -> None:
    file = trial.path / "scores.jsonl"
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]
    with file.open("w") as lines:
        for copy in range(copies):
            for row in rows:
                row_copy = {**row, "id": f"{row['id']}-{copy}", "answer": row["answer"] + "x" * padding}
                lines.write(json.dumps(row_copy) + "\n")


def test_the_file_is_replaced_as_a_whole(sweep: SweepResult, tmp_path: Path) -> None:
    nothing = without_ranking(sweep)
    path = tmp_path / "reports" / "sweep.html"
    for _ in range(2):
        write_report(nothing, path)
        assert path.read_text(encoding="utf-8") == render_report(nothing)
        assert [one.name for one in path.parent.iterdir()] == ["sweep.html"]
    with pytest.raises(StorageError, match=r"The report '.*' cannot be written: "):
        write_report(nothing, path / "below-a-file.html")

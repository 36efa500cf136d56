"""`citeqa dataset …` as a person meets it."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.formats.trec_runs import read_trec_run
from eval.ground_truth import GoldItem, Question, read_every_split, read_ground_truth
from program.commands.dataset import dataset
from retrieval.corpus import read_documents
from retrieval.local_index import LocalIndex
from retrieval.types import Document

Ask = Callable[..., Question]
Run = Callable[..., Any]
Write = Callable[..., Path]


@pytest.fixture
def index(tmp_path: Path) -> str:
    """An index of three documents in the test's folder."""
    documents = [
        Document(f"https://d.example/{name}", f"About {name}.", name.title()) for name in ("water", "iron")
    ]
    LocalIndex.build(
        tmp_path / "index", [*documents, Document("https://d.example/fuji", "富士山です。", "富士山")]
    )
    return "index"


WATER, IRON = "https://d.example/water", "https://d.example/iron"


@pytest.fixture
def clean(ask: Ask, write_questions: Write) -> Path:
    return write_questions(
        [
            ask("a", "Where does the water come from?", WATER, split="dev", type="lookup"),
            ask("b", "Who found iron first?", IRON, split="test", type="lookup"),
            ask("c", "Who is the king of Atlantis?", split="test", type="none"),
        ]
    )


# Check


def test_a_clean_set_passes(run: Run, clean: Path, index: str) -> None:
    said = run("check", str(clean), "--index", index)
    assert said.code == 0
    assert "3 questions (dev 1, test 2), 1 unanswerable (test 1)" in said.out
    assert "Leaks: asked in two splits: none" in said.out
    assert "Gold that cannot be found in the index 'index': none" in said.out


def test_a_leak_and_missing_gold_make_it_fail_with_their_evidence(
    run: Run, ask: Ask, write_questions: Write, index: str
) -> None:
    questions = [
        ask("a", "富士山の高さは何メートルですか？", "https://d.example/fuji", split="dev"),
        ask("b", "富士山の高さは、何メートルですか", "https://d.example/fuji", split="test"),
        ask("c", "What is water?", "https://d.example/waters", split="test"),
    ]
    said = run("check", str(write_questions(questions)), "--index", index)
    assert said.code == 1
    assert "Leaks: asked in two splits: 1" in said.out
    assert "dev  a  富士山の高さは何メートルですか？" in said.out
    assert "https://d.example/waters  (question c)  nearest: https://d.example/water" in said.out

    found = run("check", str(write_questions(questions)), "--index", index, "--json")
    assert found.code == 1
    assert not found.json["honest"]
    assert [(leak["first"]["id"], leak["second"]["id"]) for leak in found.json["leaks"]] == [("a", "b")]
    assert found.json["missing_gold"][0]["questions"] == ["c"]

    strict = run("check", str(write_questions(questions[:2])), "--index", index, "--same-gold-threshold", "1")
    assert strict.code == 0


def test_the_very_same_words_in_two_splits_are_a_finding_and_no_error(
    run: Run, ask: Ask, write_questions: Write, index: str
) -> None:
    twice = [ask("a", "What is water?", WATER, split="dev"), ask("b", "what  is water?", IRON, split="test")]
    assert run("check", str(write_questions(twice)), "--index", index).code == 1


def test_a_query_that_beir_judges_in_two_splits_is_a_leak(run: Run, tmp_path: Path) -> None:
    (tmp_path / "beir/qrels").mkdir(parents=True)
    (tmp_path / "beir/queries.jsonl").write_text('{"_id": "q1", "text": "Where is it?"}\n')
    for split in ("dev", "test"):
        (tmp_path / f"beir/qrels/{split}.tsv").write_text("q1\td1\t1\n")
    (tmp_path / "beir/corpus.jsonl").write_text('{"_id": "d1", "text": "Here."}\n')
    said = run("check", "beir")
    assert (said.code, "Gold that cannot be found in 'beir': none" in said.out) == (1, True)
    assert "1 questions stand in several splits, first 'q1'" in run("convert", "beir", "q.jsonl").complaint
    assert run("convert", "beir", "q.jsonl", "--split", "dev").code == 0


def test_without_an_index_gold_is_said_to_be_unchecked(run: Run, clean: Path) -> None:
    said = run("check", str(clean))
    assert "not checked, as there is no index at 'build/index'. Name one with --index" in said.out
    assert said.code == 0
    assert "No index at 'nowhere'" in run("check", str(clean), "--index", "nowhere").complaint


def test_gold_can_be_looked_up_in_documents(run: Run, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(json.dumps({"doc_uri": WATER + "/", "text": "x"}) + "\n")
    said = run("check", str(clean), "--corpus", "docs.jsonl")
    assert said.code == 1
    assert f"{IRON}  (question b)" in said.out
    assert f"{WATER}  (question" not in said.out, "URIs are normalized"


def test_the_configured_set_is_checked_where_none_is_named(run: Run, clean: Path, index: str) -> None:
    said = run("check", "--set", f"evaluation.dataset={clean}", "--set", f"retrieval.index={index}")
    assert said.out.startswith("questions.jsonl: 3 questions")


def test_what_runs_agree_on_becomes_a_list_to_judge(
    run: Run, clean: Path, index: str, write_run: Write, tmp_path: Path
) -> None:
    first = write_run("one", {"a": [IRON, WATER], "b": [IRON]})
    second = write_run("two", {"a": [IRON + "/", WATER], "b": [WATER]})
    (tmp_path / "bm25.run").write_text(f"a Q0 {IRON} 1 2.0 bm25\nc Q0 {WATER} 1 1.0 bm25\n")
    pool = [part for source in (first, second, "bm25.run") for part in ("--pool", str(source))]
    said = run("check", str(clean), "--index", index, *pool, "--pool-out", "judge.csv")
    assert (said.code, "Ranked high and judged by nobody: 1, for 1 questions" in said.out) == (0, True)
    with (tmp_path / "judge.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "question_id": "a",
        "question": "Where does the water come from?",
        "doc_uri": IRON,
        "title": "Iron",
        "text": "About iron.",
        "answerable": "True",
        "runs": "3",
        "best_rank": "1",
        "grade": "",
    }
    run("check", str(clean), "--index", index, *pool, "--pool-out", "judge.jsonl", "--at-least", "1")
    rows = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert [(row["question_id"], row["doc_uri"], row["grade"]) for row in rows] == [
        ("a", IRON, None),
        ("b", WATER, None),
        ("c", WATER, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--pool-out", "judge.csv"], "--pool-out needs runs to pool"),
        (["--pool", "nothing"], "nothing"),
        (["--pool", "runs"], "runs"),
        (["--pool", "runs/one", "--at-least", "2"], "cannot be pooled where 2 runs must agree"),
        (["--pool", "runs/one", "--pool-out", "judge.txt"], "name the list to judge .csv or .jsonl"),
        (["--pool", "runs/other"], "has none of these questions"),
        (["--corpus", "none"], "There is no corpus at 'none'"),
    ],
)
def test_a_mistake_in_checking_is_one_line(
    run: Run, clean: Path, index: str, write_run: Write, arguments: list[str], complaint: str
) -> None:
    write_run("one", {"a": [IRON]})
    write_run("other", {"z": [IRON]})
    source = [] if "--corpus" in arguments else ["--index", index]
    assert complaint in run("check", str(clean), *source, *arguments).complaint


# Stats


def test_counts_for_people_and_machines(run: Run, clean: Path, write_run: Write) -> None:
    said = run("stats", str(clean))
    assert "if they differ, as 0 and 1, on 20% of them" in said.out
    runs = [
        write_run(name, {"a": [IRON], "b": [IRON]}, **{"recall@5": values})
        for name, values in (("one", [1.0, 0.0]), ("two", [0.0, 0.0]))
    ]
    counts = run("stats", str(clean), "--run", str(runs[0]), "--run", str(runs[1]), "--json").json
    assert counts["spread"] == pytest.approx(0.5**0.5)
    assert counts["splits"]["test"] == {
        "questions": 2,
        "unanswerable": 1,
        "with_history": 0,
        "gold_documents": 1,
        "answer_length": 0.0,
        "by_tag": {"type": {"lookup": 1, "none": 1}, "lang": {}},
        "detectable": None,
    }
    assert "'one' and 'two'" in run("stats", str(clean), "--run", str(runs[0]), "--run", str(runs[1])).out


def test_mistakes_in_counting_are_one_line(run: Run, clean: Path) -> None:
    assert "--run was given 1 times" in run("stats", str(clean), "--run", "x").complaint
    assert "No ground truth at 'none.jsonl'" in run("stats", "none.jsonl").complaint
    clean.rename("questions.txt")
    assert "questions.txt: unknown format" in run("stats", "questions.txt").complaint
    assert run("stats", "questions.txt", "--format", "jsonl").code == 0


# Split


def test_rows_keep_what_we_do_not_read_and_get_their_split(run: Run, tmp_path: Path) -> None:
    rows = [
        {
            "request": f"What is the number {number} called in {'Japanese' if number % 2 else 'Finnish'}?",
            "expected_retrieved_context": [f"d{number}"],
            "guidelines": ["be kind"],
            "tags": {"lang": "en"} if number % 2 else None,
        }
        for number in range(20)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("split", "q.jsonl", "--out", "divided.jsonl", "--shares", "dev=.5,test=.5", "--gold-apart")
    assert (said.code, said.err) == (0, "")
    assert "divided.jsonl: 20 questions" in said.out
    divided = [json.loads(line) for line in (tmp_path / "divided.jsonl").read_text().splitlines()]
    assert [{**row, "tags": None} for row in divided] == [{**row, "tags": None} for row in rows]
    assert {row["tags"]["split"] for row in divided} == {"dev", "test"}
    assert run("check", "divided.jsonl", "--corpus", "q.jsonl").code == 2, "a ground truth is no corpus"
    assert run("check", "divided.jsonl").code == 0


def test_a_division_into_another_format_says_what_is_lost(run: Run, ask: Ask, write_questions: Write) -> None:
    questions = [
        ask(f"q{i}", f"What is {word}?", f"d{i}", team="x") for i, word in enumerate(("this", "that", "it"))
    ]
    said = run(
        "split", str(write_questions(questions)), "--out", "beir", "--to", "beir", "--shares", "a=.5,b=.5"
    )
    assert "under 'citeqa', which other programs ignore: tag 'team' (3 questions, first 'q0')" in said.err
    assert {question.tags["split"] for question in read_every_split("beir").questions} <= {"a", "b"}


def test_mistakes_in_splitting_are_one_line(run: Run, clean: Path) -> None:
    assert "add up to 1.2" in run("split", str(clean), "--out", "x.jsonl", "--shares", "a=.6,b=.6").complaint
    assert "does not say which format" in run("split", str(clean), "--out", "folder").complaint
    assert "something at 'questions.jsonl' already" in run("split", str(clean), "--out", str(clean)).complaint
    assert run("split", str(clean), "--out", str(clean), "--overwrite").code == 0


# Convert


def test_a_chain_of_copies_loses_nothing_that_was_not_said(
    run: Run, ask: Ask, write_questions: Write, tmp_path: Path
) -> None:
    questions = [
        Question("a", "Where?", ((GoldItem("d1"), GoldItem("d2")),), tags={"split": "dev"}),
        ask("b", "誰が？", "d1", split="test"),
        ask("c", "Why?", split="test"),
    ]
    write_questions(questions)
    (tmp_path / "docs.jsonl").write_text(
        '{"doc_uri": "d1", "text": "one"}\n{"doc_uri": "d2", "text": "two"}\n'
    )
    store = ["--set", "tracking.uri=sqlite:///ml.db"]
    said = run("convert", "questions.jsonl", "beir", "--to", "beir", "--corpus", "docs.jsonl")
    assert said.out == "beir: 3 questions, 2 documents\n"
    assert "questions without a judged document (question 'c')" in said.err
    assert "alternatives (one of several documents suffices) (question 'a')" in said.err
    assert {document.doc_uri for document in read_documents("beir")} == {"d1", "d2"}
    assert run("convert", "beir", "mlflow:quiz", *store).code == 0
    assert run("convert", "mlflow:quiz", "squad.json", "--corpus", "beir", *store).code == 0
    assert run("convert", "squad.json", "q.parquet", "--documents", "paragraphs.jsonl").err == ""
    assert run("convert", "q.parquet", "back.jsonl").err == ""
    assert {q.id: q for q in read_ground_truth("back.jsonl").questions} == {q.id: q for q in questions}
    assert [document.text for document in read_documents("paragraphs.jsonl")] == ["one"]
    assert "holds 3 records already" in run("convert", "back.jsonl", "mlflow:quiz", *store).complaint
    assert not (tmp_path / "mlruns").exists()


def test_what_trec_lacks_and_what_was_not_read_is_said(run: Run, tmp_path: Path) -> None:
    row = {
        "id": "a",
        "request": "Where?",
        "expected_retrieved_context": ["d"],
        "expected_facts": ["x"],
        "guidelines": 1,
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    said = run("convert", "q.jsonl", "trec:topics.trec,qrels.txt")
    assert said.code == 0
    assert said.err.splitlines() == [
        "Warning: TREC has no place for it, and the copy lacks: expected facts (question 'a')",
        "Warning: Not read from the source, and the copy lacks: guidelines (1 rows)",
    ]
    assert (tmp_path / "topics.trec").read_text() == "<top>\n<num> Number: a\n<title> Where?\n</top>\n\n"
    assert (tmp_path / "qrels.txt").read_text() == "a 0 d 1\n"


def test_only_what_is_written_is_counted(run: Run, ask: Ask, write_questions: Write) -> None:
    write_questions([ask("a", "Where?", "d"), ask("b", "Who?")])
    assert run("convert", "questions.jsonl", "trec", "--to", "trec").out == "trec: 1 questions\n"


def test_a_run_becomes_a_run_file(run: Run, write_run: Write) -> None:
    source = write_run("one", {"a": [IRON, WATER], "b": []})
    said = run("convert", str(source), "one.run", "--to", "trec-run")
    assert said.out == "one.run: 1 questions\n"
    assert "1 questions have no line, as they failed or found nothing, first 'b'" in said.err
    assert read_trec_run("one.run") == {"a": [IRON, WATER]}
    assert (
        "something at 'one.run' already"
        in run("convert", str(source), "one.run", "--to", "trec-run").complaint
    )


def test_mistakes_in_converting_are_one_line(run: Run, clean: Path) -> None:
    assert "does not say which format" in run("convert", str(clean), "x").complaint
    assert "Name the corpus that holds it with --corpus" in run("convert", str(clean), "x.json").complaint
    assert "--documents: the source brings no documents" in (
        run("convert", str(clean), "x.csv", "--documents", "d.jsonl").complaint
    )
    assert (
        "no split 'tset'. Did you mean 'test'?"
        in run("convert", str(clean), "x.csv", "--split", "tset").complaint
    )
    assert not Path("x.csv").exists()


def test_the_commands_in_the_documentation_parse() -> None:
    text = (Path(__file__).parents[3] / "docs" / "ground-truth.md").read_text(encoding="utf-8")
    calls = [shlex.split(line) for line in text.splitlines() if line.startswith("citeqa dataset ")]
    assert {words[2] for words in calls} == {"convert", "check", "split", "stats"}
    for words in calls:
        dataset.commands[words[2]].make_context(words[2], words[3:])

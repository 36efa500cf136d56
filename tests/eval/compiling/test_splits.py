"""Splits that share a question, or nearly one, are refused with what to do about it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.compiling.splits import read_splits
from program.cli import main
from retrieval.errors import CiteqaError, GroundTruthError

Row = tuple[str, str, str]
WriteQuestions = Callable[[Sequence[Row]], Path]

ROWS: list[Row] = [
    ("t1", "Why does bread rise in a warm kitchen?", "train"),
    ("t2", "How far does the moon pull the sea?", "train"),
    ("d1", "What is steel made of, besides iron?", "dev"),
    ("d2", "富士山の高さは何メートルですか", "dev"),
    ("e1", "When does a pendulum clock lose time?", "test"),
    ("e2", "緑茶と紅茶はどう違いますか", "test"),
]


def to_row(id_: str, question: str, split: str) -> dict[str, Any]:
    gold = [{"doc_uri": f"https://library.example/{id_}"}]
    return {
        "id": id_,
        "inputs": {"question": question},
        "expectations": {"expected_retrieved_context": gold},
        "tags": {"split": split},
    }


@pytest.fixture
def write_questions(tmp_path: Path) -> WriteQuestions:
    def write(rows: Sequence[Row]) -> Path:
        file = tmp_path / "quiz.jsonl"
        lines = (json.dumps(to_row(*row), ensure_ascii=False) for row in rows)
        file.write_text("\n".join(lines), encoding="utf-8")
        return file

    return write


def test_three_splits_that_share_nothing_are_read(write_questions: WriteQuestions) -> None:
    splits = read_splits(write_questions(ROWS))
    read = [[question.id for question in part.questions] for part in (splits.train, splits.dev, splits.test)]
    assert read == [["t1", "t2"], ["d1", "d2"], ["e1", "e2"]]


def test_splits_may_have_other_names(write_questions: WriteQuestions) -> None:
    file = write_questions([*ROWS, ("x1", "Is glass a slow liquid after all?", "practice")])
    assert [question.id for question in read_splits(file, train="practice").train.questions] == ["x1"]


@pytest.mark.parametrize(
    "almost",
    [
        "Why does the bread rise in a warm kitchen?",
        "why does bread rise, in a warm kitchen",
    ],
)
def test_a_question_that_is_nearly_one_of_another_split_is_refused(
    write_questions: WriteQuestions, almost: str
) -> None:
    with pytest.raises(GroundTruthError) as refused:
        read_splits(write_questions([*ROWS, ("e3", almost, "test")]))
    message = str(refused.value)
    assert "1 pair of questions in two splits is nearly one question" in message
    assert re.search(r"'t1' .* of 'train' and 'e3' .* of 'test' \(0\.9\d|1\.00\)", message)
    assert "citeqa dataset split" in message
    assert "\n" not in message


def test_japanese_questions_that_are_nearly_one_are_refused(write_questions: WriteQuestions) -> None:
    with pytest.raises(GroundTruthError, match=r"'t3' .* of 'train' and 'd2' .* of 'dev' \(1.00\)"):
        read_splits(write_questions([*ROWS, ("t3", "富士山の高さは何メートルですか？", "train")]))


def test_near_duplicates_within_one_split_are_no_leak(write_questions: WriteQuestions) -> None:
    read_splits(write_questions([*ROWS, ("t3", "Why does the bread rise in a warm kitchen?", "train")]))


def test_only_the_first_pairs_are_named(write_questions: WriteQuestions) -> None:
    twins = [
        (f"x{n}", f"Which {animal} lives longest in the zoo of Vienna?", "train")
        for n, animal in enumerate(("tortoise", "elephant", "crocodile", "chimpanzee"))
    ]
    copies = [(id_.replace("x", "y"), text + " ", "test") for id_, text, _ in twins]
    copies = [(id_, text.replace("longest", "the longest"), split) for id_, text, split in copies]
    with pytest.raises(GroundTruthError) as refused:
        read_splits(write_questions([*ROWS, *twins, *copies]))
    assert str(refused.value).count("“") == 6
    assert "; …" in str(refused.value)


def test_one_query_that_a_collection_judges_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    queries = {"q1": "bread rises", "q2": "tides of the sea", "q3": "steel and carbon"}
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": id_, "text": text}) for id_, text in queries.items())
    )
    for split, ids in {"train": ["q1", "q2"], "dev": ["q3"], "test": ["q2"]}.items():
        rows = "".join(f"{id_}\tdoc-{id_}\t1\n" for id_ in ids)
        (tmp_path / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    with pytest.raises(GroundTruthError, match="1 question of 'train' stands in 'test', too: 'q2'"):
        read_splits(tmp_path)


def test_a_dataset_without_the_split_is_told_how_to_make_it(write_questions: WriteQuestions) -> None:
    file = write_questions([row for row in ROWS if row[2] != "train"])
    with pytest.raises(GroundTruthError) as refused:
        read_splits(file)
    message = str(refused.value)
    assert "no split 'train'" in message
    assert "Splits there: dev, test" in message
    assert f"citeqa dataset split {file} --out divided.jsonl --shares train=.5,dev=.2,test=.3" in message


def test_the_command_that_is_named_mends_a_leak(
    write_questions: WriteQuestions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [
        f"{verb} {thing}"
        for verb in ("mends", "paints", "sells", "hides", "carries")
        for thing in ("clocks", "kettles", "maps", "violins", "ladders", "lanterns")
    ]
    questions = [(f"q{n}", f"Who {subject} in the town?") for n, subject in enumerate(subjects)]
    rows = [(id_, text, ("train", "dev", "test")[n % 3]) for n, (id_, text) in enumerate(questions)]
    rows += [
        ("c1", "Who mends clocks, in the town?", "dev"),
        ("c2", "Who paints the kettles in the town?", "test"),
    ]
    file = write_questions(rows)
    with pytest.raises(GroundTruthError) as refused:
        read_splits(file)
    command = str(refused.value).split("citeqa ")[1].split(", and name")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["citeqa", *command.split()])
    main()
    splits = read_splits("divided.jsonl")
    assert sum(len(part.questions) for part in (splits.train, splits.dev, splits.test)) == len(rows)


def test_what_is_wrong_with_the_file_itself_is_said_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"id": "q1"\n')
    with pytest.raises(CiteqaError) as refused:
        read_splits(file)
    assert "dataset split" not in str(refused.value)
    with pytest.raises(CiteqaError, match=r"missing\.jsonl"):
        read_splits(tmp_path / "missing.jsonl")


def test_a_thousand_questions_are_checked_in_a_second_or_two(write_questions: WriteQuestions) -> None:
    words = [f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{n * 7919 % 100_003}" for n in range(3_000)]
    rows = [
        (
            f"q{n}",
            f"What is {words[3 * n]} of {words[3 * n + 1]} {words[3 * n + 2]}?",
            ("train", "dev", "test")[n % 3],
        )
        for n in range(1_000)
    ]
    file = write_questions(rows)
    read_splits(write_questions(ROWS))  # the libraries are loaded
    file = write_questions(rows)
    began = time.process_time()
    read_splits(file)
    assert time.process_time() - began < 5

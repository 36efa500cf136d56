"""What stands beside a format's own fields, when people change one of the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.formats.agent_evaluation_set import unread_fields
from eval.formats.beir import unread_query_fields, write_beir_questions
from eval.formats.tables import unread_columns
from eval.ground_truth import GoldItem, Question, read_ground_truth
from retrieval.errors import GroundTruthError

QUESTION = Question(
    "q1",
    "Where?",
    ((GoldItem("a"), GoldItem("b")),),
    expected_facts=("here",),
    tags={"split": "dev", "team": "x"},
)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    write_beir_questions([QUESTION], tmp_path)
    return tmp_path


def change_query(beir: Path, **metadata: Any) -> None:
    row = json.loads((beir / "queries.jsonl").read_text())
    row["metadata"]["citeqa"] |= metadata
    (beir / "queries.jsonl").write_text(json.dumps(row))


def test_judgements_that_were_changed_contradict_what_stands_beside_them(beir: Path) -> None:
    with (beir / "qrels/dev.tsv").open("a") as qrels:
        qrels.write("q1\tc\t1\n")
    with pytest.raises(
        GroundTruthError, match=r"jsonl:1: the gold under 'citeqa' \(a: 1, b: 1\) is not what"
    ):
        read_ground_truth(beir)


def test_a_split_that_was_renamed_is_the_split(beir: Path) -> None:
    (beir / "qrels/dev.tsv").rename(beir / "qrels/test.tsv")
    assert read_ground_truth(beir).questions[0].tags == {"split": "test", "team": "x"}


def test_extras_that_are_not_usable_are_named_with_their_line(beir: Path) -> None:
    change_query(beir, expected_facts=7)
    with pytest.raises(
        GroundTruthError, match=r"queries.jsonl:1: citeqa: expectations.expected_facts: .* not 7"
    ):
        read_ground_truth(beir)


def test_metadata_that_is_no_object_is_refused(beir: Path) -> None:
    (beir / "queries.jsonl").write_text('{"_id": "q1", "text": "Where?", "metadata": ["x"]}\n')
    with pytest.raises(GroundTruthError, match=r"queries.jsonl:1: metadata: expected an object"):
        read_ground_truth(beir)


def test_writing_again_takes_the_judgements_of_other_splits_away(beir: Path) -> None:
    write_beir_questions([Question("q2", "Why?", ((GoldItem("a"),),), tags={"split": "test"})], beir)
    assert sorted(file.name for file in (beir / "qrels").iterdir()) == ["test.tsv"]
    assert [question.id for question in read_ground_truth(beir).questions] == ["q2"]


def test_a_split_that_cannot_name_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match=r"split '\.\./x' cannot name a file"):
        write_beir_questions([Question("q", "?", (), tags={"split": "../x"})], tmp_path)
    assert not list(tmp_path.iterdir())


def test_fields_that_no_question_holds_are_counted(tmp_path: Path, beir: Path) -> None:
    rows = [
        {"request": "A?", "expected_retrieved_context": ["a"], "guidelines": ["be kind"], "trace": "t"},
        {
            "inputs": {"query": "B?", "user": "x"},
            "expectations": {"expected_retrieved_context": [], "note": 1},
        },
        {"inputs": {"messages": []}, "expectations": {"expected_facts": []}, "guidelines": []},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert unread_fields(path) == {"guidelines": 2, "trace": 1, "inputs.user": 1, "expectations.note": 1}

    table = tmp_path / "q.csv"
    table.write_text("q,doc_uri,tags.team,note,empty\nA?,a,x,n,\nB?,b,y,,\n")
    assert unread_columns(table, {"question": "q"}) == {"note": 1}

    row = {"_id": "q1", "text": "?", "doc_id": "p0", "metadata": {"lang": "en", "level": 3}}
    (beir / "queries.jsonl").write_text(json.dumps(row))
    assert unread_query_fields(beir) == {"doc_id": 1, "metadata.level": 1}

"""What is written comes back: all of it, or all but what the format is known not to hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eval.formats.extras import Hold, find_losses
from eval.formats.table_writing import held_by_table
from eval.formats.trec import held_by_trec
from eval.ground_truth import (
    Format,
    GoldItem,
    GroundTruth,
    Question,
    read_every_split,
    read_ground_truth,
    write_ground_truth,
)
from retrieval.types import Document

Make = Callable[..., SearchStrategy[list[Question]]]
TruthOf = Callable[..., GroundTruth]

FULL = Question(
    id="q1",
    question="高さは？",
    gold=((GoldItem("a", 2), GoldItem("b", 2)), (GoldItem("c", 1, "c#1"),), (GoldItem("d", 0),)),
    expected_facts=("3776 m", "日本一"),
    expected_response="It is 3776 m high.",
    accepted_answers=("3776 m", "3,776 metres"),
    tags={"split": "dev", "lang": "ja", "type": "lookup", "team": "x"},
    history=({"role": "user", "content": "富士山は？"}, {"role": "assistant", "content": "山です。"}),
)
BARE = Question("q2", "Who is the king of Atlantis?", (), tags={"split": "test"})
NO_SPLIT = Question("q3", "Why?", ((GoldItem("a"),),))


def by_id(questions: Iterable[Question]) -> dict[str, Question]:
    return {question.id: question for question in questions}


def copy(
    questions: Iterable[Question], target: Any, format: Format | None = None, **how: Any
) -> list[Question]:
    truth = GroundTruth("set", Path("set"), tuple(questions))
    write_ground_truth(truth, target, format, **how)
    return list(read_every_split(target).questions)


def document(doc_uri: str) -> Document:
    return Document(doc_uri, f"{doc_uri} is 3776 m high.", f"Title of {doc_uri}")


# Formats that hold everything


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_agent_evaluation_set_gives_back_any_question(
    data: st.DataObject, make_questions: Make, any_text: SearchStrategy[str], scratch: Path
) -> None:
    names = any_text.filter(lambda text: bool(text.strip()))
    questions = data.draw(make_questions(names))
    name = data.draw(st.sampled_from(["q.jsonl", "q.jsonl.gz"]))
    assert copy(questions, scratch / name) == questions


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_beir_directory_gives_back_any_question_with_what_beir_lacks_in_the_metadata(
    data: st.DataObject, make_questions: Make, any_name: SearchStrategy[str], scratch: Path
) -> None:
    questions = data.draw(make_questions(any_name))
    shutil.rmtree(scratch / "beir", ignore_errors=True)
    assert by_id(copy(questions, scratch / "beir", "beir")) == by_id(questions)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_squad_gives_back_any_question_with_what_it_lacks_beside_it(
    data: st.DataObject, make_questions: Make, any_name: SearchStrategy[str], scratch: Path
) -> None:
    questions = data.draw(make_questions(any_name))
    back = copy(questions, scratch / "squad.json", find_document=document)
    assert by_id(back) == by_id(questions)


@pytest.mark.usefixtures("mlflow_as_found")
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_dataset_of_mlflow_gives_back_any_question(
    data: st.DataObject, make_questions: Make, any_text: SearchStrategy[str], lasting_store: str
) -> None:
    names = any_text.filter(lambda text: bool(text.strip()))
    questions = data.draw(make_questions(names))
    truth = GroundTruth("set", Path("set"), tuple(questions))
    write_ground_truth(truth, "mlflow:any", store=lasting_store, replace=True)
    assert by_id(read_every_split("mlflow:any", store=lasting_store).questions) == by_id(questions)


# Formats that do not


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_table_gives_back_what_it_is_said_to_hold(
    data: st.DataObject, make_questions: Make, any_text: SearchStrategy[str], scratch: Path
) -> None:
    texts = any_text.map(lambda text: text.replace("\0", "0"))
    names = texts.filter(lambda text: bool(text.strip()))
    questions = data.draw(make_questions(names, texts))
    held = list(map(held_by_table, questions))
    name = data.draw(st.sampled_from(["q.csv", "q.parquet", "q.csv.gz"]))
    if len(by_id(held)) == len(held):
        assert copy(questions, scratch / name) == held


@pytest.mark.parametrize("name", ["q.csv", "q.parquet"])
def test_a_table_loses_white_space_around_texts_and_nothing_else(name: str, tmp_path: Path) -> None:
    assert copy([FULL, BARE, NO_SPLIT], tmp_path / name) == [FULL, BARE, NO_SPLIT]
    padded = replace(FULL, question=" Where? ", tags={"team": ""})
    assert [loss.what for loss in find_losses([padded], held_by_table)] == [
        "white space or broken characters in a question",
        "tag 'team'",
    ]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_trec_gives_back_what_it_is_said_to_hold(
    data: st.DataObject, make_questions: Make, any_name: SearchStrategy[str], scratch: Path
) -> None:
    questions = data.draw(make_questions(any_name))
    held = [question for question in map(held_by_trec, questions) if question is not None]
    name = data.draw(st.sampled_from(["topics.tsv", "topics.trec", "topics.tsv.gz"]))
    target = f"trec:{scratch / name},{scratch / 'qrels.txt'}"
    if held:
        without_split = [replace(question, tags={}) for question in held]
        assert copy(questions, target) == without_split


def test_trec_holds_words_grades_and_the_split_and_says_what_it_loses(tmp_path: Path) -> None:
    back = copy([FULL, BARE, NO_SPLIT], tmp_path / "trec", "trec")
    flat = tuple((GoldItem(uri, grade),) for uri, grade in (("a", 2), ("b", 2), ("c", 1), ("d", 0)))
    assert by_id(back) == {
        "q1": Question("q1", "高さは？", flat, tags={"split": "dev"}),
        "q3": replace(NO_SPLIT, tags={"split": "test"}),
    }
    losses = {loss.what: loss.questions for loss in find_losses([FULL, BARE, NO_SPLIT], held_by_trec)}
    assert losses == {
        "the turns before a question": 1,
        "expected facts": 1,
        "expected responses": 1,
        "accepted answers": 1,
        "alternatives (one of several documents suffices)": 1,
        "gold passages (chunk_id)": 1,
        "tag 'lang'": 1,
        "tag 'team'": 1,
        "tag 'type'": 1,
        "questions without a judged document": 1,
    }


def test_nothing_that_is_held_is_called_lost() -> None:
    plain = Question("q", "Where?", ((GoldItem("a", 2),), (GoldItem("b"),)), tags={"split": "dev"})
    holds: list[Hold] = [held_by_table, held_by_trec]
    assert not [loss for hold in holds for loss in find_losses([plain], hold)]


# Chains and refusals


def test_a_chain_of_formats_changes_no_digest(tmp_path: Path, truth_of: TruthOf) -> None:
    truth = truth_of(FULL, BARE, NO_SPLIT)
    before = truth.digest
    for target, format in (
        ("a.jsonl", None),
        ("b", "beir"),
        ("c.json", None),
        ("d.csv", None),
        ("e.parquet", None),
    ):
        write_ground_truth(truth, tmp_path / target, format, find_document=document)  # type: ignore[arg-type]
        truth = read_every_split(tmp_path / target)
    assert truth.digest == before


def test_one_id_in_two_splits_is_not_written(tmp_path: Path, truth_of: TruthOf) -> None:
    twice = truth_of(NO_SPLIT, replace(NO_SPLIT, tags={"split": "dev"}))
    with pytest.raises(Exception, match="1 questions stand in several splits, first 'q3'"):
        write_ground_truth(twice, tmp_path / "q.jsonl")


def test_a_name_that_says_no_format_asks_for_one(tmp_path: Path, truth_of: TruthOf) -> None:
    with pytest.raises(Exception, match=r"Name it --to jsonl\|table\|beir\|trec\|squad\|mlflow"):
        write_ground_truth(truth_of(FULL), tmp_path / "folder")


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, truth_of: TruthOf) -> None:
    target = tmp_path / "set"
    copy([NO_SPLIT], target, "beir")
    before = (target / "qrels/test.tsv").read_bytes()
    with pytest.raises(Exception, match=r"'x\\ty' cannot stand in a table of judgements"):
        write_ground_truth(truth_of(replace(NO_SPLIT, id="x\ty")), target, "beir")
    assert (target / "qrels/test.tsv").read_bytes() == before
    assert not [file for file in target.rglob("*") if file.name.endswith(".new")]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, truth_of: TruthOf) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Exception, match=r"cannot be written: .* Free or change the place"):
        write_ground_truth(truth_of(FULL), tmp_path / "file" / "q.jsonl")


def test_the_format_can_be_stated_where_the_name_says_another(tmp_path: Path, truth_of: TruthOf) -> None:
    write_ground_truth(truth_of(FULL), tmp_path / "q.txt", "jsonl")
    assert read_ground_truth(tmp_path / "q.txt", format="jsonl").questions == (FULL,)

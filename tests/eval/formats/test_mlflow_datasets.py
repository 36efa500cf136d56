"""MLflow's evaluation datasets in a real store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.genai.datasets import create_dataset, get_dataset

from eval.evaluate import evaluate
from eval.formats.extras import find_losses
from eval.formats.mlflow_datasets import held_by_mlflow, unread_record_fields, write_mlflow_questions
from eval.ground_truth import GoldItem, GroundTruth, Question, read_ground_truth
from program.settings import Settings
from retrieval.errors import ConfigurationError, GroundTruthError, StorageError

QUESTIONS = [
    Question("q1", "高さは？", ((GoldItem("a"), GoldItem("b")),), tags={"split": "dev", "lang": "ja"}),
    Question("q2", "Who?", (), tags={"split": "test"}),
]


def test_a_dataset_is_found_by_name_and_by_id_and_has_splits(store: str) -> None:
    dataset_id = write_mlflow_questions(QUESTIONS, "main.eval.quiz", store)
    truth = read_ground_truth("mlflow:main.eval.quiz", split="dev", store=store)
    assert (truth.name, truth.questions) == ("main.eval.quiz", (QUESTIONS[0],))
    by_id = read_ground_truth(f"mlflow:{dataset_id}", store=store)
    assert {question.id: question for question in by_id.questions} == {q.id: q for q in QUESTIONS}


def test_mlflow_reads_the_records_as_its_own(store: str) -> None:
    write_mlflow_questions(QUESTIONS[:1], "quiz", store)
    mlflow.set_tracking_uri(store)
    (record,) = get_dataset(name="quiz").to_df().to_dict("records")
    assert record["inputs"] == {"question": "高さは？"}
    assert record["expectations"]["expected_retrieved_context"] == [[{"doc_uri": "a"}, {"doc_uri": "b"}]]
    assert record["tags"]["split"] == "dev"
    assert record["source_type"] == "HUMAN"


def test_records_that_others_made_are_read_where_they_name_the_gold(store: str) -> None:
    mlflow.set_tracking_uri(store)
    dataset = create_dataset(name="theirs")
    asked = {"messages": [{"role": "user", "content": "Where?"}]}
    expected = {"expected_retrieved_context": [{"doc_uri": "a"}], "expected_facts": ["here"]}
    dataset.merge_records([{"inputs": asked, "expectations": expected, "outputs": {"x": 1}}])
    (question,) = read_ground_truth("mlflow:theirs").questions
    assert question == Question("fb59de59b613ba5c", "Where?", ((GoldItem("a"),),), expected_facts=("here",))
    assert unread_record_fields("theirs") == {"outputs": 1}

    dataset.merge_records([{"inputs": {"question": "No gold?"}}])
    with pytest.raises(
        GroundTruthError, match=r"mlflow:theirs, record dr-\w+: expectations.*_context is missing"
    ):
        read_ground_truth("mlflow:theirs")


def test_a_dataset_with_records_is_replaced_only_when_asked(store: str) -> None:
    write_mlflow_questions(QUESTIONS, "quiz", store)
    with pytest.raises(GroundTruthError, match="mlflow:quiz holds 2 records already"):
        write_mlflow_questions(QUESTIONS[:1], "quiz", store)
    write_mlflow_questions(QUESTIONS[:1], "quiz", store, replace=True)
    assert read_ground_truth("mlflow:quiz", store=store).questions == (QUESTIONS[0],)


def test_of_two_questions_in_the_same_words_the_first_is_held(store: str) -> None:
    again = Question("q3", "高さは？", ((GoldItem("c"),),))
    write_mlflow_questions([*QUESTIONS, again], "quiz", store)
    read = read_ground_truth("mlflow:quiz", store=store).questions
    assert {question.id: question for question in read} == {q.id: q for q in QUESTIONS}
    (loss,) = find_losses([*QUESTIONS, again], held_by_mlflow(), "asked before")
    assert (loss.what, loss.questions, loss.first, loss.whole) == ("asked before", 1, "q3", True)


def test_an_evaluation_finds_its_dataset_in_the_configured_store(
    make_settings: Callable[..., Settings], quiz: GroundTruth, store: str
) -> None:
    write_mlflow_questions(quiz.questions[:6], "quiz", store)
    evaluation = evaluate(make_settings(evaluation={"dataset": "mlflow:quiz", "split": "dev"}))
    assert evaluation.ground_truth.name == "quiz"
    assert evaluation.result.summary.overall.scored == 6


def test_a_dataset_that_is_not_there_names_those_that_are(store: str, tmp_path: Path) -> None:
    write_mlflow_questions(QUESTIONS, "quiz", store)
    with pytest.raises(GroundTruthError, match=r"no evaluation dataset 'quizz'. Did you mean 'quiz'\?"):
        read_ground_truth("mlflow:quizz", store=store)
    with pytest.raises(GroundTruthError, match="no evaluation dataset 'd-0"):
        write_mlflow_questions(QUESTIONS, "d-" + "0" * 32, store)
    with pytest.raises(ConfigurationError, match="'mlflow:' names no dataset"):
        read_ground_truth("mlflow:", store=store)


def test_reading_makes_no_store(tmp_path: Path, mlflow_as_found: None) -> None:
    with pytest.raises(
        GroundTruthError, match=r"There is no dataset 'quiz', as there is no store at 'sqlite:"
    ):
        read_ground_truth("mlflow:quiz", store=f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_no_database_is_told_in_one_line(tmp_path: Path, mlflow_as_found: None) -> None:
    (tmp_path / "bad.db").write_text("no database at all, but text")
    with pytest.raises(StorageError, match="cannot be used"):
        read_ground_truth("mlflow:quiz", store=f"sqlite:///{tmp_path / 'bad.db'}")

"""Questions in Unity Catalog's evaluation datasets, through Databricks' own client: what is written comes back."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from fake_workspace import FakeWorkspace

from eval.formats.mlflow_datasets import write_mlflow_questions
from eval.ground_truth import read_ground_truth
from eval.questions import GoldItem, Question
from program.cli import cli
from retrieval.errors import GroundTruthError, StorageError

TABLE = "main.rag.questions"
PLAIN = Question("q1", "When does water boil?", gold=((GoldItem("https://a"),),), tags={"type": "lookup"})
RICH = Question(
    "q2",
    "And on Everest?",
    history=({"role": "user", "content": "When does water boil?"},),
    gold=((GoldItem("https://a", 2, "a#1"), GoldItem("https://b", 2)), (GoldItem("https://c", 3),)),
    expected_facts=("at 71 degrees",),
    expected_response="At 71 degrees.",
    tags={"lang": "en"},
)
UNANSWERABLE = Question("q3", "富士山の王は誰ですか", gold=(), tags={"type": "unanswerable"})


@pytest.fixture
def experiment(workspace: FakeWorkspace) -> str:
    """MLflow at an experiment of the workspace."""
    mlflow.set_tracking_uri("databricks")
    return str(mlflow.set_experiment("/Shared/citeqa").experiment_id)


@pytest.fixture
def written(workspace: FakeWorkspace, experiment: str) -> FakeWorkspace:
    """The workspace with the three questions in a dataset."""
    write_mlflow_questions([PLAIN, RICH, UNANSWERABLE], TABLE)
    return workspace


def read() -> dict[str, Question]:
    ground_truth = read_ground_truth(f"mlflow:{TABLE}", format="mlflow", store="databricks")
    return {question.id: question for question in ground_truth.questions}


def test_what_is_written_comes_back_with_its_alternatives_grades_history_and_tags(
    written: FakeWorkspace,
) -> None:
    assert read() == {question.id: question for question in (PLAIN, RICH, UNANSWERABLE)}


def test_databricks_own_tools_see_the_documents_side_by_side(written: FakeWorkspace, experiment: str) -> None:
    (record,) = (one for one in written.datasets.records(TABLE) if one["tags"].get("citeqa.id") == "q2")
    context = record["expectations"]["expected_retrieved_context"]["value"]
    assert [item["doc_uri"] for item in context] == ["https://a", "https://b", "https://c"]
    assert written.datasets.experiments[TABLE] == [experiment]


def test_documents_that_somebody_changed_there_count_as_they_are_now(written: FakeWorkspace) -> None:
    (record,) = (one for one in written.datasets.records(TABLE) if one["tags"].get("citeqa.id") == "q2")
    record["expectations"]["expected_retrieved_context"]["value"] = [{"doc_uri": "https://new"}]
    assert read()["q2"] == dataclasses.replace(RICH, gold=((GoldItem("https://new"),),))


def test_a_dataset_that_holds_records_is_replaced_only_when_it_is_said(written: FakeWorkspace) -> None:
    with pytest.raises(GroundTruthError, match=r"holds 3 records already.*--overwrite"):
        write_mlflow_questions([PLAIN], TABLE)
    write_mlflow_questions([PLAIN], TABLE, replace=True)
    assert list(read()) == ["q1"]


def test_more_questions_than_a_batch_takes_are_written_in_several(
    workspace: FakeWorkspace, experiment: str
) -> None:
    many = [
        dataclasses.replace(PLAIN, id=f"q{number}", question=f"Question {number}?") for number in range(250)
    ]
    write_mlflow_questions(many, TABLE)
    assert set(read()) == {question.id for question in many}


def test_what_is_not_there_or_is_no_table_is_told(workspace: FakeWorkspace, experiment: str) -> None:
    with pytest.raises(GroundTruthError, match=r"no dataset 'main\.rag\.nothing' in Unity Catalog"):
        read_ground_truth("mlflow:main.rag.nothing", format="mlflow", store="databricks")
    with pytest.raises(GroundTruthError, match=r"Write catalog\.schema\.table"):
        write_mlflow_questions([PLAIN], "questions")


def test_no_permission_on_the_schema_is_one_line(workspace: FakeWorkspace, experiment: str) -> None:
    workspace.datasets.closed_schemas.add("main.rag")
    with pytest.raises(StorageError, match=r"CREATE TABLE on Schema 'main\.rag'") as told:
        write_mlflow_questions([PLAIN], TABLE)
    assert "\n" not in str(told.value)


def test_the_command_line_copies_to_and_fro(workspace: FakeWorkspace, tmp_path: Any) -> None:
    here = tmp_path / "questions.jsonl"
    here.write_text(
        '{"id": "q1", "inputs": {"question": "Q?"}, "expectations": {"expected_retrieved_context": '
        '[[{"doc_uri": "https://a"}, {"doc_uri": "https://b"}]]}}\n',
        encoding="utf-8",
    )
    there, back = f"mlflow:{TABLE}", tmp_path / "back.jsonl"
    settings = ("--set", "tracking.uri=databricks", "--set", "tracking.experiment=/Shared/citeqa")
    for source, target in ((here, there), (there, back)):
        result = CliRunner().invoke(cli, ["dataset", "convert", str(source), str(target), *settings])
        assert result.exit_code == 0, result.output
    assert read_ground_truth(back).questions == read_ground_truth(here).questions

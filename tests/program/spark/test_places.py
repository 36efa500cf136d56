"""What is known about a batch on Spark before there is a Spark."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.cli import main
from program.spark.agent_model import to_record
from program.spark.asking import slice_sizes
from program.spark.session import first_reason, open_spark
from program.spark.tables import Place, answers_place, questions_place
from retrieval.errors import ConfigurationError


def test_a_place_is_a_path_or_the_name_of_a_table() -> None:
    Path("q.csv").touch()
    Path("many").mkdir()
    Path("many/part-1.jsonl").touch()
    Path("many/_SUCCESS").touch()
    here = str(Path.cwd())
    assert questions_place("q.csv") == Place(f"{here}/q.csv", "csv")
    assert questions_place("many") == Place(f"{here}/many", "json")
    assert questions_place("main.qa.questions") == Place("main.qa.questions", "table")
    assert questions_place("s3://bucket/q.parquet") == Place("s3://bucket/q.parquet", "parquet")
    assert answers_place("out/answers") == Place(f"{here}/out/answers", "parquet")
    assert answers_place("答え.jsonl") == Place(f"{here}/答え.jsonl", "json")
    assert answers_place("a.b.`c d`").journal == Place("a.b.`c d_run`", "table")
    assert answers_place("/Volumes/a/b/c.csv").journal == Place("/Volumes/a/b/c.csv.run", "parquet")


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        (questions_place, "q.xlsx/", "questions are read from .csv, .jsonl, .parquet files"),
        (questions_place, "a.b.c.d", "neither a path nor a table's name"),
        (answers_place, "made.csv", "--out made.csv: Spark writes a directory"),
        (answers_place, "a.csv.gz", "--out a.csv.gz: Spark writes a directory"),
    ],
)
def test_what_is_no_place_is_told(place: Callable[[str], Place], text: str, said: str) -> None:
    Path("made.csv").touch()
    with pytest.raises(ConfigurationError) as told:
        place(text)
    assert said in str(told.value)


@given(st.integers(0, 200_000), st.integers(1, 4000))
def test_slices_make_up_the_whole_and_the_first_is_small(count: int, at_once: int) -> None:
    sizes = list(slice_sizes(count, at_once))
    assert sum(sizes) == count
    assert all(size > 0 for size in sizes)
    assert not sizes or sizes[0] <= 400


def test_the_reason_of_a_failed_job_is_the_line_that_was_raised() -> None:
    report = """An error occurred while calling o1.collect.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 3.0 failed:
Traceback (most recent call last):
  File "worker.py", line 1, in main
ValueError: no such index
\tat org.apache.spark.Worker(Worker.scala:1)
Caused by: java.lang.OtherException: not this one
"""
    assert first_reason(RuntimeError(report)) == "ValueError: no such index"
    assert first_reason(RuntimeError("[TABLE_NOT_FOUND] There is no table `a`.\nPlan:")).startswith("[TABLE")


def test_an_agent_that_is_not_ours_has_its_citations_for_sources() -> None:
    cited = {"type": "url_citation", "url": "https://a.example", "title": "A"}
    parts = [{"type": "output_text", "text": "One.", "annotations": [cited, cited, {"type": "file_path"}]}]
    response: dict[str, Any] = {"output": [{"type": "reasoning"}, {"type": "message", "content": parts}]}
    record = to_record(response)
    assert (record["answer"], record["cited_uris"]) == ("One.", ["https://a.example"])
    assert record["sources"] == [
        {
            "number": 1,
            "cited": True,
            "doc_uri": "https://a.example",
            "url": "https://a.example",
            "title": "A",
            "chunk_id": None,
            "score": None,
            "quotes": [],
        }
    ]
    assert (record["abstained"], record["usage"]) == (None, None)


@pytest.fixture
def no_active_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)


def test_a_missing_java_or_spark_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, no_active_spark: None
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(
        ConfigurationError, match=r"^There is no Java. Spark needs Java 17 or newer: install it"
    ):
        open_spark()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ConfigurationError, match=r"^JAVA_HOME is '/nowhere', which holds no bin/java"):
        open_spark()
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'citeqa\[spark\]'$"):
        open_spark()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model", "models:/a/1"],
            "--model: an agent that MLflow has is asked on Spark. Add --engine spark\n",
        ),
        (
            ["--engine", "spark", "--model", "models:/a/1", "-k", "3"],
            "-k 3: the agent of --model models:/a/1 has",
        ),
        (["--engine", "spark", "--out", "q.csv"], "Error: --out q.csv: Spark writes a directory."),
    ],
)
def test_options_that_contradict_each_other_are_told_at_once(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("q.csv").write_text("question\na\n")
    monkeypatch.setattr(sys, "argv", ["citeqa", "answer", "q.csv", "--out", "a.csv", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(said)

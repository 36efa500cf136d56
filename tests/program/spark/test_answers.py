"""`citeqa answer --engine spark` on a real local Spark: the rows of the local command, whatever ends it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as parquet
import pytest
from mlflow.entities import SpanType

from program.batch_run import BatchReport
from program.settings import Settings
from program.spark import asking
from program.spark.asking import Asking
from retrieval.errors import ConfigurationError, DataError, RunStoppedError

pytestmark = [pytest.mark.slow]

Rows = list[dict[str, Any]]
OnSpark = Callable[..., BatchReport]
ASKED = ("question=q", "history=history", "k=k", "filters=filters")
QUESTIONS: Rows = [
    {"id": "w1", "q": "When does water boil?", "team": {"name": "a", "size": 2}},
    {"id": "f1", "q": "富士山の高さは？", "answer": "the asker's own", "k": 1},
    {"id": "e1", "q": " \u3000"},
    {
        "id": "h1",
        "q": "And on high mountains?",
        "history": [
            {"role": "user", "content": "When does water boil?"},
            {"role": "assistant", "content": "At 100 degrees."},
        ],
    },
    {"id": "n1", "q": "When does iron melt?", "filters": {"language": "ja"}},
    {"id": "x1", "q": "When does iron melt?", "k": 5000},
    {"id": "w2", "q": "When does water boil?"},
]


def write_jsonl(name: str, rows: Rows) -> None:
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def test_each_row_is_that_of_the_local_command_and_is_asked_once(
    on_spark: OnSpark,
    locally: Callable[..., Rows],
    read: Callable[[str], Rows],
    comparable: Callable[[Rows], Rows],
) -> None:
    write_jsonl("q.jsonl", QUESTIONS)
    report = on_spark("q.jsonl", "s.jsonl", columns=ASKED)
    assert (report.questions, report.asked, report.failed, report.abstained) == (7, 6, 2, 1)
    rows = comparable(read("s.jsonl"))
    assert rows == comparable(locally("q.jsonl", ASKED))
    assert {row["error"] for row in rows if row["error"]} >= {"The question is empty."}
    assert all(row["latency_ms"] > 0 for row in read("s.jsonl"))

    write_jsonl("q.jsonl", [*QUESTIONS, {"id": "new", "q": "How hot is it when ice melts?"}])
    assert on_spark("q.jsonl", "s.jsonl", columns=ASKED).asked == 1
    again = on_spark("q.jsonl", "s.jsonl", columns=ASKED, retry_errors=True)
    assert (again.questions, again.asked, again.failed) == (8, 2, 2)
    assert [row for row in comparable(read("s.jsonl")) if row["id"] != "new"] == rows


def test_csv_is_read_as_locally_written_with_nested_values_as_json_and_traced_if_wanted(
    on_spark: OnSpark, locally: Callable[..., Rows], comparable: Callable[[Rows], Rows]
) -> None:
    Path("q.csv").write_text(
        '\ufeffid,question,note,k\n1,"When does ""water""\nboil, say?",,2\n'
        '2,富士山の高さは？,"a,b",\n3,And ice?,x,many\n',
        encoding="utf-8",
    )
    on_spark("q.csv", "s.csv", columns=["k=k"])
    on_spark("q.csv", "s/", columns=["k=k"], how=Asking(trace=True))
    local = comparable(locally("q.csv", ["k=k"]))
    traced = parquet.read_table("s").to_pylist()
    assert comparable(traced) == local
    check_traces(traced)
    cells: Rows = []
    for file in Path("s.csv").glob("part-*"):
        with file.open(encoding="utf-8", newline="") as opened:
            cells += list(csv.DictReader(opened))
    for row, expected in zip(comparable(cells), local, strict=True):
        assert (row["question"], row["note"]) == (expected["question"], expected["note"])
        assert json.loads(row["sources"]) == expected["sources"]
        assert (row["answer"], row["error"]) == (expected["answer"] or "", expected["error"] or "")


def check_traces(rows: Rows) -> None:
    """Each answer names its trace in the store."""
    answered = [row for row in rows if row["answer"]]
    assert len({row["trace_id"] for row in answered}) == len(answered) > 0
    for row in answered:
        trace = mlflow.get_trace(row["trace_id"])
        assert trace is not None
        assert len(trace.search_spans(span_type=SpanType.RETRIEVER)) == 1
        assert row["answer"] in json.dumps(trace.data.spans[0].outputs, ensure_ascii=False)


AGENT = """
import mlflow
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse, create_annotation_added

class Echo(ResponsesAgent):
    def predict(self, request):
        question = request.input[-1].content
        if "fail" in question:
            raise ValueError("cannot say: " + question)
        cited = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
        item = self.create_text_output_item(question.upper(), "m1")
        item["content"][0]["annotations"] = [cited, cited]
        return ResponsesAgentResponse(output=[item], usage=USAGE)

    def predict_stream(self, request):
        yield from ()

details = {"cached_tokens": 0}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5,
         "input_tokens_details": details, "output_tokens_details": {"reasoning_tokens": 0}}
mlflow.models.set_model(Echo())
"""


@pytest.fixture
def echo(settings: Settings) -> str:
    """A registered agent that is not ours."""
    Path("echo.py").write_text(AGENT)
    mlflow.set_tracking_uri(settings.tracking.uri)
    mlflow.set_experiment("spark")
    mlflow.tracing.enable()
    mlflow.pyfunc.log_model(
        name="echo", python_model="echo.py", registered_model_name="echo", pip_requirements=["mlflow"]
    )
    version = mlflow.MlflowClient().search_model_versions("name = 'echo'")[0].version
    mlflow.MlflowClient().set_registered_model_alias("echo", "champion", version)
    return "models:/echo@champion"


def test_any_agent_that_mlflow_has_answers_from_table_to_table(
    spark: Any, on_spark: OnSpark, echo: str
) -> None:
    table = [("ok", "one"), ("fail", "two"), ("日本", "three")]
    spark.createDataFrame(table, ["question", "name"]).write.mode("overwrite").saveAsTable("asked")
    report = on_spark("asked", "default.told", model=echo)
    assert (report.questions, report.asked, report.failed) == (3, 3, 1)
    assert report.first_failure == "ValueError('cannot say: fail')"
    rows = {row["name"]: row.asDict(recursive=True) for row in spark.table("told").collect()}
    assert (rows["one"]["answer"], rows["three"]["answer"], rows["two"]["answer"]) == ("OK", "日本", None)
    assert rows["one"]["cited_uris"] == ["https://a.example"]
    assert rows["one"]["sources"][0]["title"] == "A"
    assert rows["one"]["usage"] == {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    assert len({row["id"] for row in rows.values()}) == 3
    assert on_spark("asked", "default.told", model=echo).asked == 0, "an alias is known by what it names"


def test_too_many_failures_stop_it_after_a_slice_or_are_told_when_all_are_written(
    spark: Any, on_spark: OnSpark, echo: str, monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Rows]
) -> None:
    write_jsonl("q.jsonl", [{"question": f"fail {number}"} for number in range(30)])
    monkeypatch.setattr(asking, "_FIRST_SLICE", 8)
    with pytest.raises(RunStoppedError, match=r"^Stopped: 8 questions failed, the first because: ValueError"):
        on_spark("q.jsonl", "s.jsonl", model=echo)
    assert not Path("s.jsonl").exists()
    said: list[tuple[int, int]] = []
    how = Asking(max_failed_share=1.0)
    on_spark("q.jsonl", "s.jsonl", model=echo, how=how, on_answer=lambda *done: said.append(done))
    assert said == [(16, 30), (30, 30)]
    with pytest.raises(RunStoppedError, match="is written, but 30 of 30 questions failed"):
        on_spark("q.jsonl", "s.jsonl", model=echo)
    assert len(read("s.jsonl")) == 30


@pytest.mark.parametrize(
    ("rows", "arguments", "error", "expected"),
    [
        ([{"q": "a"}], {}, DataError, "there is no column 'question' for question"),
        ([{"question": "a"}], {"columns": ["k=depth"]}, DataError, "there is no column 'depth' for k"),
        (
            [{"question": "a", "id": 1}, {"question": "b", "id": 1}],
            {},
            DataError,
            "the id '1' is that of 2 rows",
        ),
        ([{"question": "a", "id": 1}, {"question": "b"}], {}, DataError, "the id of 1 rows is empty"),
        ([{"question": ""}], {}, RunStoppedError, "1 of 1 rows have no question"),
        ([], {}, DataError, "holds no questions"),
        (
            [{"question": "a"}],
            {"model": "models:/none/1"},
            ConfigurationError,
            "--model models:/none/1: cannot",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_asked(
    on_spark: OnSpark, rows: Rows, arguments: dict[str, Any], error: type[Exception], expected: str
) -> None:
    write_jsonl("q.jsonl", rows)
    with pytest.raises(error) as told:
        on_spark("q.jsonl", "s.jsonl", **arguments)
    assert expected in str(told.value)
    assert "\n" not in str(told.value)
    assert not Path("s.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.csv", None, "Cannot read "),
        ("no.such.table", None, "Cannot read no.such.table: "),
        ("broken.jsonl", '{"question": "a"}\n{"question": \n', "broken.jsonl"),
        ("broken.csv", "question,id\na,1\nb,2,3\n", "Malformed CSV record: b,2,3"),
        ("broken.parquet", "no Parquet", "Cannot read "),
    ],
)
def test_a_table_that_cannot_be_read_is_told_in_one_line(
    on_spark: OnSpark, name: str, content: str | None, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(DataError) as told:
        on_spark(name, "s.jsonl")
    assert expected in str(told.value)
    assert "\n" not in str(told.value)
    assert "Traceback" not in capfd.readouterr().err


def test_an_output_of_others_is_left_alone(on_spark: OnSpark) -> None:
    write_jsonl("q.jsonl", [{"question": "a"}])
    Path("s.jsonl").mkdir()
    with pytest.raises(ConfigurationError, match="exists, and not as this command wrote it"):
        on_spark("q.jsonl", "s.jsonl")
    Path("many").mkdir()
    Path("q.jsonl").rename("many/q.jsonl")
    with pytest.raises(ConfigurationError, match="these are the questions"):
        on_spark("many", "./many/")

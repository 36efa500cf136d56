"""Tables of questions as people have them: what is asked of each row, and what is told when one cannot be."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from program.batch_questions import Asked, QuestionTable, parse_columns, well_formed
from retrieval.errors import ConfigurationError, DataError, RequestError


def table(text: str | bytes, name: str = "q.csv", *columns: str) -> QuestionTable:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return QuestionTable.open(Path(name), parse_columns(columns))


def questions(opened: QuestionTable) -> list[Any]:
    return [opened.question_of(row) for row in opened.rows()]


def test_a_csv_is_read_with_its_byte_order_mark_line_ends_and_quoted_newlines() -> None:
    opened = table(b'\xef\xbb\xbfquestion,note\r\n"first\r\nsecond",a\r\n"say ""hi""",\r\n')
    assert questions(opened) == ["first\r\nsecond", 'say "hi"']
    assert [opened.id_of(row) for row in opened.rows()] == [1, 2]
    assert [row.values["note"] for row in opened.rows()] == ["a", ""]
    assert opened.carried() == ("note",)


def test_json_lines_are_read_plain_and_gzipped_in_any_language() -> None:
    line = json.dumps({"question": "富士山の高さは？"}, ensure_ascii=False)
    assert questions(table(line + "\n\n" + line, "q.jsonl")) == ["富士山の高さは？"] * 2
    assert questions(table(gzip.compress(line.encode()), "q.JSONL.gz")) == ["富士山の高さは？"]


def test_parquet_is_read_with_its_types() -> None:
    pandas.DataFrame({"question": ["a", None], "id": [7, 8]}).to_parquet("q.parquet")
    opened = QuestionTable.open(Path("q.parquet"))
    assert [opened.id_of(row) for row in opened.rows()] == [7, 8]
    assert (opened.count, opened.unusable) == (2, 1)


def test_columns_of_other_names_and_within_values_are_read_by_their_mapping() -> None:
    text = json.dumps({"key": "a", "inputs": {"question": "q"}, "in.puts": "x"})
    opened = table(text, "q.jsonl", "question=inputs.question", "id=key")
    (row,) = opened.rows()
    assert (opened.question_of(row), opened.id_of(row)) == ("q", "a")
    assert opened.carried() == ("inputs", "in.puts"), "what holds the question holds more"
    assert questions(table(text, "q.jsonl", "question=in.puts")) == ["x"], "a name with a dot is a name first"


def test_a_row_asks_with_history_k_and_filters_only_where_they_are_mapped() -> None:
    history = [{"role": "user", "content": "What is iron?"}]
    cells = ["q", json.dumps(history), "4", json.dumps({"lang": "ja"})]
    with Path("rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "history", "k", "filters"], cells, ["r", "", "", ""]])
    text = Path("rows.csv").read_bytes()
    opened = table(text, "q.csv", "history=history", "k=k", "filters=filters")
    first, second = opened.rows()
    assert opened.asked(first) == Asked("q", history, 4, {"lang": "ja"})
    assert opened.asked(second) == Asked("r")
    unmapped = table(text)
    assert [unmapped.asked(row) for row in unmapped.rows()] == [Asked("q"), Asked("r")]


def test_values_from_parquet_ask_as_they_are() -> None:
    frame = pandas.DataFrame(
        {
            "question": ["q", "r"],
            "h": [[{"role": "user", "content": "before"}], None],
            "k": [3.0, None],
            "f": [{"lang": "ja", "year": None}, {"lang": None, "year": 2024}],
        }
    )
    frame.to_parquet("q.parquet")
    opened = QuestionTable.open(Path("q.parquet"), parse_columns(["history=h", "k=k", "filters=f"]))
    first, second = (opened.asked(row) for row in opened.rows())
    assert first == Asked("q", [{"role": "user", "content": "before"}], 3, {"lang": "ja"})
    assert second == Asked("r", (), None, {"year": 2024})


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"question": None}, "The question is empty."),
        ({"question": float("nan")}, "The question is empty."),
        ({"question": " \u3000\n"}, "The question is empty."),
        ({}, "The question is empty."),
        ({"question": 42}, "The question is 42, which is not text."),
        ({"question": ["a"]}, "The question is ['a'], which is not text."),
        ({"question": "q", "k": "many"}, "k is 'many', not a whole number."),
        ({"question": "q", "k": True}, "k is True, not a whole number."),
        ({"question": "q", "k": 2.5}, "k is 2.5, not a whole number."),
        ({"question": "q", "filters": "lang=ja"}, "filters is 'lang=ja', not an object of conditions."),
        ({"question": "q", "history": "{}"}, "history is '{}', not a list of messages."),
        ({"question": "q", "history": "[" * 9000}, "not a list of messages."),
    ],
)
def test_a_row_that_cannot_be_asked_is_told_and_spoils_no_other(
    cells: dict[str, Any], complaint: str
) -> None:
    text = "\n".join(json.dumps(row) for row in (cells, {"question": "fine", "k": 1}))
    opened = table(
        text, "q.jsonl", *(f"{field}={field}" for field in ("k", "history", "filters") if field in cells)
    )
    bad, good = opened.rows()
    with pytest.raises(RequestError) as caught:
        opened.asked(bad)
    assert complaint in str(caught.value)
    assert opened.asked(good).question == "fine"
    assert (opened.unusable, opened.complaint.startswith("q.jsonl:1: ")) == (
        (1, True) if "question" in complaint else (0, False)
    )


def test_half_a_character_is_asked_as_the_sign_for_one() -> None:
    (row,) = (opened := table('{"question": "half \\ud83d, whole \\ud83d\\ude00"}', "q.jsonl")).rows()
    assert opened.asked(row).question == "half \ufffd, whole \U0001f600"
    assert opened.question_of(row) == "half \ud83d, whole \U0001f600"
    assert well_formed("plain 山") == "plain 山"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("q.csv", "", "q.csv: holds no questions."),
        ("q.csv", "question\n", "q.csv: holds no questions."),
        ("q.jsonl", "\n \n", "q.jsonl: holds no questions."),
        ("q.jsonl", "{}\n[]\n", "q.jsonl:2: expected an object {…}, got '[]'."),
        ("q.jsonl", '{"question": \n', "q.jsonl:1: not valid JSON"),
        ("q.csv", b"question\n\xff\n", "q.csv:2: not UTF-8"),
        ("q.csv", 'question\n"open\n', "q.csv:2: not CSV: unexpected end of data."),
        ("q.csv", "question\na,b\n", "q.csv:2: more cells than the header has columns."),
        (
            "q.csv",
            "question,question\na,b\n",
            "q.csv: two columns are called 'question'. Rename one of them.",
        ),
        ("q.parquet", "question\n", "Cannot read q.parquet as Parquet"),
        ("q.csv.gz", "question\n", "Cannot read q.csv.gz: Not a gzipped file"),
        (
            "q.txt",
            "question\n",
            "q.txt: questions are read from .csv, .jsonl, .parquet files. Convert it to one.",
        ),
        ("q", "question\n", "q: questions are read from"),
        (
            "q.csv",
            "quesiton,b\na,c\n",
            "q.csv: there is no column 'question' for question. Did you mean 'quesiton'? The columns are: "
            "quesiton, b. Name yours: --column question=…",
        ),
        (
            "q.csv",
            "id,question\nx,a\nx,b\n",
            "q.csv:3: the id 'x' is also that of q.csv:2. Give each row its own",
        ),
        ("q.csv", "id,question\nx,a\n,b\n", "q.csv:3: the id is empty. Give each row its own"),
        ("q.jsonl", '{"id": [1], "question": "a"}', "q.jsonl:1: the id is [1], neither text nor a number."),
    ],
)
def test_a_table_that_is_not_usable_is_told_with_its_place(
    name: str, text: str | bytes, complaint: str
) -> None:
    with pytest.raises(DataError) as caught:
        table(text, name)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"^Cannot read none\.csv: No such file or directory\.$"):
        QuestionTable.open(Path("none.csv"))


def test_a_question_within_a_value_is_named_when_it_is_looked_for_elsewhere() -> None:
    with pytest.raises(DataError, match=r"Did you mean 'inputs\.question'\? The columns are: inputs\."):
        table('{"inputs": {"question": "q"}}', "q.jsonl")


def test_a_column_that_was_named_and_is_not_there_is_told() -> None:
    with pytest.raises(DataError, match=r"there is no column 'klimit' for k\. Did you mean 'limit'\? The"):
        table("question,limit\na,1\n", "q.csv", "k=klimit")


def test_rows_are_numbered_where_their_ids_are_of_no_use() -> None:
    opened = table("id,question\nx,a\nx,b\n", "q.csv", "id=")
    assert [opened.id_of(row) for row in opened.rows()] == [1, 2]
    assert opened.carried() == ("id",)


def test_a_cell_may_be_long() -> None:
    assert questions(table(f"question\n{'x' * 200_000}\n")) == ["x" * 200_000]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["question"], "--column question: write it as field=column, for example question=q"),
        (["quesion=q"], "--column quesion=q: there is no field 'quesion'. Did you mean 'question'?"),
        (["k=a", "k=b"], "--column k=b: k is 'a' already. Name one."),
        (["question="], "--column question=: name the column, for example question=q"),
    ],
)
def test_a_mapping_that_is_none_is_told(options: list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_columns(options)
    assert str(caught.value).startswith(complaint)


def test_a_column_may_be_called_what_it_likes() -> None:
    assert parse_columns(["question = a=b ", "id="]) == {"question": "a=b", "id": ""}

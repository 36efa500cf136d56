"""The table of answers: in the order of the questions, with everything that they came with."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from program.batch_output import ANSWER_FIELDS, output_names, write_table
from program.batch_questions import QuestionTable, parse_columns

ANSWER: dict[str, Any] = {
    "answer": "3776メートルです。[1]",
    "cited_uris": ["https://d.example/fuji"],
    "sources": [
        {
            "number": 1,
            "cited": True,
            "doc_uri": "https://d.example/fuji",
            "url": "https://d.example/fuji#高さ",
            "title": "富士山",
            "chunk_id": "c",
            "score": 1.5,
            "quotes": ["高さは3776メートルです。"],
        }
    ],
    "abstained": False,
    "reader": "extractive",
    "fallback_reason": None,
    "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    "latency_ms": 1.25,
    "trace_id": None,
    "error": None,
}
FAILED = {
    **dict.fromkeys(ANSWER_FIELDS),
    "cited_uris": [],
    "sources": [],
    "latency_ms": 0.5,
    "error": "no\nluck",
}


def questions(rows: Sequence[dict[str, Any]], name: str = "q.jsonl", *columns: str) -> QuestionTable:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return QuestionTable.open(Path(name), parse_columns(columns))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def test_json_lines_hold_everything_as_it_is() -> None:
    given_row = {"id": "a", "question": "高さは？", "note": {"deep": [1, None, 2.5]}, "half": "\ud83d"}
    table = questions([given_row, {"id": "b", "question": None}])
    write_table(Path("a.jsonl"), table, [ANSWER, FAILED])
    first, second = read_json_lines(Path("a.jsonl"))
    assert first == {
        "id": "a",
        "question": "高さは？",
        **ANSWER,
        "note": {"deep": [1, None, 2.5]},
        "half": "\ud83d",
    }
    assert second == {"id": "b", "question": None, **FAILED, "note": None, "half": None}
    assert list(first) == ["id", "question", *ANSWER_FIELDS, "note", "half"]


def test_csv_holds_nested_values_as_json_text() -> None:
    table = questions(
        [{"question": 'say "a,b"\r\n高', "flag": True, "n": 2, "tags": ["x", "山"], "none": None}]
    )
    write_table(Path("a.csv"), table, [ANSWER])
    (row,) = read_csv(Path("a.csv"))
    assert (row["id"], row["question"], row["flag"], row["n"]) == ("1", 'say "a,b"\r\n高', "true", "2")
    assert (json.loads(row["tags"]), row["none"], row["error"]) == (["x", "山"], "", "")
    assert json.loads(row["sources"]) == ANSWER["sources"]
    assert "山" in row["tags"]


def test_a_csv_that_spreadsheets_wrote_makes_one_that_they_read() -> None:
    Path("q.csv").write_bytes("\ufeffquestion\n山\n".encode())
    write_table(Path("a.csv"), QuestionTable.open(Path("q.csv")), [ANSWER])
    assert Path("a.csv").read_bytes().startswith("\ufeffid,question,".encode())
    Path("q.csv").write_bytes("question\n山\n".encode())
    write_table(Path("a.csv"), QuestionTable.open(Path("q.csv")), [ANSWER])
    assert Path("a.csv").read_bytes().startswith(b"id,question,")


def test_parquet_holds_sources_nested_and_other_columns_by_what_they_hold() -> None:
    rows = [
        {
            "question": "a",
            "n": 1,
            "mixed": 1,
            "long": 2**60,
            "f": 1,
            "t": ["x"],
            "o": {"a": 1},
            "huge": 2**70,
        },
        {"question": "b", "n": 2, "mixed": "1", "long": 3, "f": 0.5, "t": [], "o": {"b": 2}, "gone": None},
    ]
    write_table(Path("a.parquet"), questions(rows), [ANSWER, FAILED])
    first, second = read_parquet(Path("a.parquet"))
    assert {name: first[name] for name in ANSWER} == ANSWER
    assert (second["answer"], second["error"], second["sources"]) == (None, "no\nluck", [])
    assert (first["n"], first["long"], first["f"], first["t"]) == (1, 2**60, 1.0, ["x"])
    assert (first["mixed"], second["mixed"]) == ("1", '"1"')
    assert (first["o"], second["o"], first["huge"], second["huge"]) == (
        '{"a": 1}',
        '{"b": 2}',
        str(2**70),
        None,
    )
    assert (first["id"], first["gone"]) == (1, None)


def test_parquet_made_of_parquet_keeps_every_type() -> None:
    day = datetime.date(2026, 11, 25)
    given_table = pyarrow.table(
        {
            "key": pyarrow.array([1, 2, 3], pyarrow.int8()),
            "q": pyarrow.array(["a", "b", "c"], pyarrow.large_string()),
            "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
            "when": pyarrow.array([1, 2, 3], pyarrow.timestamp("ns", "Asia/Tokyo")),
            "price": pyarrow.array([Decimal("1.10"), None, Decimal("2.00")]),
            "raw": pyarrow.array([b"\xff", None, b""]),
            "map": pyarrow.array([[("k", 1)], [], None], pyarrow.map_(pyarrow.string(), pyarrow.int16())),
            "answer": pyarrow.array([day, day, None]),
        }
    )
    pyarrow.parquet.write_table(given_table, "q.parquet", row_group_size=2)
    table = QuestionTable.open(Path("q.parquet"), parse_columns(["question=q", "id=key"]))
    write_table(Path("a.parquet"), table, [ANSWER, FAILED, ANSWER])
    written = pyarrow.parquet.read_table("a.parquet")
    assert written.column_names[:3] == ["id", "question", "answer"]
    names = {"key": "id", "q": "question", "answer": "input_answer"}
    for name in given_table.column_names:
        column = written.column(names.get(name, name))
        assert column.type == given_table.column(name).type
        assert column.to_pylist() == given_table.column(name).to_pylist()
    assert written.column("error").to_pylist() == [None, "no\nluck", None]

    write_table(Path("a.jsonl"), table, [ANSWER])
    (row,) = read_json_lines(Path("a.jsonl"))
    assert (row["input_answer"], row["price"], row["raw"], row["map"]) == (
        "2026-11-25",
        "1.10",
        "/w==",
        [["k", 1]],
    )


def test_an_id_and_a_question_from_within_a_value_are_made_for_parquet() -> None:
    frame = pandas.DataFrame({"inputs": [{"question": "a", "key": n} for n in range(2500)]})
    frame.to_parquet("q.parquet", row_group_size=700)
    columns = parse_columns(["question=inputs.question", "id=inputs.key"])
    write_table(Path("a.parquet"), QuestionTable.open(Path("q.parquet"), columns), [ANSWER] * 2500)
    rows = read_parquet(Path("a.parquet"))
    assert [row["id"] for row in rows] == [row["inputs"]["key"] for row in rows] == list(range(2500))
    assert {row["question"] for row in rows} == {"a"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_as_many_rows_are_written_as_there_are_answers(suffix: str) -> None:
    table = questions([{"question": str(n)} for n in range(2200)])
    out = Path(f"a{suffix}")
    for count in (1, 999, 1000, 1001, 2200):
        write_table(out, table, [ANSWER] * count)
        read = {".csv": read_csv, ".jsonl": read_json_lines, ".parquet": read_parquet}[suffix]
        assert [row["question"] for row in read(out)] == [str(n) for n in range(count)]


def test_a_column_with_the_name_of_a_field_is_carried_under_another() -> None:
    row = {"question": "q", "answer": 1, "input_answer": 2, "input_input_answer": 3, "error": "e"}
    table = questions([row])
    names = output_names(table)
    assert len(set(names.values())) == 4
    write_table(Path("a.jsonl"), table, [ANSWER])
    (written,) = read_json_lines(Path("a.jsonl"))
    assert {name: written[names[name]] for name in names} == {k: v for k, v in row.items() if k != "question"}
    assert (written["answer"], written["error"], names["error"]) == (ANSWER["answer"], None, "input_error")


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_rows = st.lists(st.dictionaries(_texts, _cells, max_size=4), min_size=1, max_size=5)
_within_a_test = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_within_a_test
@given(_rows)
def test_whatever_a_row_came_with_goes_through_json_lines_unchanged(rows: list[dict[str, Any]]) -> None:
    table = questions([{**row, "q": "?"} for row in rows], "q.jsonl", "question=q", "id=")
    names = output_names(table)
    write_table(Path("a.jsonl"), table, [ANSWER] * len(rows))
    for row, written in zip(rows, read_json_lines(Path("a.jsonl")), strict=True):
        expected = {names[name]: row.get(name) for name in names}
        assert {name: written[name] for name in expected} == expected


@_within_a_test
@given(_rows)
def test_whatever_a_row_came_with_can_be_had_back_from_parquet(rows: list[dict[str, Any]]) -> None:
    table = questions([{**row, "q": "?"} for row in rows], "q.jsonl", "question=q", "id=")
    names = output_names(table)
    write_table(Path("a.parquet"), table, [ANSWER] * len(rows))
    written = read_parquet(Path("a.parquet"))
    for name, output in names.items():
        had = [row.get(name) for row in rows]
        have = [row[output] for row in written]
        assert have == had or [None if cell is None else json.loads(cell) for cell in have] == had


@_within_a_test
@given(st.lists(st.lists(_texts, min_size=2, max_size=2), min_size=1, max_size=5), _texts)
def test_whatever_text_a_cell_of_a_csv_holds_goes_through_unchanged(
    cells: list[list[str]], name: str
) -> None:
    with Path("q.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["question", f"x{name}"], *cells])
    table = QuestionTable.open(Path("q.csv"))
    write_table(Path("a.csv"), table, [ANSWER] * len(cells))
    assert [[row["question"], row[f"x{name}"]] for row in read_csv(Path("a.csv"))] == cells

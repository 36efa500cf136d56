from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.spark.corpus.passages import PassageRows
from retrieval.errors import ConfigurationError
from retrieval.types import Passage

ROWS = PassageRows({"team": "string", "year": "bigint", "share": "double", "open": "boolean"})


def cells(rows: PassageRows, metadata: Mapping[str, Any], text: str = "Water boils.") -> dict[str, Any]:
    passage = Passage("u#c0000", "u", text, metadata=metadata, headings=("A", "B"), start=3, end=15)
    return dict(zip(rows.schema.names, rows.row(passage), strict=True))


def test_a_row_has_what_a_passage_has_and_all_its_metadata_as_json() -> None:
    row = cells(PassageRows({}), {"year": 2024, "チーム": "赤"})
    assert (row["chunk_id"], row["doc_uri"], row["url"], row["text"]) == ("u#c0000", "u", "u", "Water boils.")
    assert (row["headings"], row["start_char"], row["end_char"]) == (["A", "B"], 3, 15)
    assert json.loads(row["metadata"]) == {"year": 2024, "チーム": "赤"}
    assert "赤" in row["metadata"]


def test_metadata_can_have_columns_which_hold_one_type_and_nothing_where_a_value_is_of_another() -> None:
    row = cells(ROWS, {"team": "red", "year": 2024, "share": 1, "open": True})
    assert (row["team"], row["year"], row["share"], row["open"]) == ("red", 2024, 1.0, True)
    row = cells(ROWS, {"team": 7, "year": True, "share": "half", "open": 1})
    assert (row["team"], row["year"], row["share"], row["open"]) == (None, None, None, None)
    assert cells(ROWS, {"year": 2**70})["year"] is None
    assert json.loads(row["metadata"])["share"] == "half"


def test_a_column_of_every_table_cannot_be_one_of_metadata() -> None:
    with pytest.raises(ConfigurationError, match="'Text' is a column of every passage table"):
        PassageRows({"Text": "string"})


def test_rows_are_told_apart_by_any_cell_and_by_the_model_that_embeds_them() -> None:
    digests = [
        cells(ROWS, {"team": "red"})["digest"],
        cells(ROWS, {"team": "blue"})["digest"],
        cells(ROWS, {"team": "red"}, "Ice melts.")["digest"],
        cells(PassageRows({}), {"team": "red"})["digest"],
        cells(PassageRows({}, "model-a"), {"team": "red"})["digest"],
        cells(PassageRows({}, "model-b"), {"team": "red"})["digest"],
    ]
    assert len(set(digests)) == len(digests)
    assert cells(ROWS, {"team": "red"})["digest"] == digests[0]


@given(st.text(), st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.floats())))
def test_whatever_a_passage_holds_a_table_can_hold_its_row(text: str, metadata: dict[str, Any]) -> None:
    import pyarrow as pa

    rows = PassageRows({"a": "bigint", "b": "double"}, "model")
    row = rows.row(Passage("u#c0000", "u", text, metadata=metadata))
    for cell, field in zip(row, rows.schema, strict=True):
        pa.array([cell], field.type)


def test_half_of_a_surrogate_pair_which_no_table_can_hold_becomes_a_question_mark() -> None:
    assert cells(ROWS, {}, "broken \ud83d here")["text"] == "broken ? here"

"""The questions of a Spark table: found, checked, and keyed by what they ask, without leaving Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from program.batch_output import output_names
from program.batch_questions import FIELDS, QuestionTable
from program.spark.session import spark_errors
from program.spark.tables import Place
from retrieval.errors import DataError
from retrieval.suggestions import did_you_mean

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_OTHER_ID = "Give each row its own, or let the rows be named by their content with --column id="
_KEY_CHARACTERS = 32
_ID_CHARACTERS = 16
_BLANK = r"(?U)^\s*$"


@dataclass(frozen=True, slots=True)
class SparkQuestions:
    """Questions in Spark, by `open_questions`.

    `rows` has, beside the columns of the table, `_key` (a hash of what the row asks, and whom) and `_asks` (the
    cells that it asks, as a JSON object). `unusable` of `count` rows have no question.
    """

    place: Place
    rows: DataFrame
    columns: Mapping[str, str]
    count: int
    unusable: int

    def names(self) -> dict[str, str]:
        """What each column that goes through is called in the output."""
        table = [name for name in self.rows.columns if name not in ("_key", "_asks")]
        path = Path(self.place.name)
        return output_names(QuestionTable(path, self.columns, tuple(table), self.count, 0, "", ""))

    def id(self) -> Column:
        """The row's id; where there is no such column, a part of its key: a Spark table has no order to number."""
        from pyspark.sql import functions as f

        if "id" not in self.columns:
            return f.substring("_key", 1, _ID_CHARACTERS)
        return column(self.rows, self.columns["id"])

    def question(self) -> Column:
        """The row's question."""
        return column(self.rows, self.columns["question"])


def open_questions(
    table: DataFrame, place: Place, columns: Mapping[str, str], identity: str, limit: int | None
) -> SparkQuestions:
    """Check a table of questions. `columns` is as `parse_columns` gives it, `identity` says whom they are for.

    With a `limit`, so many rows in the order of their keys: the same ones each time, whatever order Spark has.

    Raises:
        DataError: if it holds no question, lacks a column, or two rows have one id.
    """
    if not table.columns:
        raise DataError(f"{place}: holds no questions.")
    wanted = {field: name for field, name in {**_DEFAULTS, **columns}.items() if name}
    found = {field: name for field, name in wanted.items() if _type(table, name) is not None}
    for field, name in wanted.items():
        if field not in found and (field == "question" or field in columns):
            raise DataError(
                f"{place}: there is no column {name!r} for {field}. {did_you_mean(name, table.columns)}"
                f"The columns are: {', '.join(table.columns)}. Name yours: --column {field}=…"
            )
    rows = _keyed(table, found, identity)
    if limit is not None:
        rows = rows.orderBy("_key").limit(limit)
    with spark_errors(f"Cannot read {place}", DataError):
        count, unusable, without_id = _counts(rows, found)
        if not count:
            raise DataError(f"{place}: holds no questions.")
        if without_id:
            raise DataError(f"{place}: the id of {without_id} rows is empty. {_OTHER_ID}")
        if "id" in found:
            _check_ids(rows, place, found["id"])
    return SparkQuestions(place, rows, found, count, unusable)


_DEFAULTS = {"question": "question", "id": "id"}


def column(table: DataFrame, name: str) -> Column:
    """A column by its name; where none has the name, along its dots into nested values."""
    from pyspark.sql import functions as f

    return f.col(".".join(f"`{part}`" for part in _parts(table, name)))


def _type(table: DataFrame, name: str) -> Any:
    """The type of a column, or None where there is none of that name, to the letter."""
    from pyspark.sql.types import StructType

    kind: Any = table.schema
    for part in _parts(table, name):
        if not isinstance(kind, StructType) or part not in kind.names:
            return None
        kind = kind[part].dataType
    return kind


def _parts(table: DataFrame, name: str) -> list[str]:
    return [name] if name in table.columns else name.split(".")


def _keyed(table: DataFrame, columns: Mapping[str, str], identity: str) -> DataFrame:
    from pyspark.sql import functions as f

    cells = [
        _cell(table, columns[field]).alias(field) for field in FIELDS if field in columns and field != "id"
    ]
    asks = f.to_json(f.struct(*cells))
    key = f.substring(f.sha2(f.concat_ws("\n", f.lit(identity), asks), 256), 1, _KEY_CHARACTERS)
    return table.withColumns({"_asks": asks, "_key": key})


def _cell(table: DataFrame, name: str) -> Column:
    from pyspark.sql import functions as f
    from pyspark.sql.types import DoubleType, FloatType

    cell = column(table, name)
    # A table of numbers with gaps, as pandas writes it: not a number is none.
    return f.nanvl(cell, f.lit(None)) if isinstance(_type(table, name), DoubleType | FloatType) else cell


def _counts(rows: DataFrame, columns: Mapping[str, str]) -> tuple[int, int, int]:
    from pyspark.sql import functions as f

    row = rows.agg(
        f.count(f.lit(1)),
        f.count_if(_is_blank(rows, columns["question"])),
        f.count_if(_is_blank(rows, columns["id"])) if "id" in columns else f.lit(0),
    ).first()
    assert row is not None  # an aggregate has a row
    return row[0], row[1], row[2]


def _is_blank(rows: DataFrame, name: str) -> Column:
    from pyspark.sql.types import StringType

    cell = column(rows, name)
    is_text = isinstance(_type(rows, name), StringType)
    return cell.isNull() | cell.rlike(_BLANK) if is_text else cell.isNull()


def _check_ids(rows: DataFrame, place: Place, name: str) -> None:
    from pyspark.sql import functions as f

    ids = rows.groupBy(column(rows, name).cast("string").alias("id")).count()
    twice = ids.where("count > 1").orderBy(f.desc("count"), "id").first()
    if twice is not None:
        raise DataError(f"{place}: the id {twice['id']!r} is that of {twice['count']} rows. {_OTHER_ID}")

"""`citeqa answer --engine spark` as a function: a table of questions in, a table of answers out, both in Spark."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from program.batch_output import ANSWER_FIELDS, answer_types
from program.batch_questions import parse_columns
from program.batch_run import BatchReport
from program.settings import Settings
from program.spark.agents import find_agent
from program.spark.asking import Asking, ask_waiting
from program.spark.journal import SparkJournal
from program.spark.questions import SparkQuestions, open_questions
from program.spark.session import open_spark
from program.spark.tables import answers_place, exists, questions_place, read_questions, replace
from program.tracking import connect
from retrieval.errors import ConfigurationError, RunStoppedError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def answer_on_spark(
    settings: Settings,
    questions: str,
    out: str,
    *,
    model: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
    how: Asking | None = None,
    retry_errors: bool = False,
    on_answer: Callable[[int, int], None] | None = None,
) -> BatchReport:
    """Answer the questions of a table or of files into another table or directory, each row as `answer_table` has it.

    The agent is the `model` that MLflow has, or else the configured one, which is logged first. What was answered
    for the same content by the same agent is not asked again; the output is written whole, from what is known.

    Raises:
        RunStoppedError: if too many questions failed, in the end (the answers are written) or before (they are
            kept).
        CiteqaError: whatever else a person must mend; what was answered is kept.
    """
    started, how = time.perf_counter(), how or Asking()
    source, target = questions_place(questions), answers_place(out)
    if source.name == target.name:
        raise ConfigurationError(f"--out {out}: these are the questions. Name another place for the answers.")
    mapping = parse_columns(columns)
    connect(settings.tracking)
    agent = find_agent(settings, model)
    spark = open_spark()
    journal = SparkJournal(spark, target.journal)
    if exists(spark, target) and not exists(spark, journal.place):
        raise ConfigurationError(
            f"--out {out}: exists, and not as this command wrote it ('{journal.place}' is not there). Name another "
            "place, or move that one away."
        )
    table = open_questions(read_questions(spark, source), source, mapping, agent.identity, limit)
    done = ask_waiting(table, journal, agent, how, retry_errors=retry_errors, on_answer=on_answer)
    replace(answers(table, journal, is_text=target.format == "csv"), target)
    if done.too_many_failed(how.max_failed_share):
        raise RunStoppedError(
            f"'{out}' is written, but {done.failed} of {done.total} questions failed, the first because: "
            f"{done.first_failure} Mend the cause and ask them again: --retry-errors"
        )
    return BatchReport(
        out=out,
        questions=done.total,
        abstained=done.abstained,
        failed=done.failed,
        first_failure=done.first_failure,
        asked=done.asked,
        written=True,
        seconds=time.perf_counter() - started,
    )


def answers(questions: SparkQuestions, journal: SparkJournal, is_text: bool = False) -> DataFrame:
    """The output's rows: `id`, `question`, what is known of the answer, and the other columns of the questions.

    With `is_text`, nested values are JSON text, as CSV has them.
    """
    from pyspark.sql import functions as f
    from pyspark.sql.pandas.types import from_arrow_schema

    known = journal.known().select("key", "record")
    rows = questions.rows.join(known, f.col("_key") == f.col("key"), "left")
    rows = rows.withColumn("_answer", f.from_json("record", from_arrow_schema(answer_types())))
    carried = (f.col(f"`{name}`").alias(shown) for name, shown in questions.names().items())
    table = rows.select(
        questions.id().alias("id"),
        questions.question().alias("question"),
        *(f.col(f"_answer.{field}").alias(field) for field in ANSWER_FIELDS),
        *carried,
    )
    return table.select(*(_as_text(table, name) for name in table.columns)) if is_text else table


def _as_text(table: DataFrame, name: str) -> Column:
    from pyspark.sql import functions as f
    from pyspark.sql.types import ArrayType, MapType, StructType

    cell = f.col(f"`{name}`")
    if isinstance(table.schema[name].dataType, ArrayType | MapType | StructType):
        return f.to_json(cell, {"ignoreNullFields": "false"}).alias(name)
    return cell

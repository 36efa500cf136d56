"""Have the agent answer what waits, in slices that are each kept when they are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

from program.spark.agents import ConfiguredAgent, NamedAgent, quietly
from program.spark.journal import SparkJournal, now
from program.spark.questions import SparkQuestions
from program.spark.session import parallelism, spark_errors
from retrieval.errors import RunStoppedError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_FIRST_SLICE = 200
_GROWTH = 10
_LARGEST_SLICE = 20_000
_CALLS_PER_THREAD = 25
_ROWS_PER_TASK = 1000
_TOLERATED = 5

Ask: TypeAlias = "Callable[[Column], Column]"


@dataclass(frozen=True, slots=True)
class Asking:
    """How the agent is asked: calls at once in each Spark task, traced or not, and how many failures are borne."""

    threads: int = 4
    max_failed_share: float = 0.2
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Of `total` questions so many are `known`: answered (some by abstaining), or failed, one for this reason."""

    total: int
    known: int
    abstained: int
    failed: int
    first_failure: str
    asked: int = 0

    def too_many_failed(self, share: float) -> bool:
        """Whether more failed than a share of all; a handful is borne, however few the questions."""
        return self.failed > max(_TOLERATED, share * self.total)


def check_questions(questions: SparkQuestions, max_failed_share: float) -> None:
    """Stop before anything is asked when too many rows ask nothing. Raises RunStoppedError."""
    unusable, count = questions.unusable, questions.count
    if unusable == count or unusable > max(_TOLERATED, max_failed_share * count):
        raise RunStoppedError(
            f"{unusable} of {count} rows have no question. Name the column of the questions "
            "(--column question=…), or allow more failures (--max-failed-share)."
        )


def ask_waiting(
    questions: SparkQuestions,
    journal: SparkJournal,
    agent: NamedAgent | ConfiguredAgent,
    how: Asking,
    *,
    retry_errors: bool = False,
    on_answer: Callable[[int, int], None] | None = None,
) -> Progress:
    """Ask what is not answered yet, each content once. With `retry_errors`, what failed too.

    The first slice is small, so that a cause that is none of the questions shows before the others are asked.

    Raises:
        RunStoppedError: if too many questions failed before all were asked.
        StorageError: if Spark cannot do it; the slices that were done are kept.
    """
    retried_before = now() if retry_errors else ""
    with spark_errors("What waits cannot be told"):
        left = waiting(questions, journal, retried_before).count()
    if not left:
        return progress(questions, journal)
    check_questions(questions, how.max_failed_share)
    tasks = parallelism(journal.spark)
    with model_udf(journal.spark, agent, how) as ask:
        for size in slice_sizes(left, tasks * how.threads):
            part = waiting(questions, journal, retried_before).orderBy("_key").limit(size)
            part = part.repartition(min(size, max(tasks, math.ceil(size / _ROWS_PER_TASK))))
            journal.keep(part.select(part["_key"].alias("key"), ask(part["_asks"]).alias("record")))
            done = progress(questions, journal)
            if on_answer:
                on_answer(done.known, done.total)
            if done.known < done.total and done.too_many_failed(how.max_failed_share):
                raise RunStoppedError(
                    f"Stopped: {done.failed} questions failed, the first because: {done.first_failure} "
                    f"{done.known - done.failed} of {done.total} are answered and kept; mend the cause and the same "
                    "command with --retry-errors goes on, or never stop: --max-failed-share 1."
                )
    return replace(done, asked=left)


def waiting(questions: SparkQuestions, journal: SparkJournal, retried_before: str = "") -> DataFrame:
    """`_key` and `_asks` of what is to be asked; also of what failed before a time."""
    known = journal.known()
    known = known.where(~known["failed"] | (known["at"] >= retried_before))
    asks = questions.rows.select("_key", "_asks").dropDuplicates(["_key"])
    return asks.join(known, asks["_key"] == known["key"], "left_anti")


def progress(questions: SparkQuestions, journal: SparkJournal) -> Progress:
    """How far the questions are answered. Raises StorageError."""
    from pyspark.sql import functions as f

    known = journal.known()
    rows = questions.rows.select("_key").join(known, f.col("_key") == known["key"], "left")
    error = f.get_json_object("record", "$.error")
    with spark_errors("How far it is cannot be told"):
        row = rows.agg(
            f.count(f.lit(1)),
            f.count("record"),
            f.count_if(f.get_json_object("record", "$.abstained") == "true"),
            f.count_if("failed"),
            f.min_by(error, f.when(f.col("failed"), f.col("_key"))),
        ).first()
    assert row is not None  # an aggregate has a row
    return Progress(row[0], row[1], row[2], row[3], row[4] or "")


def slice_sizes(count: int, at_once: int) -> Iterator[int]:
    """Sizes that make up `count`, each ten times the one before up to the largest: 200, 2000, 20000, 20000, …"""
    largest = max(_LARGEST_SLICE, _CALLS_PER_THREAD * at_once)
    size = _FIRST_SLICE
    while count > 0:
        # What would be left over for a slice of its own is no reason for one.
        taken = count if count <= 2 * size else size
        yield taken
        count -= taken
        size = min(_GROWTH * size, largest)


@contextmanager
def model_udf(spark: SparkSession, agent: NamedAgent | ConfiguredAgent, how: Asking) -> Iterator[Ask]:
    """The agent as a function of a column, from MLflow's `spark_udf`; its model is on this disk meanwhile.

    Raises:
        CiteqaError: if the agent cannot be logged, or read.
    """
    import mlflow

    from program.spark.agent_model import save_agent_model
    from program.tracking import tracking_errors

    uri = agent.model_uri()
    with TemporaryDirectory(prefix="citeqa-spark-") as directory, quietly():
        with tracking_errors(mlflow.get_tracking_uri()):
            local = mlflow.artifacts.download_artifacts(uri, dst_path=str(Path(directory) / "agent"))
        path = Path(directory) / "model"
        save_agent_model(path, local, threads=how.threads, trace=how.trace)
        yield mlflow.pyfunc.spark_udf(
            spark, str(path), env_manager="local", result_type="string", extra_env=_environment(how)
        )


def _environment(how: Asking) -> dict[str, str]:
    """What the executors' MLflow has to know; traces are stored at once, since a task may end with its process."""
    from mlflow.tracking.fluent import _get_experiment_id

    if not how.trace:
        return {}
    return {
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "MLFLOW_EXPERIMENT_ID": str(_get_experiment_id()),
    }

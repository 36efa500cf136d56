"""The Spark session: the one that is active, the platform's, or a local one on all cores."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from retrieval.errors import CiteqaError, ConfigurationError, StorageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NO_SPARK = "Spark is not installed. Install it: pip install 'citeqa[spark]'"
_NO_JAVA = "Spark needs Java 17 or newer: install it, or say where it is: JAVA_HOME"
_LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    # Java otherwise compiles what runs a few times as if it ran for hours: half of all processor time of a run.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_REASON_CHARACTERS = 300
_ERROR_CLASS = re.compile(r"(\[[A-Z][A-Z0-9_.]+\] .*?)(?: +SQLSTATE: \w+)?;?$")


def open_spark() -> SparkSession:
    """The session that is active, or that the platform has ready; else a local one, which takes seconds to start.

    Raises:
        ConfigurationError: if Spark or Java is missing.
    """
    # What it says of pandas 3 was tried here, and a warning at each use tells nobody anything.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigurationError(_NO_SPARK) from None
    # It writes what the exception says, and more, to stderr besides.
    logging.getLogger("DataFrameQueryContextLogger").disabled = True
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    return _start_local() if _is_local() else SparkSession.builder.appName("citeqa").getOrCreate()


def _start_local() -> SparkSession:
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    _check_java()
    # The executors run this interpreter, or they run one that has none of what is installed here.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName("citeqa").master("local[*]")
    for name, value in {**_LOCAL, "spark.sql.shuffle.partitions": str(os.cpu_count() or 1)}.items():
        builder = builder.config(name, value)
    with TemporaryFile() as log:
        try:
            with _stderr_into(log):
                return builder.getOrCreate()
        except PySparkRuntimeError as error:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            raise ConfigurationError(
                f"Spark does not start: {said[-1] if said else error}. {_NO_JAVA}."
            ) from error


@contextmanager
def _stderr_into(log: IO[bytes]) -> Iterator[None]:
    """Within, this process, and for ever one that it starts, writes there what it has to say on stderr.

    The Java process says a screen of what it found out about this machine, and every failed task's trace.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def parallelism(spark: SparkSession) -> int:
    """How many tasks run at once; a guess where Spark Connect does not tell."""
    from pyspark.sql.utils import is_remote

    if not is_remote():
        return spark.sparkContext.defaultParallelism
    partitions = spark.conf.get("spark.sql.shuffle.partitions", "") or ""
    return int(partitions) if partitions.isdigit() else 200


@contextmanager
def spark_errors(what: str, error_type: type[CiteqaError] = StorageError) -> Iterator[None]:
    """What Spark refuses is an error of one line: `what` cannot be done, and why."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise error_type(f"{what}: {first_reason(error)}") from error


def first_reason(error: Exception) -> str:
    """The line of Spark's report that says what happened: what a Python worker raised, or else Spark's own error."""
    lines = [line.strip(" :") for line in str(error).splitlines() if line.strip(" :")]
    until = next((number for number, line in enumerate(lines) if line.startswith("at ")), None)
    raised = [line for line in lines[:until] if _is_raised(line)]
    told = [found[1] for line in lines if (found := _ERROR_CLASS.search(line))]
    # The last is the cause of those before.
    reason = (raised or told or lines[:1] or [repr(error)])[-1]
    return reason[:_REASON_CHARACTERS]


def _is_raised(line: str) -> bool:
    """Whether this is how Python ends a trace: `package.SomeError: reason`."""
    name, colon, _ = line.partition(": ")
    is_java = name.startswith(("java.", "org.apache."))
    return (
        bool(colon)
        and not is_java
        and name.replace(".", "").isidentifier()
        and name.endswith(("Error", "Exception"))
    )


def _is_local() -> bool:
    """Whether nothing says where Spark is: neither Databricks, nor Spark Connect, nor `spark-submit`."""
    elsewhere = ("DATABRICKS_RUNTIME_VERSION", "SPARK_REMOTE", "PYSPARK_GATEWAY_PORT", "MASTER")
    return not any(os.environ.get(name) for name in elsewhere)


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if home and not (Path(home) / "bin" / "java").exists():
        raise ConfigurationError(f"JAVA_HOME is {home!r}, which holds no bin/java. {_NO_JAVA}.")
    if not home and shutil.which("java") is None:
        raise ConfigurationError(f"There is no Java. {_NO_JAVA}.")

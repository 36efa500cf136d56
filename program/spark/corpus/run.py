"""`citeqa index --engine spark` as a function: documents in, a Delta table of passages out, and an index behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from program.settings import Settings
from program.spark.corpus import vector_index
from program.spark.corpus.change import STAGED, Change, unchanged
from program.spark.corpus.delta import DeltaStore, open_store
from program.spark.corpus.listing import list_corpus
from program.spark.corpus.plan import Plan, Stopwatch, Tell
from program.spark.corpus.registry import State
from program.spark.corpus.report import PipelineReport
from program.spark.corpus.staging import unstage
from program.spark.session import open_spark
from program.spark.tables import TABLE, Place, beside
from retrieval.errors import ConfigurationError, StorageError


def index_on_spark(
    settings: Settings, *, rebuild: bool = False, strict: bool = False, tell: Tell | None = None
) -> PipelineReport:
    """Bring a Delta table of passages up to date with the corpus that the settings name, and then its index.

    Passages are those that a local index of the same settings has. What did not change since the last run is
    neither read again (files of the same size and time, unless `rebuild`), nor embedded, nor written. The table
    changes in one commit; what a run that was ended had embedded is kept, and used by the next.

    Raises:
        CorpusError: if there is nothing to index; with `strict`, if any document is bad.
        EmbeddingError: if not all texts could be embedded; the table is as it was.
        CiteqaError: whatever else a person must mend.
    """
    plan = Plan.of(settings, tell or _say_nothing)
    with _alone(plan.target):
        return _run(plan, rebuild=rebuild, strict=strict)


def _run(plan: Plan, *, rebuild: bool, strict: bool) -> PipelineReport:
    started, watch = time.perf_counter(), Stopwatch()
    index = plan.index()
    is_followed = index is None or vector_index.check_index(index)
    with watch.part("listing"):
        listing = list_corpus(plan.settings.corpus.path, plan.recipe.reading)
    with watch.part("starting Spark"):
        # Whether a directory is up to date can be told without.
        spark = open_spark() if plan.target.format == TABLE else None
    passages, sources = open_store(spark, plan.target), open_store(spark, beside(plan.target, "_sources"))
    state = _state(plan, passages, sources)
    state = None if rebuild else state
    is_followed = is_followed and (index is None or (state is not None and state.index == index.name))
    if state and listing.digest and state.corpus == listing.digest and is_followed:
        report = unchanged(plan.target.name, state)
    else:
        with watch.part("starting Spark"):
            spark = spark or open_spark()
        report = Change(plan, spark, passages, sources, listing, state, index, watch).make(strict=strict)
        unstage(spark, plan.target, STAGED)
    if index is not None:
        with watch.part("index"):
            now = vector_index.state_of(index, wait_min=plan.settings.pipeline.wait_min)
        report = replace(report, index=index.name, index_state=f"{report.index_state or 'unchanged'}; {now}")
    return replace(report, seconds=time.perf_counter() - started, stages=watch.seconds)


def _state(plan: Plan, passages: DeltaStore, sources: DeltaStore) -> State | None:
    """The state of a table that can be brought up to date; None of one that has to be made.

    Raises:
        ConfigurationError: if there is a table that is none of ours.
    """
    if not passages.exists():
        return None
    if not sources.exists():
        raise ConfigurationError(
            f"--to {plan.target}: exists, and not as this command wrote it ('{sources.name}' is not there). Name "
            "another place, or move that one away."
        )
    state = State.parse(sources.first("state"))
    return state if state and state.made_with == plan.made_with else None


@contextmanager
def _alone(target: Place) -> Iterator[None]:
    """Within, no other run writes into the same directory. For tables, a job sees to it: `max_concurrent_runs: 1`."""
    from filelock import FileLock, Timeout

    if target.format == TABLE:
        yield
        return
    directory = Path(f"{target.name}.run")
    lock = FileLock(directory / "lock")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StorageError(f"Another run writes '{target}' right now. Wait until it has ended.") from None
    except OSError as error:
        raise StorageError(
            f"'{directory}' cannot be written: {error.strerror}. Check its permissions."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _say_nothing(_: str) -> None:
    pass

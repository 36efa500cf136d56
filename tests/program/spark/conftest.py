"""Batches on Spark and locally, over the small corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from program.batch_run import BatchReport, answer_table
from program.settings import Settings
from program.spark.run import answer_on_spark

Rows = list[dict[str, Any]]
ASKED = ("question=q", "history=history", "k=k", "filters=filters")


@pytest.fixture
def settings(make_settings: Callable[..., Settings], trace_store: str) -> Settings:
    return make_settings(reader={"max_sentences": 1}, tracking={"uri": trace_store, "experiment": "spark"})


@pytest.fixture
def on_spark(spark: Any, settings: Settings) -> Callable[..., BatchReport]:
    """`answer_on_spark` with these settings."""

    def answer(questions: str, out: str, **how: Any) -> BatchReport:
        return answer_on_spark(settings, questions, out, **how)

    return answer


@pytest.fixture
def locally(settings: Settings) -> Callable[..., Rows]:
    """The rows that the local batch writes, as JSON Lines."""

    def answer(questions: str, columns: Sequence[str] = ()) -> Rows:
        answer_table(settings, Path(questions), Path("local.jsonl"), columns=columns, max_failed_share=1)
        return read_jsonl(Path("local.jsonl"))

    return answer


def read_jsonl(path: Path) -> Rows:
    """The rows of a file, or of a directory of them."""
    files = sorted(path.glob("part-*")) if path.is_dir() else [path]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def read() -> Callable[[str], Rows]:
    return lambda name: read_jsonl(Path(name))


@pytest.fixture
def comparable() -> Callable[[Rows], Rows]:
    """Rows without what differs from call to call, in the order of their questions."""

    def strip(rows: Rows) -> Rows:
        kept = [{key: row[key] for key in row if key not in ("latency_ms", "trace_id")} for row in rows]
        return sorted(kept, key=lambda row: (str(row["id"]), str(row["question"])))

    return strip

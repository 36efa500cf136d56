"""Vectors, made by executors: paced, kept slice by slice, and never paid for twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from fake_workspace import FakeWorkspace

from program.spark.corpus import vectors
from program.spark.corpus.report import PipelineReport
from program.spark.corpus.vectors import Embedding, embed_rows
from retrieval.embedders import EmbedderConfig
from retrieval.errors import ConfigurationError, EmbeddingError, WorkspaceError

Index = Callable[..., PipelineReport]
Row = dict[str, Any]


def config(embeddings: Any, **values: Any) -> EmbedderConfig:
    return EmbedderConfig("openai/embed", api_base=embeddings.url, num_retries=0, **values)


def batch(*texts: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"embedding_key": [f"key of {text}" for text in texts], "text": list(texts)}
    )


def test_a_task_embeds_in_requests_of_a_size_no_faster_than_its_pace(embeddings: Any) -> None:
    started = time.monotonic()
    made = list(embed_rows(config(embeddings), 2, 0.15, [batch("a", "ee", "b"), batch("c")]))
    assert embeddings.texts == [["a", "ee"], ["b"], ["c"]]
    assert time.monotonic() - started >= 0.3
    rows = [row for one in made for row in one.to_pylist()]
    assert [row["key"] for row in rows] == ["key of a", "key of ee", "key of b", "key of c"]
    assert {row["error"] for row in rows} == {None}
    assert rows[1]["vector"] == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_after_a_failure_a_task_asks_no_more_and_says_why(embeddings: Any) -> None:
    embeddings.fails_from = 1
    rows = [
        row for one in embed_rows(config(embeddings), 1, 0, [batch("a", "b", "c")]) for row in one.to_pylist()
    ]
    assert [row["vector"] is not None for row in rows] == [True, False, False]
    assert "out of order" in rows[1]["error"]
    assert rows[2]["error"] == ""
    assert len(embeddings.texts) == 1


def test_the_pace_of_a_task_is_its_part_of_what_all_may_ask() -> None:
    assert Embedding(EmbedderConfig("openai/e"), 4, 240).pace_s == 1.0
    assert Embedding(EmbedderConfig("openai/e"), 4).pace_s == 0.0


def test_an_executor_finds_a_model_that_is_a_directory_wherever_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    how = Embedding(EmbedderConfig("model", cache=Path("cache.db")), 1)
    assert how.on_executors() == EmbedderConfig(str(tmp_path / "model"))


def age(folder: Path) -> None:
    """Make files older than what is too fresh to be trusted."""
    for file in folder.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))


def rows() -> dict[str, Row]:
    return {row["chunk_id"]: row for row in DeltaTable("passages").to_pyarrow_table().to_pylist()}


@pytest.fixture
def with_model(embeddings: Any) -> tuple[str, ...]:
    return (
        "embedder.model=openai/embed",
        f"embedder.api_base={embeddings.url}",
        "embedder.batch_size=2",
        "embedder.num_retries=0",
        "embedder.cache=null",
        "pipeline.embedding_tasks=1",
    )


@pytest.mark.slow
def test_each_passage_has_its_vector_and_what_was_embedded_is_not_embedded_again(
    index: Index, folder: Path, embeddings: Any, with_model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_REQUESTS_PER_TASK", 2)
    embeddings.fails_from = 4
    with pytest.raises(
        EmbeddingError, match=r"texts have no vector yet: .*out of order.* the same command goes on"
    ):
        index(*with_model)
    assert not Path("passages").exists(), "a table with some of the vectors is none"
    embeddings.fails_from = None
    told: list[str] = []
    report = index(*with_model, tell=told.append)
    texts = [text for request in embeddings.texts for text in request]
    assert len(texts) == len(set(texts)) == report.embedded + report.vectors_known == len(rows())
    assert report.vectors_known >= 4
    assert told[-2] == f"Embedded {report.embedded} of {report.embedded} texts"
    for row in rows().values():
        direction = np.array([len(row["text"]), row["text"].count("e"), 1], np.float32)
        assert row["embedding"] == pytest.approx(direction / np.linalg.norm(direction), abs=1e-6)
    assert sorted(path.name for path in Path("passages.run").iterdir()) == ["lock"]

    del embeddings.texts[:]
    (folder / "pump.md").rename(folder / "pumpe.md")
    (folder / "new.md").write_text("A new document.")
    report = index(*with_model)
    assert (report.added, report.deleted, report.embedded) == (2, 1, 1)
    assert embeddings.texts == [["A new document."]], "a document that moved has the vectors that it had"

    del embeddings.texts[:]
    report = index(*with_model, "embedder.dimensions=5")
    assert report.embedded == len(rows()) > 10, "another model makes all of them anew"


@pytest.mark.slow
def test_a_model_on_disk_embeds_and_an_index_in_the_workspace_follows_and_finds(
    index: Index, tiny_embedding_model: Path, workspace: FakeWorkspace, folder: Path
) -> None:
    workspace.vector_search.add_endpoint("vs")
    workspace.vector_search.tables["main.docs.passages"] = lambda: list(rows().values())
    overrides = (
        f"embedder.model={tiny_embedding_model}",
        "pipeline.registered_as=main.docs.passages",
        "pipeline.index=main.docs.passages_index",
        "pipeline.wait_min=1",
    )
    with pytest.raises(ConfigurationError, match="Say at which Vector Search endpoint"):
        index(*overrides)
    assert not Path("passages").exists(), "told before any work"
    report = index(*overrides, "pipeline.endpoint=vs")
    assert report.index_state == f"made; ONLINE_NO_PENDING_UPDATE, {len(rows())} rows"
    assert report.render().endswith(f"main.docs.passages_index: {report.index_state}")
    held = workspace.vector_search.indexes["main.docs.passages_index"]
    assert (held.dimension, len(held.rows)) == (32, len(rows()))
    (folder / "plain.txt").unlink()
    (folder / "bad.md").unlink()
    age(folder)
    workspace.fault("POST .*/sync", status=403, code="PERMISSION_DENIED")
    with pytest.raises(WorkspaceError, match=r"The index main\.docs\.passages_index cannot be synced"):
        index(*overrides)
    assert len(held.rows) == len(rows()) + 1, "the table is written, and the index has not heard of it"
    report = index(*overrides)
    assert (report.written, report.embedded) == (0, 0)
    assert report.index_state == f"told to catch up; ONLINE_NO_PENDING_UPDATE, {len(rows())} rows"
    assert not [row for row in held.rows if "plain" in row["doc_uri"]]
    assert index(*overrides).index_state == f"unchanged; ONLINE_NO_PENDING_UPDATE, {len(rows())} rows"
    assert len(workspace.calls_of("/api/2.0/vector-search/indexes/main.docs.passages_index/sync")) == 2


@pytest.mark.slow
def test_vectors_are_made_by_one_or_the_other(index: Index, with_model: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="either Databricks makes the vectors or we do"):
        index(*with_model, "pipeline.embedding_endpoint=databricks-gte-large-en")

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.embedders import EmbedderConfig, open_embedder
from retrieval.embedders.embedder import Vectors
from retrieval.embedders.vector_cache import CachedEmbedder, VectorCache
from retrieval.errors import EmbeddingError, StorageError


class Counting:
    """An embedder that notes what it was asked, and can be out of reach."""

    name = "counting"
    fingerprint = "counting-1"
    dimension = 8
    truncated = 0

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.reachable = True

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if not self.reachable:
            raise EmbeddingError("out of reach")
        self.asked += texts
        seeds = [
            int.from_bytes(text.encode("utf-8", "surrogatepass")[:4], "big") + len(text) for text in texts
        ]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(8) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def embed_query(self, text: str) -> Vectors:
        return self.embed_passages([text])[0]


def open_cached(path: Path, embedder: Counting) -> CachedEmbedder:
    return CachedEmbedder(embedder, VectorCache(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=5), max_size=12))
def test_a_cache_gives_what_it_gave_first_and_asks_for_a_text_once(tmp_path: Path, texts: list[str]) -> None:
    model = Counting()
    cache = tmp_path / "vectors.db"
    cache.unlink(missing_ok=True)
    first = open_cached(cache, model).embed_passages(texts)
    again = open_cached(cache, model).embed_passages(texts)
    assert np.array_equal(first, again)
    assert sorted(model.asked) == sorted(set(texts))
    assert first.shape == (len(texts), 8)
    if texts:
        assert first == pytest.approx(model.embed_passages(texts), abs=1e-3)
        assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-6)


def test_models_do_not_share_vectors(tmp_path: Path) -> None:
    one, other = Counting(), Counting()
    other.fingerprint = "counting-2"
    for model in (one, other):
        open_cached(tmp_path / "v.db", model).embed_passages(["a"])
    assert other.asked == ["a"]


def test_what_was_embedded_before_a_failure_is_kept(tmp_path: Path) -> None:
    model = Counting()
    cached = open_cached(tmp_path / "v.db", model)
    cached.embed_passages(["a", "b"])
    model.reachable = False
    with pytest.raises(EmbeddingError):
        cached.embed_passages(["b", "c"])
    model.reachable = True
    cached.embed_passages(["a", "b", "c"])
    assert model.asked == ["a", "b", "c"]


def test_a_damaged_vector_is_computed_again(tmp_path: Path) -> None:
    model = Counting()
    first = open_cached(tmp_path / "v.db", model).embed_passages(["a", "b"])
    with sqlite3.connect(tmp_path / "v.db") as connection:
        connection.execute("UPDATE vectors SET vector = substr(vector, 1, 6) || x'00' || substr(vector, 8)")
    connection.close()
    assert np.array_equal(open_cached(tmp_path / "v.db", model).embed_passages(["a", "b"]), first)
    assert model.asked == ["a", "b", "a", "b"]


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "v.db").write_text("something else, and quite a lot of it" * 50)
    with pytest.raises(StorageError, match=r"v\.db' cannot be used .*or delete it"):
        VectorCache(tmp_path / "v.db")
    assert (tmp_path / "v.db").read_text().startswith("something else")


def test_many_threads_use_one_cache(tmp_path: Path) -> None:
    cached = open_cached(tmp_path / "v.db", Counting())
    batches = [[f"{start + number}" for number in range(20)] for start in range(0, 100, 5)]
    with ThreadPoolExecutor(8) as pool:
        for texts, vectors in zip(batches, pool.map(cached.embed_passages, batches), strict=True):
            assert np.array_equal(vectors, cached.embed_passages(texts))


def test_what_was_put_outlives_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal, numpy as np; from pathlib import Path\n"
        "from retrieval.embedders.vector_cache import VectorCache\n"
        "cache = VectorCache(Path(sys.argv[1]))\n"
        "cache.put({b'k': np.ones(4, np.float16) / 2})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "v.db")], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert VectorCache(tmp_path / "v.db").get([b"k", b"other"])[b"k"].tolist() == [0.5] * 4


def test_the_settings_name_the_cache(tiny_embedding_model: Path, tmp_path: Path) -> None:
    config = EmbedderConfig(str(tiny_embedding_model), cache=tmp_path / "deep" / "v.db")
    cached, plain = open_embedder(config), open_embedder(replace(config, cache=None))
    assert cached.fingerprint == plain.fingerprint
    assert cached.embed_passages(["a car"]) == pytest.approx(plain.embed_passages(["a car"]), abs=1e-3)
    assert np.array_equal(cached.embed_query("car"), plain.embed_query("car"))
    assert (cached.dimension, cached.name, cached.truncated) == (32, "tiny-embedder", 0)
    assert (tmp_path / "deep" / "v.db").exists()

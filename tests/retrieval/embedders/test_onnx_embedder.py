from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.errors import ConfigurationError

TEXTS = ["The automobile", "a car", "医師", "", "x" * 400, "a quick ocean", "\ud800 odd \0 text", "fee"]


@pytest.fixture(scope="module")
def embedder(tiny_embedding_model: Path) -> Embedder:
    return open_embedder(EmbedderConfig(str(tiny_embedding_model)))


def test_texts_of_one_meaning_are_near_each_other_in_both_languages(embedder: Embedder) -> None:
    passages = embedder.embed_passages(["The automobile", "自動車", "The physician", "医師"])
    nearness = passages @ embedder.embed_query("a car")
    assert min(nearness[:2]) > 0.8 > 0.5 > max(nearness[2:])


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=60), max_size=8))
def test_vectors_have_unit_length_and_are_those_of_each_text_alone(
    embedder: Embedder, texts: list[str]
) -> None:
    vectors = embedder.embed_passages(texts)
    assert vectors.shape == (len(texts), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert embedder.embed_query(text) == pytest.approx(vector, abs=1e-5)


def test_neighbours_change_nothing_where_activations_are_quantized_by_batch(
    make_embedding_model: Callable[..., Path], tmp_path: Path
) -> None:
    quantized = open_embedder(EmbedderConfig(str(make_embedding_model(tmp_path / "m", dynamic=True))))
    together = quantized.embed_passages(TEXTS)
    assert np.array_equal(together, np.stack([quantized.embed_query(text) for text in TEXTS]))


@pytest.mark.parametrize("outputs", ["text", "bert"])
def test_models_pooled_in_the_graph_or_with_a_classifier_give_the_same(
    embedder: Embedder, make_embedding_model: Callable[..., Path], tmp_path: Path, outputs: str
) -> None:
    other = open_embedder(EmbedderConfig(str(make_embedding_model(tmp_path / "m", outputs=outputs))))
    assert other.embed_passages(TEXTS) == pytest.approx(embedder.embed_passages(TEXTS), abs=1e-5)


def test_what_is_too_long_is_cut_and_counted(tiny_embedding_model: Path) -> None:
    short = open_embedder(EmbedderConfig(str(tiny_embedding_model), max_tokens=4))
    vectors = short.embed_passages(["car car", "car car doctor doctor", "car"])
    assert short.truncated == 1
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-6)
    whole = open_embedder(EmbedderConfig(str(tiny_embedding_model)))
    whole.embed_passages(["car " * 100, "car " * 200])
    assert whole.truncated == 1, "128 tokens, not the 8 that its tokenizer was last used with"


@pytest.mark.parametrize(("pooling", "alike"), [("mean", False), ("cls", True), ("last", True)])
def test_pooling_is_as_the_model_says_or_as_one_wants(
    tiny_embedding_model: Path, tmp_path: Path, pooling: str, alike: bool
) -> None:
    wanted = open_embedder(EmbedderConfig(str(tiny_embedding_model), pooling=pooling))  # type: ignore[arg-type]
    first, second = wanted.embed_passages(["car", "doctor"])
    assert np.array_equal(first, second) == alike, "the first and the last token are the same in all texts"
    stated = shutil.copytree(tiny_embedding_model, tmp_path / "m")
    keys = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    (stated / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{keys[pooling]}": True}))
    assert open_embedder(EmbedderConfig(str(stated))).fingerprint == wanted.fingerprint


def test_prefixes_come_from_the_models_files_its_family_or_the_settings(
    embedder: Embedder, tiny_embedding_model: Path, tmp_path: Path
) -> None:
    stated = shutil.copytree(tiny_embedding_model, tmp_path / "m")
    prompts = {"prompts": {"query": "car ", "document": "doctor "}}
    (stated / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with_prompts = open_embedder(EmbedderConfig(str(stated)))
    assert with_prompts.embed_query("sea") == pytest.approx(embedder.embed_query("car sea"))
    assert with_prompts.embed_passages(["sea"]) == pytest.approx(embedder.embed_passages(["doctor sea"]))
    without = open_embedder(EmbedderConfig(str(stated), query_prefix="", passage_prefix=""))
    assert without.embed_query("sea") == pytest.approx(embedder.embed_query("sea"))
    family = open_embedder(EmbedderConfig(str(shutil.copytree(tiny_embedding_model, tmp_path / "tiny-e5-x"))))
    assert family.embed_query("sea") == pytest.approx(embedder.embed_query("query: sea"))
    assert family.embed_passages(["sea"]) == pytest.approx(embedder.embed_passages(["passage: sea"]))


def test_the_fingerprint_is_of_the_contents_and_the_settings(
    embedder: Embedder, make_embedding_model: Callable[..., Path], tiny_embedding_model: Path, tmp_path: Path
) -> None:
    def fingerprint(path: Path, **settings: object) -> str:
        return open_embedder(EmbedderConfig(str(path), **settings)).fingerprint  # type: ignore[arg-type]

    assert fingerprint(shutil.copytree(tiny_embedding_model, tmp_path / "copy")) == embedder.fingerprint
    others = [
        fingerprint(make_embedding_model(tmp_path / "other", seed=1)),
        fingerprint(tiny_embedding_model, max_tokens=9),
        fingerprint(tiny_embedding_model, pooling="cls"),
        fingerprint(tiny_embedding_model, query_prefix="q "),
    ]
    assert len({embedder.fingerprint, *others}) == 5
    assert fingerprint(tiny_embedding_model, batch_size=3, threads=1) == embedder.fingerprint


def test_many_threads_use_one_model(embedder: Embedder) -> None:
    expected = embedder.embed_passages(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: embedder.embed_passages(TEXTS), range(40)):
            assert np.array_equal(vectors, expected)


def test_the_model_may_be_in_a_folder_beside_its_tokenizer(
    embedder: Embedder, tiny_embedding_model: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_embedding_model, tmp_path / "m")
    (directory / "onnx").mkdir()
    model = (directory / "model.onnx").rename(directory / "onnx" / "model.onnx")
    assert open_embedder(EmbedderConfig(str(directory))).fingerprint == embedder.fingerprint
    other = model.rename(model.with_name("model_small.onnx"))
    with pytest.raises(ConfigurationError, match=r"It holds onnx/model_small\.onnx: name one"):
        open_embedder(EmbedderConfig(str(directory)))
    assert open_embedder(EmbedderConfig(str(other))).fingerprint == embedder.fingerprint


def broken(directory: Path, name: str, content: str | None) -> None:
    (directory / name).unlink(missing_ok=True)
    if content is not None:
        (directory / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "there is no tokenizer.json"),
        ("tokenizer.json", "{}", "Cannot read .*tokenizer.json"),
        ("model.onnx", "not a model", "no ONNX model that can be run"),
        ("config.json", "[", "Cannot read .*config.json"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "asks for pooling_mode_max_tokens"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]', "has a layer Dense"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_with_what_to_do(
    tiny_embedding_model: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    directory = shutil.copytree(tiny_embedding_model, tmp_path / "m")
    (directory / "sentence_bert_config.json").unlink()
    broken(directory, name, content)
    with pytest.raises(ConfigurationError, match=message):
        open_embedder(EmbedderConfig(str(directory)))


@pytest.mark.parametrize("model", ["./no/such/model", "/nowhere", "nothing"])
def test_a_directory_that_is_not_there_is_said(model: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no such directory"):
        open_embedder(EmbedderConfig(model))


def test_a_name_on_the_hub_is_found_in_the_hubs_cache_and_else_said_to_be_out_of_reach(
    tiny_embedding_model: Path, tmp_path: Path
) -> None:
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_embedding_model, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    program = (
        "import sys; from retrieval.embedders import EmbedderConfig, open_embedder\n"
        "from retrieval.errors import ConfigurationError\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(open_embedder(EmbedderConfig(name)).name)\n"
        "    except ConfigurationError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "someone/tiny", "someone/else"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    found, missing = done.stdout.splitlines()
    assert found == "someone/tiny"
    assert "the hub cannot be reached or has no such model" in missing
    assert "hf download someone/else; or name a directory" in missing


def test_a_package_that_is_missing_is_said_with_its_extra(
    tiny_embedding_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ConfigurationError, match=r"'onnxruntime' is not installed.*pip install 'citeqa\[dense\]'"
    ):
        open_embedder(EmbedderConfig(str(tiny_embedding_model)))

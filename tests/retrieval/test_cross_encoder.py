"""A cross-encoder in ONNX: a tiny one that counts the words which question and text share."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from retrieval.errors import ConfigurationError
from retrieval.ranking.cross_encoder import OnnxCrossEncoder, open_reranker

pytest.importorskip("onnx", reason="The dev extra brings onnx")
pytest.importorskip("onnxruntime", reason="pip install 'citeqa[dense]'")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "water", "boils", "iron", "melts", "at", "degrees", "the"]
LIMIT = 16


def write_model(directory: Path, *, classes: int = 1) -> Path:
    """A directory with a model whose logit is the number of words that both sides share, less 1."""
    from onnx import TensorProto, checker, helper, save
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(f'{{"max_position_embeddings": {LIMIT}}}')
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in names]
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
        helper.make_tensor("both", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("offset", TensorProto.FLOAT, [], [2.0]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
    ]
    node = helper.make_node
    nodes = [
        node("Cast", ["token_type_ids"], ["type"], to=TensorProto.FLOAT),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Sub", ["one", "type"], ["not_type"]),
        node("Mul", ["mask", "not_type"], ["asked"]),
        node("Mul", ["mask", "type"], ["told"]),
        node("Unsqueeze", ["input_ids", "last"], ["rows"]),
        node("Unsqueeze", ["input_ids", "middle"], ["columns"]),
        node("Equal", ["rows", "columns"], ["equal"]),
        node("Cast", ["equal"], ["same"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["asked", "last"], ["asked_rows"]),
        node("Unsqueeze", ["told", "middle"], ["told_columns"]),
        node("Mul", ["same", "asked_rows"], ["of_asked"]),
        node("Mul", ["of_asked", "told_columns"], ["shared"]),
        node("ReduceSum", ["shared", "both"], ["count"], keepdims=0),
        node("Sub", ["count", "offset"], ["score"]),
        node("Unsqueeze", ["score", "middle"], ["one_logit"]),
    ]
    if classes == 2:
        nodes += [
            node("Mul", ["one_logit", "zero"], ["no"]),
            node("Concat", ["no", "one_logit"], ["logits"], axis=1),
        ]
    output = helper.make_tensor_value_info(
        "logits" if classes == 2 else "one_logit", TensorProto.FLOAT, ["n", classes]
    )
    graph = helper.make_graph(nodes, "overlap", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, str(directory / "model.onnx"))
    return directory


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> OnnxCrossEncoder:
    return open_reranker(write_model(tmp_path_factory.mktemp("model")))


def logistic(logit: float) -> float:
    return round(1 / (1 + math.exp(-logit)), 6)


def test_scores_are_the_logistic_function_of_the_logits_in_the_order_of_the_texts(
    reranker: OnnxCrossEncoder,
) -> None:
    texts = ["iron melts", "water boils at 100 degrees", "", "the water"]
    assert reranker.score("water boils", texts) == [logistic(n - 1) for n in (0, 2, 0, 1)]


def test_of_two_classes_the_second_is_the_score(tmp_path: Path, reranker: OnnxCrossEncoder) -> None:
    two = open_reranker(write_model(tmp_path / "two", classes=2))
    texts = ["iron melts", "water boils", "water"]
    assert two.score("water boils", texts) == reranker.score("water boils", texts)
    assert two.fingerprint != reranker.fingerprint


def test_many_texts_are_scored_in_batches_as_each_alone(reranker: OnnxCrossEncoder) -> None:
    texts = [" ".join(["water", "iron", "boils"][: i % 4]) for i in range(50)]
    assert reranker.score("water boils", texts) == [reranker.score("water boils", [t])[0] for t in texts]


def test_of_a_long_text_the_end_is_left_out_and_a_long_question_leaves_room(
    reranker: OnnxCrossEncoder,
) -> None:
    assert reranker.score("water", ["the " * 100 + "water"]) == [logistic(-1)]
    assert reranker.score("water " + "the " * 100, ["water"])[0] == logistic(0)


def test_any_text_can_be_scored(reranker: OnnxCrossEncoder) -> None:
    assert reranker.score("\ud800", ["\udfff", "富士山", "\x00"])
    assert reranker.score("", []) == []


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_a_directory_that_lacks_a_file_is_named_with_what_it_lacks(tmp_path: Path, missing: str) -> None:
    directory = write_model(tmp_path / "m")
    (directory / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing):
        open_reranker(directory)


def test_a_file_that_is_no_model_is_refused_with_its_place(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigurationError, match=r"retrieval\.rerank\.model = '.*m'"):
        open_reranker(directory)

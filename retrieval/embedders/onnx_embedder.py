"""Embedding models on disk, in ONNX: no server, no torch. Needs the extra `dense`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.embedders.embedder import EmbedderConfig, Pooling, Vectors
from retrieval.embedders.model_files import ModelFiles, find_model
from retrieval.errors import ConfigurationError, EmbeddingError
from retrieval.extras import needs_extra

_BATCH = 32
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_SENTENCE_OUTPUT = "sentence_embedding"
_CLASSIFIER_OUTPUT = "pooler_output"
_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# Such a model scales its activations by the largest of a whole batch, so that neighbours would change a vector.
_DYNAMIC_QUANTIZATION = b"DynamicQuantizeLinear"


class OnnxEmbedder:
    """A transformer exported to ONNX, with the tokenizer, pooling, prefixes and limit that its files name.

    A text of more tokens than the model reads is cut, and counted in `truncated`. A vector depends on its
    text alone, not on the texts beside it (up to the last bits of a float).

    Raises:
        ConfigurationError: if the model is not there, its files do not say how to use it, or the extra is missing.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        self._files = find_model(config.model)
        self.name = self._files.name
        self.truncated = 0
        self._lock = threading.Lock()
        self._query_prefix = _first(config.query_prefix, self._files.prompt("query"))
        self._passage_prefix = _first(
            config.passage_prefix, self._files.prompt("passage", "document", "corpus")
        )
        self._limit = config.max_tokens or self._files.max_tokens
        self._tokenizer = _open_tokenizer(self._files, self._limit)
        self._session = _open_session(self._files, config.threads)
        self._dtypes = {one.name: _dtype(self._files, one) for one in self._session.get_inputs()}
        self._output, self._pooling = _choose_output(self._files, self._session.get_outputs(), config.pooling)
        self._batch_size = (
            1 if self._files.model_holds(_DYNAMIC_QUANTIZATION) else config.batch_size or _BATCH
        )
        self.dimension = self._run(self._tokenizer.encode_batch(["a"])).shape[1]
        settings = (self._limit, self._output, self._pooling, self._query_prefix, self._passage_prefix)
        self.fingerprint = hashlib.blake2b(
            f"onnx {self._files.digest} {settings}".encode(), digest_size=16
        ).hexdigest()

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """One vector a text; the longest are embedded with the longest, and nothing is padded for nothing."""
        encodings = self._tokenizer.encode_batch([f"{self._passage_prefix}{text}" for text in _clean(texts)])
        with self._lock:
            self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for batch in _by_length(encodings, self._batch_size):
            vectors[batch] = self._run([encodings[number] for number in batch])
        return vectors

    def embed_query(self, text: str) -> Vectors:
        """The vector of what somebody looks for; a question that is too long is cut without a word."""
        (text,) = _clean([text])
        vector: Vectors = self._run(self._tokenizer.encode_batch([f"{self._query_prefix}{text}"]))[0]
        return vector

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An embedder holds a model in memory and is not pickled: open it where it is needed.")

    def _run(self, encodings: Sequence[Any]) -> Vectors:
        width = max(len(encoding.ids) for encoding in encodings)
        mask = np.zeros((len(encodings), width), np.int64)
        ids = np.full((len(encodings), width), self._files.padding_id, np.int64)
        types = np.zeros_like(mask)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length] = encoding.ids
            mask[row, :length] = 1
            types[row, :length] = encoding.type_ids
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        given = dict(zip(_INPUTS, (ids, mask, types, positions), strict=True))
        feed = {name: given[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        try:
            (output,) = self._session.run([self._output], feed)
        except Exception as error:  # onnxruntime's errors have no class in common
            raise EmbeddingError(f"The embedding model '{self.name}' failed: {error}") from error
        vectors = normalized(_pool(output.astype(np.float32, copy=False), mask, self._pooling))
        if not np.isfinite(vectors).all():
            raise EmbeddingError(f"The embedding model '{self.name}' gave a vector that is not a number.")
        return vectors


def normalized(vectors: NDArray[np.float32]) -> Vectors:
    """Each row at unit length; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _pool(output: NDArray[np.float32], mask: NDArray[np.int64], pooling: Pooling) -> NDArray[np.float32]:
    match pooling:
        case "cls":
            first: NDArray[np.float32] = output[:, 0]
            return first
        case "last":
            last: NDArray[np.float32] = output[np.arange(len(output)), mask.sum(axis=1) - 1]
            return last
        case "mean":
            weights = mask.astype(np.float32)
            mean: NDArray[np.float32] = np.einsum("btd,bt->bd", output, weights)
            mean /= weights.sum(axis=1, keepdims=True)
            return mean
        case _:
            return output


def _by_length(encodings: Sequence[Any], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(encodings)), key=lambda number: len(encodings[number].ids), reverse=True)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _clean(texts: Sequence[str]) -> Iterator[str]:
    # A lone surrogate cannot be encoded, and so not be handed to the tokenizer.
    return (text.encode("utf-8", "replace").decode("utf-8") for text in texts)


def _first(*values: str | None) -> str:
    return next((value for value in values if value is not None), "")


def _open_tokenizer(files: ModelFiles, limit: int) -> Any:
    with needs_extra("dense", "an embedding model on disk"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_str(files.tokenizer.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises Exception itself
        raise ConfigurationError(f"Cannot read {files.tokenizer} ({error}).") from error
    # What the file says of both is what its last user needed: every text is padded to one length, say.
    tokenizer.no_padding()
    try:
        tokenizer.enable_truncation(limit)
    except Exception as error:
        raise ConfigurationError(f"embedder.max_tokens = {limit}: {error}") from error
    return tokenizer


def _open_session(files: ModelFiles, threads: int | None) -> Any:
    with needs_extra("dense", "an embedding model on disk"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait for the next step burn the processor that a retriever beside them needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(files.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise ConfigurationError(f"{files.model} is no ONNX model that can be run ({error}).") from error


def _dtype(files: ModelFiles, given: Any) -> type[np.integer[Any]]:
    dtype = _DTYPES.get(given.type)
    if given.name not in _INPUTS or dtype is None:
        raise ConfigurationError(
            f"{files.model} wants the input '{given.name}' ({given.type}). An embedding model of text takes "
            f"{', '.join(_INPUTS)}; export it as one (feature-extraction)."
        )
    return dtype


def _choose_output(files: ModelFiles, outputs: Sequence[Any], pooling: Pooling) -> tuple[str, Pooling]:
    """Which output to read, and how its tokens become one vector."""
    of_tokens = [one.name for one in outputs if len(one.shape) == 3]
    of_texts = [one.name for one in outputs if len(one.shape) == 2 and one.name != _CLASSIFIER_OUTPUT]
    if pooling in ("auto", "none"):
        for name in sorted(of_texts, key=lambda name: name != _SENTENCE_OUTPUT):
            if name == _SENTENCE_OUTPUT or not of_tokens or pooling == "none":
                return name, "none"
    if of_tokens and pooling != "none":
        files.check_pooling_is_the_last_step()
        return of_tokens[0], files.pooling if pooling == "auto" else pooling
    shapes = ", ".join(f"{one.name} {one.shape}" for one in outputs)
    raise ConfigurationError(f"embedder.pooling = {pooling}: {files.model} has no such output, but {shapes}.")

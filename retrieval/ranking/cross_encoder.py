"""A cross-encoder reads question and passage together, and says how well one answers the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ConfigurationError
from retrieval.extras import needs_extra

_MOST_TOKENS = 512
_BATCH = 16
_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_PADDING = ("direction", "pad_id", "pad_type_id", "pad_token")


class Reranker(Protocol):
    """Says how relevant texts are to a question. Safe to use from several threads at once."""

    @property
    def fingerprint(self) -> str:
        """Equal for rerankers that give the same scores."""
        ...

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """A score from 0 to 1 for each text, higher for more relevant."""
        ...


class OnnxCrossEncoder:
    """A cross-encoder in ONNX: a directory with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`.

    Question and text are one pair; of a text that is too long the end is left out. One logit becomes a score
    by the logistic function, of two the second's share is the score.
    """

    def __init__(self, directory: Path, *, threads: int | None = None) -> None:
        """Use `open_reranker`. `threads`: of one batch; unset, as many as onnxruntime takes."""
        with needs_extra("dense", "a reranker"):
            import onnxruntime
            from tokenizers import Tokenizer

        model = _model_file(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        # Threads that wait for the next step burn the processor that a retriever beside them needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._dtypes = {one.name: _DTYPES.get(one.type, np.int64) for one in self._session.get_inputs()}
        self._output = self._session.get_outputs()[0].name
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        padding = self._tokenizer.padding or {}
        self._tokenizer.enable_padding(**{key: padding[key] for key in _PADDING if key in padding})
        self._limit = _length_limit(directory)
        self._of_questions = Tokenizer.from_str(self._tokenizer.to_str())
        self._of_questions.no_truncation()
        self._of_questions.no_padding()
        self._tokenizer.enable_truncation(self._limit, strategy="only_second")
        self._fingerprint = model_fingerprint(directory)

    @property
    def fingerprint(self) -> str:
        """The hash of the model and its tokenizer."""
        return self._fingerprint

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """As `Reranker.score`; texts of about a length share a batch, so that little is padding."""
        question = self._shortened(_encodable(question))
        texts = [_encodable(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = [0.0] * len(texts)
        for first in range(0, len(order), _BATCH):
            places = order[first : first + _BATCH]
            for place, value in zip(places, self._score(question, [texts[i] for i in places]), strict=True):
                scores[place] = value
        return scores

    def _score(self, question: str, texts: Sequence[str]) -> list[float]:
        encoded = self._tokenizer.encode_batch([(question, text) for text in texts])
        given = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
            "token_type_ids": [one.type_ids for one in encoded],
        }
        feed = {name: np.array(given[name], dtype=dtype) for name, dtype in self._dtypes.items()}
        (logits,) = self._session.run([self._output], feed)
        return [round(float(value), 6) for value in _to_scores(np.asarray(logits, dtype=np.float64))]

    def _shortened(self, question: str) -> str:
        """The question, cut where it would leave less than half of the limit to the text."""
        encoded = self._of_questions.encode(question, add_special_tokens=False)
        most = self._limit // 2
        return question if len(encoded.ids) <= most else question[: encoded.offsets[most - 1][1]]


def open_reranker(model: str | Path, *, threads: int | None = None) -> OnnxCrossEncoder:
    """The cross-encoder of a directory.

    Raises:
        ConfigurationError: if there is none, it cannot be read, or what runs it is not installed.
    """
    directory = Path(model)
    missing = [
        name
        for name, there in (
            ("model.onnx", _model_file(directory).is_file()),
            ("tokenizer.json", (directory / "tokenizer.json").is_file()),
        )
        if not there
    ]
    if missing:
        raise ConfigurationError(
            f"retrieval.rerank.model = '{model}': no {' and no '.join(missing)} there. "
            "Name a directory with a cross-encoder in ONNX: model.onnx and tokenizer.json."
        )
    try:
        return OnnxCrossEncoder(directory, threads=threads)
    except ConfigurationError:
        raise
    except Exception as error:  # onnxruntime and tokenizers raise what they like about a file
        raise ConfigurationError(
            f"retrieval.rerank.model = '{model}': cannot be read as a cross-encoder ({error})."
        ) from error


def model_fingerprint(model: str | Path) -> str:
    """The hash of the model's files; of nothing where there are none."""
    directory = Path(model)
    files = [file for file in (_model_file(directory), directory / "tokenizer.json") if file.is_file()]
    return _hash_files(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _hash_files(states: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in states:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _model_file(directory: Path) -> Path:
    below = directory / "onnx" / "model.onnx"
    return below if below.is_file() else directory / "model.onnx"


def _length_limit(directory: Path) -> int:
    """What the model was made for, where its files say it, and 512 where not."""
    limits = [_MOST_TOKENS]
    for name, key in (
        ("config.json", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        try:
            value = json.loads((directory / name).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError):
            continue
        # Some say a number of thirty digits where they mean that there is no limit.
        if isinstance(value, int) and 8 <= value <= _MOST_TOKENS:
            limits.append(value)
    return min(limits)


def _to_scores(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    if logits.ndim == 2 and logits.shape[1] == 2:
        logits = logits[:, 1] - logits[:, 0]
    flat = logits.reshape(len(logits), -1)[:, 0]
    return np.asarray(0.5 * (1 + np.tanh(flat / 2)))


def _encodable(text: str) -> str:
    # A lone surrogate cannot be encoded, and so not be handed to the tokenizer.
    return text.encode("utf-8", "replace").decode("utf-8")

"""The files of an embedding model as the hub and sentence-transformers lay them out, and what they say."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrieval.embedders.embedder import Pooling
from retrieval.errors import ConfigurationError
from retrieval.extras import needs_extra

_MODELS = ("model.onnx", "onnx/model.onnx")
_TOKENIZER = "tokenizer.json"
_HUB_FILES = ("*.json", "1_Pooling/*", *_MODELS, *(f"{name}_data" for name in _MODELS))
_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_E5 = re.compile(r"(?<![a-z0-9])e5(?![a-z0-9])", re.IGNORECASE)
_LONGEST = 1_000_000
"""Tokenizers without a limit say so by a far greater number."""


@dataclass(frozen=True)
class ModelFiles:
    """A directory with a model and its tokenizer; `name` is what people call it."""

    name: str
    directory: Path
    model: Path

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.directory / _TOKENIZER

    @cached_property
    def digest(self) -> str:
        """A hash of the model, its weights beside it, and the tokenizer."""
        digest = hashlib.blake2b(digest_size=16)
        for file in (self.model, *sorted(self.model.parent.glob(f"{self.model.name}*data")), self.tokenizer):
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def model_holds(self, name: bytes) -> bool:
        """Whether the bytes occur in the model's graph."""
        with self.model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name) >= 0

    @cached_property
    def max_tokens(self) -> int:
        """How many tokens the model reads, the special ones included."""
        stated = (
            self._read("sentence_bert_config.json").get("max_seq_length"),
            self._read("tokenizer_config.json").get("model_max_length"),
            (self._tokenizer.get("truncation") or {}).get("max_length"),
        )
        positions = self._read("config.json").get("max_position_embeddings")
        limits = [int(limit) for limit in stated if isinstance(limit, int | float) and 0 < limit < _LONGEST][
            :1
        ]
        if isinstance(positions, int) and positions > 0:
            # RoBERTa and its kin count positions from behind the padding's number.
            shifted = "roberta" in str(self._read("config.json").get("model_type", ""))
            limits.append(positions - (self.padding_id + 1 if shifted else 0))
        return min(limits, default=512)

    @cached_property
    def padding_id(self) -> int:
        """The number of the token that fills a batch."""
        stated = (
            (self._tokenizer.get("padding") or {}).get("pad_id"),
            self._read("config.json").get("pad_token_id"),
        )
        return next((number for number in stated if isinstance(number, int)), 0)

    @property
    def pooling(self) -> Pooling:
        """How the vectors of tokens become that of a text: what sentence-transformers was told, else their mean."""
        stated = self._read("1_Pooling/config.json")
        chosen = [pooling for key, pooling in _POOLINGS.items() if stated.get(key)]
        others = [
            key for key in stated if key.startswith("pooling_mode_") and key not in _POOLINGS and stated[key]
        ]
        if others or len(chosen) > 1:
            names = [key for key in stated if key.startswith("pooling_mode_") and stated[key]]
            raise ConfigurationError(
                f"{self.directory / '1_Pooling/config.json'} asks for {', '.join(names)}, and one of mean, cls and "
                "last token is possible here. Choose with embedder.pooling, or use another model."
            )
        return chosen[0] if chosen else "mean"

    def check_pooling_is_the_last_step(self) -> None:
        """Raise ConfigurationError if sentence-transformers goes on with layers that the ONNX file lacks."""
        modules = self._read("modules.json")
        for module in modules if isinstance(modules, list) else ():
            kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
            if kind not in ("Transformer", "Pooling", "Normalize", ""):
                raise ConfigurationError(
                    f"The model '{self.name}' has a layer {kind} after its transformer, which {self.model} does "
                    "not hold. Export it whole (with a sentence_embedding output), or use another model."
                )

    def prompt(self, *names: str) -> str | None:
        """What the model's files want before each text of a kind; models of the E5 family `query: ` or `passage: `."""
        prompts = self._read("config_sentence_transformers.json").get("prompts") or {}
        stated = next((str(prompts[name]) for name in names if prompts.get(name) is not None), None)
        # Most of that family were published before there was a place in the files to say it.
        return f"{names[0]}: " if stated is None and _E5.search(self.name) else stated

    @cached_property
    def _tokenizer(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = self._read(_TOKENIZER)
        return content

    def _read(self, name: str) -> Any:
        """A JSON file; empty where there is none."""
        file = self.directory / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"Cannot read {file} ({error}).") from error


def find_model(model: str) -> ModelFiles:
    """The files of a model: a directory, an ONNX file in one, or a name on the hub.

    Raises:
        ConfigurationError: if it is not there, or is no ONNX model with a tokenizer.
    """
    path = Path(model).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        directory = path.parent if (path.parent / _TOKENIZER).exists() else path.parent.parent
        return _checked(ModelFiles(directory.resolve().name, directory, path))
    if not path.is_dir():
        path, name = _fetch(model), model
    else:
        name = path.resolve().name
    found = next((path / one for one in _MODELS if (path / one).is_file()), None)
    if found is None:
        there = sorted(str(file.relative_to(path)) for file in path.rglob("*.onnx"))
        hint = f" It holds {', '.join(there)}: name one." if there else ""
        raise ConfigurationError(
            f"embedder.model = '{model}': there is no {' or '.join(_MODELS)} in it.{hint or ' Export it to ONNX.'}"
        )
    return _checked(ModelFiles(name, path, found))


def _checked(files: ModelFiles) -> ModelFiles:
    if not files.tokenizer.is_file():
        raise ConfigurationError(
            f"embedder.model = '{files.name}': there is no {_TOKENIZER} beside the model."
        )
    return files


def _fetch(model: str) -> Path:
    """A model of the hub, from the hub's cache on disk where it is there already."""
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ConfigurationError(f"embedder.model = '{model}': there is no such directory.")
    with needs_extra("dense", "a model from the hub"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES), local_files_only=True))
    except (OSError, ValueError):
        pass  # not there yet, or not whole
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(
            f"embedder.model = '{model}': there is no such directory, and the hub cannot be reached or has no such "
            f"model ({reason}). Where there is a network, run: hf download {model}; or name a directory."
        ) from error

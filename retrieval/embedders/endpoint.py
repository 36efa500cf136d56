"""Embedding models behind an address: whatever provider DSPy reaches, through the client that it uses itself."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from retrieval.chunking import count_tokens
from retrieval.embedders.embedder import EmbedderConfig, Vectors
from retrieval.embedders.onnx_embedder import normalized
from retrieval.embedders.providers import PROVIDERS
from retrieval.errors import ConfigurationError, EmbeddingError, WorkspaceError
from retrieval.secrets import hide_secrets
from retrieval.workspace import open_workspace

_BATCH = 64
_PASSING = (408, 429, 500, 502, 503, 504, 529)
_LONGEST_WAIT_S = 60.0
_REASON_CHARACTERS = 300


class EndpointEmbedder:
    """An embeddings endpoint, by a name such as `openai/text-embedding-3-small` or `databricks/<endpoint>`.

    API keys come from the environment, under the names that the provider's client documents; an endpoint of a
    Databricks workspace is signed in to as the workspace is, anew for each request. A request that
    the endpoint is too busy for, or that fails on its side, is repeated `num_retries` times, waiting as long
    as it asks for or ever longer. With `max_tokens`, texts are cut by an estimate of their tokens, and counted;
    without, an endpoint refuses or cuts what is too long for it.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        provider, slash, model = config.model.partition("/")
        # At an address alone, there is an OpenAI-compatible server, whatever its model is called.
        is_named = slash and provider in PROVIDERS
        self._provider, self._model = (provider, model) if is_named else ("openai", config.model)
        self._client: Any = None
        self.name = config.model
        self.truncated = 0
        self._lock = threading.Lock()
        settings = [config.model, config.api_base, config.dimensions, config.max_tokens]
        prefixes = [config.query_prefix or "", config.passage_prefix or ""]
        self.fingerprint = hashlib.blake2b(
            json.dumps(["endpoint", *settings, *prefixes]).encode(), digest_size=16
        ).hexdigest()

    @cached_property
    def dimension(self) -> int:
        """As the endpoint answers: the first to ask makes a request."""
        return int(self.embed_query("dimension").shape[0])

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, in requests of `batch_size` texts."""
        cut = [self._cut(text) for text in texts]
        with self._lock:
            self.truncated += sum(short != text for short, text in zip(cut, texts, strict=True))
        prefix, size = self._config.passage_prefix or "", self._config.batch_size or _BATCH
        whole = [f"{prefix}{text}" for text in cut]
        batches = [self._ask(whole[start : start + size]) for start in range(0, len(whole), size)]
        return np.concatenate(batches) if batches else np.empty((0, self.dimension), np.float32)

    def embed_query(self, text: str) -> Vectors:
        """The vector of what somebody looks for."""
        vector: Vectors = self._ask([f"{self._config.query_prefix or ''}{self._cut(text)}"])[0]
        return vector

    def _cut(self, text: str) -> str:
        limit = self._config.max_tokens
        text = text.encode("utf-8", "replace").decode("utf-8")
        if limit is None or count_tokens(text) <= limit:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count_tokens(text[:middle]) <= limit else (low, middle - 1)
        return text[:low]

    def _ask(self, texts: Sequence[str]) -> Vectors:
        # Providers refuse an empty text, and one refused text fails the whole batch.
        inputs = [text if text.strip() else "-" for text in texts]
        for attempt in range(self._config.num_retries + 1):
            try:
                return self._vectors(self._request(inputs), len(inputs))
            except _PassingError as passing:
                if attempt == self._config.num_retries:
                    raise self._failure(passing.reason) from passing.reason
                time.sleep(passing.wait_s or min(_LONGEST_WAIT_S, 2**attempt * random.uniform(0.25, 0.5)))
        raise AssertionError("unreachable")

    def _request(self, inputs: Sequence[str]) -> Any:
        asks = {"openai": self._ask_openai, "databricks": self._ask_databricks}
        try:
            return asks.get(self._provider, self._ask_litellm)(inputs)
        except WorkspaceError as error:
            raise EmbeddingError(f"The embedding model '{self.name}' failed: {error}") from error
        except ConfigurationError:
            raise
        except Exception as error:  # clients of a hundred providers, each with errors of its own
            if _status(error) in _PASSING or _is_of_network(error):
                raise _PassingError(error) from error
            raise self._failure(error) from error

    def _ask_openai(self, inputs: Sequence[str]) -> Any:
        """Any OpenAI-compatible server: of one's own, it often wants no key, and the client insists on one."""
        with self._lock:
            if self._client is None:
                import openai

                key = None if os.environ.get("OPENAI_API_KEY") or not self._config.api_base else "none"
                self._client = openai.OpenAI(
                    base_url=self._config.api_base, api_key=key, timeout=self._config.timeout_s, max_retries=0
                )
        return self._embeddings(self._client, inputs)

    def _ask_databricks(self, inputs: Sequence[str]) -> Any:
        """A workspace's endpoint, by OpenAI's client, with a token that is fresh."""
        key, base = os.environ.get("DATABRICKS_API_KEY"), self._config.api_base
        base = base or os.environ.get("DATABRICKS_API_BASE") or f"{open_workspace().host}/serving-endpoints"
        with self._lock:
            if self._client is None or str(self._client.base_url).rstrip("/") != base.rstrip("/"):
                import openai

                self._client = openai.OpenAI(
                    base_url=base, api_key="-", timeout=self._config.timeout_s, max_retries=0
                )
            client = self._client
        return self._embeddings(client.with_options(api_key=key or open_workspace().token()), inputs)

    def _embeddings(self, client: Any, inputs: Sequence[str]) -> Any:
        return client.embeddings.create(
            model=self._model, input=list(inputs), encoding_format="float", **self._dimensions()
        )

    def _ask_litellm(self, inputs: Sequence[str]) -> Any:
        # LiteLLM looks its price list up online unless told that the one it ships will do.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
        import litellm

        litellm.suppress_debug_info = True  # it prints advice to standard output
        return litellm.embedding(
            model=f"{self._provider}/{self._model}",
            input=list(inputs),
            timeout=self._config.timeout_s,
            api_base=self._config.api_base,
            **self._dimensions(),
        )

    def _dimensions(self) -> dict[str, Any]:
        return {} if self._config.dimensions is None else {"dimensions": self._config.dimensions}

    def _vectors(self, response: Any, count: int) -> Vectors:
        try:
            rows = [row if isinstance(row, dict) else dict(row) for row in response.data]
            rows.sort(key=lambda row: row["index"])
            numbers = [row["index"] for row in rows]
            vectors = np.asarray([row["embedding"] for row in rows], np.float32)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._failure(f"its answer is not one of an embeddings endpoint ({error})") from error
        if numbers != list(range(count)) or vectors.ndim != 2:
            raise self._failure(f"{count} texts were sent and {len(numbers)} vectors came back")
        if not np.isfinite(vectors).all():
            raise self._failure("it gave a vector that is not a number")
        return normalized(vectors)

    def _failure(self, reason: object) -> EmbeddingError:
        line = " ".join(hide_secrets(str(reason)).split())
        line = line if len(line) <= _REASON_CHARACTERS else f"{line[: _REASON_CHARACTERS - 1]}…"
        return EmbeddingError(
            f"The embedding model '{self.name}' failed: {line.rstrip('.')}. Check its API key in the environment, "
            "embedder.api_base and the network; embedder.timeout_s and num_retries say how long to try."
        )


class _PassingError(Exception):
    """A failure that may be over soon."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.wait_s = _asked_wait(reason)


def _asked_wait(error: Exception) -> float | None:
    """The seconds of the Retry-After header, where there is one."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(headers["retry-after"])))
    except (KeyError, TypeError, ValueError):
        return None


def _status(error: Exception) -> int | None:
    """The HTTP status of the answer, where there was one."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _is_of_network(error: BaseException | None) -> bool:
    """Whether no answer came, or not in time: both clients say it with httpx's errors below theirs."""
    import httpx

    while error is not None:
        if isinstance(error, httpx.TransportError | TimeoutError | ConnectionError):
            return True
        error = error.__cause__
    return False

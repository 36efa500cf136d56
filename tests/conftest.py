"""A language model on the wire, scripted: what the real clients speak to when a test asks one something."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_workspace import FakeWorkspace
from hypothesis import settings
from postgres_server import PostgresServer, running_postgres

# The same examples in each run, however long one takes on a busy machine.
settings.register_profile("citeqa", derandomize=True, deadline=None)
settings.load_profile("citeqa")

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


_MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID")
_MLFLOW_GLOBALS = (
    ("mlflow.tracking._tracking_service.utils", "_tracking_uri"),
    ("mlflow.tracking._model_registry.utils", "_registry_uri"),
    ("mlflow.tracking.fluent", "_active_experiment_id"),
)


@contextmanager
def _mlflow_restored() -> Iterator[None]:
    """Whatever store and experiment MLflow is pointed at inside, outside it points where it did."""
    variables = {name: os.environ.get(name) for name in _MLFLOW_VARIABLES}
    values = [getattr(sys.modules.get(module), name, None) for module, name in _MLFLOW_GLOBALS]
    yield
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for (module, name), value in zip(_MLFLOW_GLOBALS, values, strict=True):
        if module in sys.modules:
            setattr(sys.modules[module], name, value)


@pytest.fixture(scope="module", autouse=True)
def mlflow_points_where_it_did_before_the_module() -> Iterator[None]:
    """What a module's own fixtures log or set up sends no other module's tests to their store."""
    with _mlflow_restored():
        yield


@pytest.fixture(autouse=True)
def mlflow_points_where_it_did() -> Iterator[None]:
    """Whatever store a test points MLflow at, the next test finds the one that there was."""
    with _mlflow_restored():
        yield


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeWorkspace]:
    """A Databricks workspace that the environment names, with a token of ann's; nothing may ask what it lacks."""
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    with FakeWorkspace() as fake:
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "no.databrickscfg"))
        monkeypatch.setenv("DATABRICKS_HOST", fake.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", fake.identity.add_token("ann@example.com"))
        yield fake
    assert fake.unknown == []


@dataclass(frozen=True)
class Reply:
    """One answer of the scripted model.

    Streamed, `text` goes out in deltas of `chunk` characters, each after `delay_s`; the connection breaks
    after `cut_after` deltas. A status other than 200 is an error with `text` as its message. `body` is
    sent as it is.
    """

    text: str = ""
    chunk: int = 8
    delay_s: float = 0.0
    cut_after: int | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class LanguageModelServer(ThreadingHTTPServer):
    """OpenAI's chat completions on 127.0.0.1, whole and streamed, with answers told beforehand.

    Each request takes the next reply; the last one stays. `requests` are the bodies that came, `keys` the
    keys they came with, `deltas_sent` counts over all streams, `hang_ups` those whose reader left.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.deltas_sent = 0
        self.hang_ups = 0
        self.lock = threading.Lock()
        self._script: list[Reply] = []
        self._answer: Callable[[dict[str, Any]], Reply] | None = None
        self._bears: tuple[int, float] | None = None
        self._window = (0, 0)
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def says(self, text: str = "", **how: Any) -> None:
        """Add a reply to the script; `how` as in `Reply`."""
        self._script.append(Reply(text, **how))

    def forget(self) -> None:
        """Drop what was scripted and what was asked."""
        with self.lock:
            self.requests, self.keys, self._script, self._answer = [], [], [], None
            self.deltas_sent = self.hang_ups = self.refused = 0
            self._bears = None

    def bears(self, requests: int, every_s: float) -> None:
        """Refuse more requests than these in a window with 429, and say when the next begins; count in `refused`."""
        self._bears = requests, every_s

    def fills(self, fields: dict[str, Any], **how: Any) -> None:
        """Add a reply in the layout of DSPy's chat adapter, with these output fields."""
        self.says(chat_layout(fields), **how)

    def computes(self, answer: Callable[[dict[str, Any]], str], **how: Any) -> None:
        """Answer every request with what a function of its body says, instead of a script."""
        self._answer = lambda body: Reply(answer(body), **how)

    def prompt(self, request: int = -1) -> str:
        """All message text of a request."""
        return "\n".join(str(message["content"]) for message in self.requests[request]["messages"])

    def wait_for_hang_up(self, timeout_s: float = 5.0) -> bool:
        """Whether a reader leaves in the time."""
        deadline = time.monotonic() + timeout_s
        while not self.hang_ups and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.hang_ups > 0

    def next_reply(self, body: dict[str, Any], key: str) -> Reply:
        with self.lock:
            if self._bears and (refusal := self._refuse(*self._bears)):
                self.refused += 1
                return refusal
            self.requests.append(body)
            self.keys.append(key)
            if self._answer:
                return self._answer(body)
            assert self._script, "the language model was asked, and no reply was scripted"
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def _refuse(self, requests: int, every_s: float) -> Reply | None:
        window, passed_s = divmod(time.monotonic(), every_s)
        before = self._window[1] if self._window[0] == int(window) else 0
        self._window = int(window), before + 1
        if before < requests:
            return None
        return Reply("slow down", status=429, headers={"Retry-After": f"{every_s - passed_s:.3f}"})

    def handle_error(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.hang_ups += 1


class _Handler(BaseHTTPRequestHandler):
    server: LanguageModelServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.next_reply(body, self.headers.get("Authorization", ""))
        if reply.body is not None:
            self._send(reply, reply.body)
        elif reply.status != 200:
            error = {"message": reply.text or "scripted error", "type": "error", "code": None}
            self._send(reply, json.dumps({"error": error}).encode())
        elif body.get("stream"):
            self._stream(reply, body)
        else:
            time.sleep(reply.delay_s)
            message = {"role": "assistant", "content": reply.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(reply, _completion("chat.completion", body, [choice], usage=USAGE))

    def _send(self, reply: Reply, body: bytes) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, reply: Reply, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        deltas = [reply.text[i : i + reply.chunk] for i in range(0, len(reply.text), reply.chunk)]
        for number, delta in enumerate(deltas):
            if number == reply.cut_after:
                self.close_connection = True
                return
            time.sleep(reply.delay_s)
            self._event(body, [{"index": 0, "delta": {"content": delta}, "finish_reason": None}])
            with self.server.lock:
                self.server.deltas_sent += 1
        self._event(body, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self._event(body, [], usage=USAGE)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> None:
        self._chunk(b"data: " + _completion("chat.completion.chunk", body, choices, **more) + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_: Any) -> None:
        pass


def _completion(kind: str, body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    completion = {"id": "c1", "object": kind, "created": 0, "model": body["model"], "choices": choices}
    return json.dumps({**completion, **more}).encode()


def chat_layout(fields: dict[str, Any]) -> str:
    """A completion as DSPy's chat adapter asks a model to write it."""
    sections = [f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


@pytest.fixture
def language_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[LanguageModelServer]:
    """A scripted model that listens for the length of a test; its key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    with _listening() as server:
        yield server


@pytest.fixture(scope="session")
def lasting_language_model() -> Iterator[LanguageModelServer]:
    """A scripted model for servers that outlive a test; a test begins with `forget`."""
    with _listening() as server:
        yield server


@contextmanager
def _listening() -> Iterator[LanguageModelServer]:
    with LanguageModelServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The one PostgreSQL with pgvector of a session, on loopback; a test has a database of its own there."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way into an empty database, whose password is in the environment."""
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    return postgres_server.empty_database()


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The one local Spark of a session, which takes seconds to start; its tables end with it."""
    pytest.importorskip("pyspark", reason="Spark is not installed: pip install 'citeqa[spark]'")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java, and there is none")
    from program.spark.session import open_spark

    with pytest.MonkeyPatch.context() as patch:
        # Where Java starts, Spark puts its tables, and its Python workers work.
        patch.chdir(tmp_path_factory.mktemp("spark"))
        # Java compiles what runs a few times as if it ran for hours.
        patch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        session = open_spark()
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    yield session
    session.stop()


CONCEPTS = (
    ("car", "cars", "automobile", "automobiles", "vehicle", "自動車", "クルマ"),
    ("doctor", "doctors", "physician", "physicians", "医師", "医者"),
    ("fast", "quick", "rapid", "速い", "高速"),
    ("price", "cost", "prices", "costs", "fee", "値段", "料金"),
    ("error", "errors", "failure", "failures", "fault", "エラー", "障害"),
    ("delete", "remove", "erase", "deleted", "removed", "削除", "消去"),
    ("begin", "start", "launch", "begins", "開始", "起動"),
    ("sea", "ocean", "seas", "海", "大洋"),
)
"""Words that the embedding model of tests takes for the same."""

EmbeddingModelMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_embedding_model() -> EmbeddingModelMaker:
    """Writes an ONNX embedding model with its tokenizer, as they are on the hub, into a directory.

    Words of one of the CONCEPTS, in English and Japanese, share a direction; of other text, characters count,
    and less. `outputs` is tokens, text (pooled in the graph) or bert (tokens, and a pooler that is no
    embedding); with `dynamic`, activations are quantized by the largest of a whole batch.
    """
    return _write_embedding_model


@pytest.fixture(scope="session")
def tiny_embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an embedding model of 32 dimensions that reads 128 tokens: see make_embedding_model."""
    return _write_embedding_model(tmp_path_factory.mktemp("models") / "tiny-embedder")


def _write_embedding_model(
    directory: Path, *, outputs: str = "tokens", dynamic: bool = False, max_tokens: int = 128, seed: int = 0
) -> Path:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [(word, concept) for concept, synonyms in enumerate(CONCEPTS) for word in synonyms]
    characters = [chr(code) for span in ((33, 127), (0x3041, 0x30FF)) for code in range(*span)]
    pieces = [*specials, *(word for word, _ in words), *characters]
    scores = [0.0] * 4 + [-2.0] * len(words) + [-8.0] * len(characters)
    tokenizer = Tokenizer(models.Unigram(list(dict(zip(pieces, scores, strict=True)).items()), unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in files that were saved after use: neither is what a next user needs.
    tokenizer.enable_padding(length=max_tokens)
    tokenizer.enable_truncation(8)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))

    size, dimension = tokenizer.get_vocab_size(), 32
    table = np.zeros((size, dimension), np.float32)
    table[:, 16:] = 0.2 * np.random.default_rng(seed).standard_normal((size, 16))
    table[0] = 100.0  # padding that is not masked would show
    table[1:4] = 0.0
    table[2, 31] = 0.3
    for word, concept in words:
        table[tokenizer.token_to_id(word)] = 0.0
        table[tokenizer.token_to_id(word), concept] = 3.0
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["looked_up"])]
    if dynamic:
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["looked_up"], ["steps", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["last_hidden_state"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["looked_up"], ["last_hidden_state"]))
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["last_hidden_state", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "tokens"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["sentence_embedding"]),
        helper.make_node("Neg", ["sum"], ["pooler_output"]),
    ]
    named = {
        "last_hidden_state": ["batch", "tokens", dimension],
        "sentence_embedding": ["batch", dimension],
        "pooler_output": ["batch", dimension],
    }
    shown = {
        "tokens": ["last_hidden_state"],
        "text": ["sentence_embedding"],
        "bert": ["pooler_output", "last_hidden_state"],
    }
    graph = helper.make_graph(
        nodes,
        "embedder",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, named[name]) for name in shown[outputs]],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "tokens"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    files = {
        "config.json": {"model_type": "bert", "max_position_embeddings": max_tokens, "pad_token_id": 0},
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        "tokenizer_config.json": {"model_max_length": 10**30},
        "sentence_bert_config.json": {"max_seq_length": max_tokens},
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content))
    return directory


_TOGETHER = ("playground", "comparison", "html_report", "formats", "compiling", "spark", "postgres")
"""Folders, or files by part of their name, whose tests share what takes long to make: servers, a browser, Spark."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file run in one of xdist's processes, and so do those of the folders that share more."""
    # Not `--dist loadgroup`: under pytest 9.2, xdist 3.8 keeps no group together, without a word.
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return next((part for part in _TOGETHER if part in file), file)

    return Together(config, log)

"""A small corpus in two languages, the program over it, and MLflow kept to a store of the session's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from mlflow.entities import Trace

from program.settings import Settings, validate_settings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

DOCUMENTS = [
    Document(
        "https://docs.example/water",
        "# Water\n\nWater boils at 100 degrees at sea level. Ice melts at 0 degrees.",
        "Water",
        "en",
    ),
    Document(
        "https://docs.example/mountains",
        "# Mountains\n\nWater boils earlier on high mountains, because the air is thin. "
        "On Everest it boils at 71 degrees.",
        "Mountains",
        "en",
    ),
    Document(
        "https://docs.example/iron",
        "# Iron\n\n- Iron melts at 1538 degrees.\n- Steel is iron with carbon.",
        "Iron",
        "en",
    ),
    Document(
        "https://docs.example/fuji",
        "# 富士山\n\n富士山の高さは3776メートルです。山頂では水が約88度で沸騰します。",
        "富士山",
        "ja",
    ),
]

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "index"
    LocalIndex.build(path, DOCUMENTS)
    return str(path)


@pytest.fixture(scope="session")
def index(index_path: str) -> LocalIndex:
    return LocalIndex.open(index_path)


@pytest.fixture
def make_settings(index_path: str) -> MakeSettings:
    """Settings over the small corpus; keyword arguments are sections, a server is one's language model."""

    def make(server: Any = None, **sections: Any) -> Settings:
        values: dict[str, Any] = {"retrieval": {"index": index_path, "k": 3}}
        if server is not None:
            values["language_model"] = {
                "model": "openai/test",
                "api_base": server.url,
                "cache": False,
                "timeout_s": 5,
                "num_retries": 1,
            }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return validate_settings([("test", values)])

    return make


@pytest.fixture(scope="session")
def trace_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(autouse=True)
def nothing_outlives_a_test(
    trace_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Each test has its working directory; traces go to the session's store at once; no answer is cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trace_store)
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    mlflow.tracing.reset()
    mlflow.tracing.disable()
    yield
    mlflow.dspy.autolog(disable=True)
    mlflow.tracing.reset()


@pytest.fixture
def tracing() -> Callable[[], Trace]:
    """Tracing is on; called, the trace that ended last, read back from the store."""
    mlflow.tracing.enable()

    def last_trace() -> Trace:
        trace_id = mlflow.get_last_active_trace_id()
        assert trace_id is not None, "nothing was traced"
        trace = mlflow.get_trace(trace_id)
        assert trace is not None, "the trace is not in the store"
        return trace

    return last_trace

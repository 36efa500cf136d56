"""A logged agent as a model of a column: a row's question in, all that is known of its answer out, both as JSON.

MLflow's `spark_udf` cannot carry a `ResponsesAgent`: it hands over a batch of rows, of which the agent answers the
first, and an answer that fails ends the whole job. This model puts any such agent behind an interface that
`spark_udf` can carry, so that MLflow brings it to the executors, whatever the platform.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext, ResponsesAgent
from mlflow.tracing.provider import is_tracing_enabled
from mlflow.types.schema import ColSpec, Schema

from program.batch_asking import NO_ANSWER, describe_failure, to_request
from program.batch_questions import FIELDS, QuestionTable, Row
from program.deployment.log import code_paths
from program.threads import map_in_threads
from program.well_formed import well_formed_value

_AGENT = "agent"
_COLUMN = "asks"
_loaded: dict[str, ResponsesAgent] = {}


class AgentModel(PythonModel):
    """Answers a column of rows, several at once, each failure in its row."""

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """A record for each row of the first column, in its order."""
        config = context.model_config or {}
        # Not in `load_context`: a model that is loaded while another is waits for MLflow, for ever, where nothing
        # is traced.
        agent = _load(context.artifacts[_AGENT])
        rows = list(enumerate(model_input.iloc[:, 0]))
        with _tracing(bool(config["trace"])):
            work = partial(_answer_row, agent)
            answered = dict(map_in_threads(work, rows, threads=int(config["threads"]), name="citeqa-spark"))
        return [answered[number] for number, _ in rows]


def _load(path: str) -> ResponsesAgent:
    """The agent, loaded once for all tasks of a worker process."""
    if path not in _loaded:
        _loaded.clear()
        _loaded[path] = mlflow.pyfunc.load_model(path).get_raw_model()
    return _loaded[path]


@contextmanager
def _tracing(wanted: bool) -> Iterator[None]:
    """Within, calls are traced or not; afterwards as before, which the next model to be loaded counts on."""
    was_enabled = is_tracing_enabled()
    if wanted != was_enabled:
        (mlflow.tracing.enable if wanted else mlflow.tracing.disable)()
    try:
        yield
    finally:
        if wanted != was_enabled:
            (mlflow.tracing.enable if was_enabled else mlflow.tracing.disable)()


def save_agent_model(path: Path, agent: str, *, threads: int, trace: bool) -> None:
    """Save the model of an agent that MLflow has at the local directory `agent`."""
    requirements = Path(agent) / "requirements.txt"
    signature = ModelSignature(Schema([ColSpec("string", _COLUMN)]), Schema([ColSpec("string")]))
    with warnings.catch_warnings():
        # The agent was asked an example when it was logged.
        warnings.filterwarnings("ignore", ".*An input example was not provided", UserWarning)
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(Path(__file__).with_name("logged_agent_model.py")),
            artifacts={_AGENT: agent},
            code_paths=code_paths(),
            model_config={"threads": threads, "trace": trace},
            pip_requirements=str(requirements) if requirements.exists() else ["mlflow"],
            signature=signature,
        )


def _answer_row(agent: ResponsesAgent, row: tuple[int, str]) -> tuple[int, str]:
    number, cells = row
    started = time.perf_counter()
    try:
        request = to_request(_TABLE.asked(Row(0, "", json.loads(cells))))
        record = {**NO_ANSWER, **to_record(agent.predict(request).model_dump())}
    except Exception as error:  # noqa: BLE001 - whatever the agent raised: the reason of this row
        record = {**NO_ANSWER, "error": describe_failure(error)}
    latency_ms = round(1000 * (time.perf_counter() - started), 3)
    trace_id = mlflow.get_last_active_trace_id(thread_local=True)
    whole = {**record, "latency_ms": latency_ms, "trace_id": trace_id}
    return number, json.dumps(well_formed_value(whole), ensure_ascii=False)


_TABLE = QuestionTable(Path(), {field: field for field in FIELDS}, FIELDS, 0, 0, "", "")
"""Every field in the column of its name: what `asked` needs to know of a table."""


def to_record(response: Mapping[str, Any]) -> dict[str, Any]:
    """What a response of the Responses interface says, in the fields of an answer.

    An agent that is not ours has its text and its `url_citation` annotations; these are then its sources.
    """
    parts = [part for item in response["output"] for part in item.get("content") or () if part.get("text")]
    citations = [
        annotation
        for part in parts
        for annotation in part.get("annotations") or ()
        if annotation.get("type") == "url_citation"
    ]
    custom = response.get("custom_outputs") or {}
    return {
        "answer": "\n".join(part["text"] for part in parts),
        "cited_uris": list(dict.fromkeys(map(_cited_uri, citations))),
        "sources": _sources(custom.get("sources"), citations),
        "abstained": custom.get("abstained"),
        "reader": custom.get("reader") or response.get("model"),
        "fallback_reason": custom.get("fallback_reason"),
        "usage": _tokens(response.get("usage")),
    }


def _sources(
    told: Iterable[Mapping[str, Any]] | None, citations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    quotes: dict[Any, list[str]] = {}
    for citation in citations:
        of_source = quotes.setdefault(citation.get("number", citation["url"]), [])
        if (quote := citation.get("quote")) and quote not in of_source:
            of_source.append(quote)
    if told is None:
        by_url = {citation["url"]: citation for citation in citations}
        told = (
            {
                "number": number,
                "cited": True,
                "doc_uri": _cited_uri(citation),
                "url": url,
                "title": citation.get("title"),
                "key": url,
            }
            for number, (url, citation) in enumerate(by_url.items(), start=1)
        )
    return [
        {
            **{field: source.get(field) for field in _SOURCE_FIELDS},
            "quotes": quotes.get(source.get("key", source.get("number")), []),
        }
        for source in told
    ]


def _cited_uri(citation: Mapping[str, Any]) -> str:
    return citation.get("doc_uri") or citation["url"]  # type: ignore[no-any-return]


_SOURCE_FIELDS = ("number", "cited", "doc_uri", "url", "title", "chunk_id", "score")


def _tokens(usage: Mapping[str, Any] | None) -> dict[str, int] | None:
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {name: usage.get(name) or 0 for name in names} if usage else None

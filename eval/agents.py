"""Where an agent comes from: our own program, a logged model, or an address.

What is evaluated is told by `evaluation.agent.uri` alone; everything after `find_subject` treats all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow.types.responses import ResponsesAgentRequest

from eval.answering import Agent
from eval.endpoints import Endpoint, StoredTraces
from eval.evidence import ANY_SPAN, RetrieverMapping, RetrieverMappings
from eval.logged_models import LoggedModel, find_model
from eval.model_process import load_in_process
from eval.replies import Reply
from eval.run_identity import run_identity
from eval.served_agents import find_served
from program.agent import CiteqaAgent
from program.content_store import ContentStore
from program.language_models import build_lm
from program.retrievers import corpus_hash, known_documents
from program.settings import EvaluationSettings, OtherAgentSettings, Settings
from retrieval.errors import AgentError, ConfigurationError
from retrieval.workspace import open_workspace

CALLS_FILE = "calls.db"
"""Below `evaluation.results`: what language models answered, and what that cost. It can be deleted at any time."""

_WAITING_FOR_EACH_ASKED = 8
"""Threads that may wait for a trace of an answer, for each that waits for an answer."""

OUR_PROGRAM = "our program"
_OUR_SECTIONS = {"chunking", "retrieval", "reader", "language_model"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated, and how it is asked.

    Attributes:
        name: what runs of it are called.
        description: what it is, for a person, in a few words.
        identity: everything that its answers depend on, as far as it is known.
        parameters: what MLflow shows of it.
        open: makes it ready to be asked, for as long as the context lasts.
        k: how many passages it retrieves; None where only its traces tell.
        documents: the URIs of the documents that it can find; None where they are not known.
        threads: how many questions may be under way at once; None where the settings' number says it.
        is_ours: whether it is the program that the settings describe.
    """

    name: str
    description: str
    identity: Mapping[str, Any]
    parameters: Mapping[str, Any]
    open: Callable[[], AbstractContextManager[Agent]]
    k: int | None = None
    documents: Collection[str] | None = None
    threads: int | None = None
    is_ours: bool = False


def find_subject(settings: Settings) -> Subject:
    """What the settings say is to be evaluated. Nothing is asked or loaded yet.

    Raises:
        ConfigurationError: if the agent's URI is of no kind that we know.
        AgentError: if there is no agent.
        RetrievalError: if our own program lacks its index.
        StorageError: if a model is to come from a store that cannot be reached.
    """
    uri = settings.evaluation.agent.uri
    match uri and urlsplit(uri).scheme:
        case None:
            return _our_program(settings)
        case "models" | "runs" | "":
            return _logged_model(uri or "", settings)
        case "http" | "https":
            return _endpoint(uri or "", settings)
        case "endpoints":
            return _workspace_endpoint(uri or "", settings)
        case scheme:
            raise ConfigurationError(
                f"--agent {uri}: {scheme}: is no kind of agent that can be asked. Give models:/…, runs:/…, a "
                "model's directory, http(s)://…, or endpoints:/<name> for an endpoint of the Databricks workspace."
            )


def retriever_mappings(settings: EvaluationSettings) -> RetrieverMappings:
    """What is configured of the rows of RETRIEVER spans, by span; empty where nothing is."""
    configured = dict(settings.retriever_schemas)
    if settings.retriever_schema is not None:
        configured[ANY_SPAN] = settings.retriever_schema
    return {name: RetrieverMapping(**schema.model_dump()) for name, schema in configured.items()}


def _our_program(settings: Settings) -> Subject:
    reader = str(settings.language_model.model) if settings.answers_with_lm else "extractive"

    @contextmanager
    def build() -> Iterator[Agent]:
        with _recorded_calls(settings) as calls:
            yield CiteqaAgent(settings, record_in=calls, limit_rate=True).predict

    return Subject(
        name=reader.replace("/", "-"),
        description=OUR_PROGRAM,
        identity=run_identity(settings, corpus_hash(settings)),
        parameters=settings.model_dump(include=_OUR_SECTIONS),
        open=build,
        k=settings.retrieval.k if settings.program.kind == "fixed" else None,
        documents=known_documents(settings),
        is_ours=True,
    )


def _logged_model(uri: str, settings: Settings) -> Subject:
    model = find_model(uri, settings.tracking)
    agent = settings.evaluation.agent
    api = _api_of(model, agent)

    @contextmanager
    def load() -> Iterator[Agent]:
        with load_in_process(model.directory, settings.tracking.uri) as process:
            yield _asked_by(process.ask, api, agent)

    return Subject(
        name=model.name,
        description=f"the model {model.uri}",
        open=load,
        documents=_configured_documents(settings),
        **_identified(settings, {"uri": model.uri, "digest": model.digest, "api": api}),
    )


def _api_of(model: LoggedModel, agent: OtherAgentSettings) -> str:
    api = model.api if agent.api == "auto" else agent.api
    if api is None:
        takes = f"its input is {', '.join(model.takes)}" if model.takes else "it has no signature"
        raise AgentError(
            f"'{model.uri}' is no agent that can be asked: {takes}. An agent takes `input` (ResponsesAgent) or "
            "`messages` (ChatAgent, ChatModel). If it does take one of these, say so with "
            "--set evaluation.agent.api=responses or chat."
        )
    return api


def _endpoint(uri: str, settings: Settings) -> Subject:
    agent = settings.evaluation.agent
    traces = StoredTraces(settings.tracking.uri, agent.trace_wait_s)
    at_once = settings.evaluation.threads
    endpoint = Endpoint(uri, agent, traces, at_once=at_once)
    info = endpoint.info()
    api = "responses" if agent.api == "auto" else agent.api
    parts = urlsplit(endpoint.url)
    return Subject(
        name=f"{parts.netloc}{parts.path.removesuffix('/invocations')}".replace("/", "-").replace(":", "-"),
        description=f"the agent at {endpoint.url}",
        open=lambda: nullcontext(_asked_by(endpoint.ask, api, agent)),
        documents=_configured_documents(settings),
        threads=_WAITING_FOR_EACH_ASKED * at_once,
        **_identified(settings, {"url": endpoint.url, "info": info, "api": api}),
    )


def _workspace_endpoint(uri: str, settings: Settings) -> Subject:
    served = find_served(uri)
    agent = settings.evaluation.agent
    traces = StoredTraces(settings.tracking.uri, agent.trace_wait_s)
    at_once = settings.evaluation.threads
    endpoint = Endpoint(
        served.url, agent, traces, at_once=at_once, credentials=lambda: open_workspace().headers()
    )
    api = served.api if agent.api == "auto" else agent.api
    return Subject(
        name=served.name,
        description=f"the endpoint {served.name} of {urlsplit(served.url).netloc}",
        open=lambda: nullcontext(_asked_by(endpoint.ask, api, agent)),
        documents=_configured_documents(settings),
        threads=_WAITING_FOR_EACH_ASKED * at_once,
        **_identified(settings, {"url": served.url, "served": served.entities, "api": api}),
    )


def _identified(settings: Settings, agent: Mapping[str, Any]) -> dict[str, Any]:
    """The identity and the parameters of an agent that is not ours: none of our own settings is among them."""
    asked = settings.evaluation.agent
    known = {**agent, "label": asked.label, "custom_inputs": asked.custom_inputs}
    return {"identity": {"agent": known}, "parameters": {"agent": known}}


def _configured_documents(settings: Settings) -> Collection[str] | None:
    """Where an index is named on purpose, it is taken for that of the agent's documents."""
    if "index" not in settings.retrieval.model_fields_set:
        return None
    return known_documents(settings)


def _asked_by(ask: Callable[[Mapping[str, Any]], Reply], api: str, agent: OtherAgentSettings) -> Agent:
    """An agent of one of the two interfaces as one that takes our requests."""
    more = {"custom_inputs": agent.custom_inputs} if agent.custom_inputs else {}

    def answer(request: ResponsesAgentRequest) -> Reply:
        messages = [
            {"role": turn["role"], "content": turn["content"]} for turn in request.model_dump()["input"]
        ]
        return ask({"input" if api == "responses" else "messages": messages, **more})

    return answer


@contextmanager
def _recorded_calls(settings: Settings) -> Iterator[ContentStore | None]:
    """The language-model calls of all runs, open; None where there are to be none."""
    if not (settings.answers_with_lm and settings.language_model.cache):
        yield None
        return
    # A language model that is not usable is refused before anything is on the disk.
    build_lm(settings.language_model)
    with ContentStore(Path(settings.evaluation.results) / CALLS_FILE) as calls:
        yield calls

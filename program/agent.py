"""The agent: an MLflow `ResponsesAgent` whose answers carry their sources.

`CitingAgent` puts any `Answerer` behind the interface that MLflow Model Serving, Databricks' Playground
and the Responses API share; ours is one, an agent of your own can be another.
"""

from __future__ import annotations

import contextvars
import json
import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
from mlflow.entities import LiveSpan, NoOpSpan, SpanStatus, SpanStatusCode
from mlflow.pyfunc.model import PythonModelContext, ResponsesAgent
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
)

from program.assembly import DEFAULT_PROGRAM, build_programs
from program.content_store import ContentStore
from program.memory.opening import open_store
from program.memory.remembering import Memory, conversation_of
from program.responses import (
    CustomInputs,
    parse_custom_inputs,
    parse_turn,
    render_events,
    render_response,
)
from program.settings import Settings, validate_settings
from program.streaming import StreamAbandonedError
from program.types import Answerer, CitedAnswer, Emit, Piece, Turn
from retrieval.asking_user import asking_for, invoker_token, user_token
from retrieval.errors import RequestError
from retrieval.tracing import RETRIEVERS_TAG, declare_retriever_schema, retriever_schema
from retrieval.types import CorpusRetriever

INDEX_ARTIFACT, EMBEDDER_ARTIFACT, RERANKER_ARTIFACT = "index", "embedder", "reranker"
CALIBRATION_ARTIFACT = "calibration"

_RETRIEVERS = json.dumps([retriever_schema()])


class CitingAgent(ResponsesAgent):
    """Any answerer behind the Responses interface, whole and streamed.

    Stateless: everything of a conversation comes with the request, or from `memory`, so any replica can serve any
    turn, and one agent serves many threads. Both ways of calling share one synchronous core.
    """

    def __init__(self, answerers: Answerer | Mapping[str, Answerer], memory: Memory | None = None) -> None:
        """`answerers` by the name that a request's `custom_inputs.program` asks for; `default` is required.

        With `memory`, a request that names its conversation goes on with it.
        """
        self.memory = memory
        self._answerers = answerers if isinstance(answerers, Mapping) else {DEFAULT_PROGRAM: answerers}
        declare_retriever_schema()

    # MLflow declares these twice, in PythonModel as (context, model_input, params): hence the ignores.
    def predict(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """The whole answer.

        Raises:
            RequestError: if the request cannot be answered as it was put.
            RetrievalError, LanguageModelError, StorageError: if a part fails.
        """
        return render_response(self.respond(request), new_item_id())

    def predict_stream(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """The answer as it is written: text deltas, annotations, and the finished item.

        Closing the generator stops the answerer at its next piece and ends the trace as cancelled.

        Raises:
            RequestError, RetrievalError, LanguageModelError: as `predict`; what was streamed stays said.
        """
        answerer, turn = self._read(request)
        span = mlflow.get_current_active_span()
        # Left before a piece is read: the conversation has a copy of the context.
        with _on_behalf_of_the_user():
            conversation = _Conversation(answerer, turn)
        try:
            yield from render_events(conversation.pieces(), conversation.answer(), new_item_id())
        except GeneratorExit:
            # MLflow's wrapper leaves the span of an abandoned generator open, and the trace unfinished.
            if span is not None:
                span.end(status=SpanStatus(SpanStatusCode.ERROR, "cancelled: the client left"))
            raise
        finally:
            conversation.abandon()

    def respond(self, request: ResponsesAgentRequest, emit: Emit | None = None) -> CitedAnswer:
        """The answer in our nouns; with `emit`, its pieces as they come. What `predict` and our server render.

        No span is opened here: the caller's is the AGENT span.

        Raises:
            RequestError, RetrievalError, LanguageModelError: as `predict`.
        """
        answerer, turn = self._read(request)
        with _on_behalf_of_the_user():
            return answerer(turn, emit)

    def _read(self, request: ResponsesAgentRequest) -> tuple[Answerer, Turn]:
        custom = parse_custom_inputs(request.custom_inputs)
        turn = parse_turn(request, custom)
        _note_conversation(request, custom)
        name = custom.program or DEFAULT_PROGRAM
        if name not in self._answerers:
            raise RequestError(
                f"custom_inputs: program = {name!r} is not there. Known: {', '.join(self._answerers)}."
            )
        answerer = self._answerers[name]
        if self.memory is not None and (conversation := conversation_of(request, custom)) is not None:
            answerer = self.memory.remembering(answerer, conversation)
        return answerer, turn


class CiteqaAgent(CitingAgent):
    """Our program, built from settings when it is first needed: at once locally, on load when served."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        retriever: CorpusRetriever | None = None,
        record_in: ContentStore | None = None,
        limit_rate: bool = False,
    ) -> None:
        """Without a `retriever`, the index is searched as it is now, whatever becomes of it.

        `record_in` and `limit_rate` are as `build_program` takes them: for commands that ask many questions.
        """
        super().__init__({})
        if settings is not None:
            self._build(settings, retriever, record_in=record_in, limit_rate=limit_rate)

    def load_context(self, context: PythonModelContext) -> None:
        """Take the configuration, the index and the models that were logged with the agent."""
        config = dict(context.model_config or {})
        artifacts = context.artifacts or {}
        retrieval = dict(config.get("retrieval", {}))
        if INDEX_ARTIFACT in artifacts:  # an index in a workspace or a database stays where it is
            retrieval["index"] = artifacts[INDEX_ARTIFACT]
        config["retrieval"] = _with_logged(retrieval, "rerank", artifacts)
        config = _with_logged(config, "embedder", artifacts)
        reader = config.get("reader", {})
        calibration = reader.get("calibration")
        config["reader"] = {**reader, "calibration": artifacts.get(calibration, calibration)}
        program = config.get("program", {})
        # By its artifact is named what was logged; anything else was named when the model was loaded.
        states = {name: artifacts.get(source, source) for name, source in program.get("states", {}).items()}
        config["program"] = {**program, "states": states}
        config["tracking"] = {"uri": mlflow.get_tracking_uri()}
        self._build(validate_settings([("model_config", config)]))

    def _build(
        self,
        settings: Settings,
        retriever: CorpusRetriever | None = None,
        *,
        record_in: ContentStore | None = None,
        limit_rate: bool = False,
    ) -> None:
        if settings.answers_with_lm:
            mlflow.dspy.autolog()
        programs = build_programs(settings, retriever, record_in=record_in, limit_rate=limit_rate)
        self._answerers = {name: program.respond for name, program in programs.items()}
        if (store := open_store(settings.memory)) is not None:
            self.memory = Memory(store, settings.memory.recalled_messages)


def _with_logged(section: Mapping[str, Any], name: str, artifacts: Mapping[str, str]) -> dict[str, Any]:
    """The section with the model of the one within it at its place, where it is named as an artifact."""
    within = section.get(name) or {}
    artifact, _, file = str(within.get("model") or "").partition("/")
    if artifact not in artifacts:
        return dict(section)
    return {**section, name: {**within, "model": str(Path(artifacts[artifact]) / file)}}


class _Conversation:
    """Runs an answerer in a thread of its own, in a copy of this context, and hands its pieces over.

    A thread, because the answerer pushes while a generator is pulled; a copied context, so that its spans
    are children of the caller's and its DSPy settings are the caller's, and neither leaks back.
    """

    _BUFFERED_PIECES = 256

    def __init__(self, answerer: Answerer, turn: Turn) -> None:
        self._answerer = answerer
        self._turn = turn
        self._queue: queue.Queue[Piece | CitedAnswer | BaseException] = queue.Queue(self._BUFFERED_PIECES)
        self._abandoned = threading.Event()
        self._final: CitedAnswer | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="citeqa-answer", daemon=True
        )
        self._thread.start()

    def pieces(self) -> Iterator[Piece]:
        """The pieces as they come; then what the answerer raised, if it did."""
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, CitedAnswer):
                self._final = item
                return
            yield item

    def answer(self) -> Iterator[CitedAnswer]:
        """The finished answer, once, after the pieces."""
        if self._final is not None:
            yield self._final

    def abandon(self) -> None:
        """Stop the answerer at its next piece; nothing happens when it has finished."""
        self._abandoned.set()

    def _work(self) -> None:
        try:
            with suppress(StreamAbandonedError):
                self._put(self._answerer(self._turn, self._put))
        except BaseException as error:  # noqa: BLE001 - raised again where the pieces are read
            self._put_unless_abandoned(error)

    def _put(self, item: Piece | CitedAnswer | BaseException) -> None:
        while not self._abandoned.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise StreamAbandonedError

    def _put_unless_abandoned(self, error: BaseException) -> None:
        with suppress(StreamAbandonedError):
            self._put(error)


def _on_behalf_of_the_user() -> AbstractContextManager[None]:
    """Within, the user who asks is whose token came with the request, or who asks on Model Serving."""
    return asking_for(user_token() or invoker_token())


def _note_conversation(request: ResponsesAgentRequest, custom: CustomInputs) -> None:
    """Put the conversation and the user on the trace, where MLflow's session view looks for them."""
    context = request.context
    session = custom.session_id or (context.conversation_id if context else None)
    user = custom.user_id or (context.user_id if context else None)
    metadata: dict[str, Any] = {}
    if session:
        metadata["mlflow.trace.session"] = session
    if user:
        metadata["mlflow.trace.user"] = user
    if metadata and mlflow.get_current_active_span() is not None:
        mlflow.update_current_trace(metadata=metadata)


def describe_trace(
    span: LiveSpan | NoOpSpan, request: ResponsesAgentRequest, client_request_id: str
) -> str | None:
    """Put on an AGENT span of one's own, which is active, what MLflow puts on that of a loaded model.

    For whoever calls `CitingAgent.respond`. The trace's id; None where nothing is traced.
    """
    if isinstance(span, NoOpSpan):
        return None
    span.set_inputs(request.model_dump(exclude_none=True))
    span.set_attribute(SpanAttributeKey.MESSAGE_FORMAT, "openai")
    mlflow.update_current_trace(tags={RETRIEVERS_TAG: _RETRIEVERS}, client_request_id=client_request_id)
    return span.trace_id


def new_item_id() -> str:
    """An id for the one message of an answer."""
    return f"msg_{uuid4().hex}"

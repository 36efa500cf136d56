"""The server's application: MLflow's `AgentServer`, with our handlers, the playground and what operators need."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from mlflow.genai.agent_server import AgentServer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from program.agent import CitingAgent
from program.extractive import ExtractiveReader
from program.responses import CustomInputs
from program.serving import metrics as prometheus
from program.serving.admission import Admission
from program.serving.conversations import add_conversation_routes
from program.serving.documents import read_document
from program.serving.endpoint import TRACE_ID_HEADER, AnswerEndpoint
from program.serving.failures import Failure, RequestFailedError, internal_error, to_failure
from program.serving.feedback import Feedback, log_feedback
from program.serving.guard import REQUEST_ID_HEADER, Guard, request_id_of
from program.serving.metrics import Metrics
from program.serving.mlflow_pages import MlflowPages
from program.serving.readiness import ModelHealth
from program.serving.traces import TraceRecorder
from program.settings import ServingSettings
from program.trace_capture import traces_in_memory
from retrieval.asking_user import USER_TOKEN_HEADER, asking_for
from retrieval.errors import CiteqaError
from retrieval.types import CorpusRetriever

logger = logging.getLogger(__name__)

ANSWER_PATHS = ("/responses", "/v1/responses", "/invocations")
_PLAYGROUND = Path(str(resources.files("program") / "playground"))
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NOT_OURS = ("/docs", "/redoc", "/docs/oauth2-redirect", *ANSWER_PATHS)
"""Routes of the agent server that are left out: pages that load scripts from elsewhere, and what we answer."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is behind a server; all but `agent` and `reader` may be missing, and then so is what needs it.

    `reader` names who answers, as `CitedAnswer.reader` does. `index` is what documents are shown from: a
    retriever's as it is then. `recorder` is what keeps traces, `pages` where MLflow shows them, `health` what
    is known of the language model, `token` what requests must bear, and `user_header` where a proxy says who asks.
    """

    agent: CitingAgent
    reader: str
    programs: tuple[str, ...] = ("default",)
    k: int = 5
    index: CorpusRetriever | None = None
    recorder: TraceRecorder | None = None
    pages: MlflowPages | None = None
    health: ModelHealth | None = None
    token: str | None = None
    user_header: str | None = None


def create_app(served: Served, settings: ServingSettings | None = None) -> ASGIApp:
    """The ASGI application that serves an agent, for any ASGI server with one event loop.

    It begins when its lifespan does, and ends with what is under way finished.
    """
    settings = settings or ServingSettings()
    return _Server(served, settings).build()


class _Server:
    def __init__(self, served: Served, settings: ServingSettings) -> None:
        self._served = served
        self._settings = settings
        self._metrics = Metrics()
        self._admission = Admission(settings.max_concurrent, settings.max_queued, settings.queue_timeout_s)
        self._executor = ThreadPoolExecutor(settings.max_concurrent, thread_name_prefix="citeqa-answer")
        self._is_ending = False

    def build(self) -> ASGIApp:
        app = AgentServer("ResponsesAgent").app
        app.router.lifespan_context = self._lifespan
        # A redirect to the path without its last slash would go to whatever host the client names.
        app.router.redirect_slashes = False
        app.router.routes = [
            route for route in app.router.routes if getattr(route, "path", "") not in _NOT_OURS
        ]
        endpoint = AnswerEndpoint(
            self._served.agent,
            model=self._served.reader,
            admission=self._admission,
            executor=self._executor,
            deadline_s=self._settings.deadline_s,
            metrics=self._metrics,
            health=self._served.health,
            user_header=self._served.user_header,
        )
        app.router.routes += [Route(path, endpoint, methods=["POST"]) for path in ANSWER_PATHS]
        self._add_routes(app)
        if (memory := self._served.agent.memory) is not None:
            add_conversation_routes(app, memory.store, self._served.user_header)
        _answer_errors_as_json(app)
        self._watch()
        guarded: ASGIApp = Guard(
            app,
            token=self._served.token,
            max_body_bytes=int(self._settings.max_body_mb * 2**20),
            metrics=self._metrics,
        )
        if self._settings.cors_origins:
            guarded = CORSMiddleware(
                guarded,
                allow_origins=list(self._settings.cors_origins),
                allow_methods=["DELETE", "GET", "POST"],
                allow_headers=["*"],
                expose_headers=[REQUEST_ID_HEADER, TRACE_ID_HEADER, "retry-after"],
            )
        return guarded

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(self._start_threads)
        yield
        self._is_ending = True
        await asyncio.to_thread(self._end)

    def _start_threads(self) -> None:
        """All of them now: started on demand, each would hold up the event loop until it gets its turn."""
        together = threading.Barrier(self._settings.max_concurrent)
        for started in [self._executor.submit(together.wait) for _ in range(self._settings.max_concurrent)]:
            started.result()

    def _end(self) -> None:
        deadline = time.monotonic() + self._settings.shutdown_s
        while self._admission.in_flight and time.monotonic() < deadline:
            time.sleep(0.05)  # the trace of an answer is finished after it, and of an abandoned one, too
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._served.pages:
            self._served.pages.stop()
        if self._served.recorder and (left := self._served.recorder.stop(self._settings.shutdown_s)):
            logger.warning("%d traces are not in the store yet; the next start brings them there.", left)

    def _watch(self) -> None:
        watch = self._metrics.watch
        watch("citeqa_in_flight", "Answers that are being written", lambda: self._admission.in_flight)
        watch("citeqa_queued", "Requests that wait for one of the places", lambda: self._admission.queued)
        watch("citeqa_traces_in_memory", "Traces that are not finished", traces_in_memory)
        if recorder := self._served.recorder:
            watch("citeqa_traces_pending", "Traces on their way to the store", lambda: recorder.pending)
            outcomes: dict[str, Callable[[], float]] = {
                "stored": lambda: recorder.counts.stored,
                "dropped": lambda: recorder.counts.dropped,
                "refused": lambda: recorder.counts.refused,
            }
            self._metrics.watch_count("citeqa_traces", "What became of the traces", outcomes)

    def _add_routes(self, app: FastAPI) -> None:
        served = self._served

        @app.get("/ready")
        def ready() -> JSONResponse:
            """Whether answers can be given now, and what stands against it."""
            trouble = self._trouble()
            body = {
                "status": "not ready" if trouble else "ready",
                "reader": served.reader,
                "trouble": trouble,
            }
            return JSONResponse(body, 503 if trouble else 200)

        @app.get("/metrics")
        def metrics() -> Response:
            """Counters in Prometheus' text format."""
            return Response(self._metrics.render(), media_type=prometheus.CONTENT_TYPE)

        @app.get("/api/playground")
        def playground() -> dict[str, Any]:
            """What the page must know of this server."""
            return self._describe()

        @app.get("/api/document")
        def document(request: Request, uri: str, chunk: str | None = None) -> dict[str, Any]:
            """The text of an indexed document, and where the passage is in it."""
            if served.index is None:
                raise RequestFailedError(Failure(404, "document_unknown", "This server shows no documents."))
            with asking_for(request.headers.get(USER_TOKEN_HEADER)):
                return read_document(served.index, uri, chunk)

        @app.post("/api/feedback")
        def feedback(said: Feedback) -> dict[str, str]:
            """Put a person's feedback on the trace of an answer."""
            assessment_id = log_feedback(said, served.recorder)
            self._metrics.feedback.labels("up" if said.value else "down").inc()
            return {"assessment_id": assessment_id}

        @app.get("/api/trace-link")
        def trace_link(trace_id: str) -> dict[str, str]:
            """Where MLflow shows a trace."""
            if served.pages is None:
                raise RequestFailedError(Failure(503, "tracing_off", "This server keeps no traces."))
            if served.recorder is not None:
                served.recorder.wait_for(trace_id, timeout_s=10)
            return {"url": served.pages.link(trace_id)}

        @app.get("/", include_in_schema=False)
        def page() -> Response:
            return _page_file("index.html")

        @app.get("/playground/{name}", include_in_schema=False)
        def asset(name: str) -> Response:
            return _page_file(name)

    def _trouble(self) -> list[str]:
        trouble = ["The server is ending."] if self._is_ending else []
        if self._served.index is not None and (reason := self._served.index.facts().trouble):
            trouble.append(reason)
        if self._served.health is not None and (reason := self._served.health.trouble()):
            trouble.append(reason)
        return trouble

    def _describe(self) -> dict[str, Any]:
        served = self._served
        facts = None if served.index is None else served.index.facts()
        return {
            "reader": served.reader,
            "extractive": served.reader == ExtractiveReader.name,
            "programs": list(served.programs),
            "k": served.k,
            "index": facts and {"documents": facts.documents, "passages": facts.passages},
            "languages": list(facts.languages) if facts else [],
            "examples": list(self._settings.examples),
            "auth": served.token is not None,
            "tracing": served.recorder is not None,
            "custom_inputs": CustomInputs.model_json_schema(),
            "version": metadata.version("citeqa"),
        }


def _page_file(name: str) -> Response:
    """A file of the playground; nothing else of the disk."""
    # Found by looking at what is there, so that no made-up name reaches the file system.
    path = next((file for file in _PLAYGROUND.iterdir() if file.name == name), None)
    media_type = _PAGE_TYPES.get(path.suffix) if path else None
    if path is None or media_type is None:
        raise RequestFailedError(Failure(404, "not_found", f"There is no page '{name}'."))
    return FileResponse(path, media_type=media_type, headers={"cache-control": "no-cache"})


def _answer_errors_as_json(app: FastAPI) -> None:
    """The same shape for every error, whoever found it."""

    @app.exception_handler(RequestFailedError)
    async def failed(_: Request, error: RequestFailedError) -> JSONResponse:
        return _as_json(error.failure)

    @app.exception_handler(CiteqaError)
    async def refused(_: Request, error: CiteqaError) -> JSONResponse:
        return _as_json(to_failure(error) or Failure(500, "internal_error", str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        return _as_json(Failure(400, "bad_request", f"{place}: {problem['msg']}."))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return _as_json(Failure(error.status_code, code, f"{error.detail}."), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> JSONResponse:
        return _as_json(internal_error(request_id_of(request.scope)))  # raised on to the guard, which logs it


def _as_json(failure: Failure, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(failure.body(), failure.status, {**(headers or {}), **failure.headers()})

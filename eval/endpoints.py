"""Ask an agent over HTTP, and get what it traced: in the response itself, or by its id from the tracking store.

Databricks Model Serving returns the trace when the request says `databricks_options.return_trace`, as
`databricks_output.trace`. MLflow's AgentServer, and `citeqa serve`, return its id when a header asks for it,
as `metadata.trace_id`. Each request asks for both.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import mlflow
import requests
from mlflow.entities import Trace, TraceState
from mlflow.exceptions import MlflowException
from mlflow.genai.agent_server.server import RETURN_TRACE_HEADER
from mlflow.tracing.constant import (
    DATABRICKS_OPTIONS_KEY,
    DATABRICKS_OUTPUT_KEY,
    RETURN_TRACE_OPTION_KEY,
    TRACE_SCHEMA_VERSION_KEY,
)
from sqlalchemy.exc import SQLAlchemyError
from urllib3.util.retry import Retry

from eval.replies import Reply, duration_ms
from program.lm_errors import hide_secrets
from program.responses import shorten
from program.settings import OtherAgentSettings
from retrieval.errors import AgentError, ConfigurationError
from retrieval.workspace_errors import ADVICE

TOKEN_VARIABLE = "CITEQA_AGENT_TOKEN"

_BUSY = (429, 503)
_LONGEST_PAUSE_S = 60
_DESCRIPTION_WAIT_S = 10
"""How long a trace whose spans are there may lack what MLflow sends apart from them, its tags and its time among it.

What comes over OpenTelemetry never has it.
"""
_CONNECT_TIMEOUT_S = 10
_REASON_CHARACTERS = 300
_ADVICE = {
    401: f"Set {TOKEN_VARIABLE} to a bearer token that it takes.",
    403: f"Set {TOKEN_VARIABLE} to a bearer token that may ask it.",
    404: "Is the path right? Agents answer at /invocations or /responses.",
    429: "It is busy: lower evaluation.threads, or raise evaluation.agent.num_retries.",
}

_WORKSPACE_ADVICE = {
    401: ADVICE["auth"],
    403: "Whoever evaluates it needs CAN_QUERY on the endpoint.",
    404: "Is the endpoint's name right, and this its workspace?",
    429: _ADVICE[429],
}


class Endpoint:
    """An agent at an address. Safe to ask from many threads at once."""

    def __init__(
        self,
        url: str,
        settings: OtherAgentSettings,
        traces: StoredTraces,
        *,
        at_once: int = 1,
        credentials: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        """`url` without a path is that of a server of agents, which answers at `/invocations`.

        `credentials` gives the headers that sign in to it, anew for each request; by default the token of the
        environment, if there is one.

        It is asked `at_once` questions at the same time. A thread that waits for a trace holds none of these places:
        MLflow brings traces to their store in batches, seconds after the answer.

        Raises:
            ConfigurationError: if the address is none, or holds a password.
        """
        self.url = _address(url)
        self._settings = settings
        self._traces = traces
        self._session = _session(settings.num_retries)
        self._credentials = credentials or _headers
        self._advice = _ADVICE if credentials is None else _WORKSPACE_ADVICE
        self._places = threading.Semaphore(at_once)

    def info(self) -> dict[str, Any]:
        """What the server says of its agent at `/agent/info`; empty where it says nothing.

        Raises:
            AgentError: if nothing answers at the address.
        """
        place = f"{self.url.rpartition('/')[0]}/agent/info"
        try:
            # Whether anybody is there is to be known at once, so no retries.
            response = requests.get(
                place,
                headers=self._credentials(),
                timeout=_CONNECT_TIMEOUT_S,
                auth=_as_it_is,
                allow_redirects=False,
            )
            said = response.json() if response.status_code == 200 else {}
        except requests.JSONDecodeError:
            return {}
        except requests.RequestException as error:
            raise AgentError(_unreachable(self.url, error)) from error
        return said if isinstance(said, dict) else {}

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """The agent's answer to a request as JSON has it, with its trace.

        Raises:
            AgentError: if it does not answer, or answers without a trace, or the trace is not in the store.
        """
        with self._places:
            said = self._post({**body, DATABRICKS_OPTIONS_KEY: {RETURN_TRACE_OPTION_KEY: True}})
        trace, stored = self._trace_of(said)
        return Reply(said, (trace,), duration_ms(trace), stored=stored)

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._session.post(
                self.url,
                json=body,
                headers={**self._credentials(), RETURN_TRACE_HEADER: "true"},
                timeout=(_CONNECT_TIMEOUT_S, self._settings.timeout_s),
                auth=_as_it_is,
                allow_redirects=False,
            )
        except requests.ReadTimeout as error:
            raise AgentError(
                f"{self.url} did not answer in {self._settings.timeout_s:g} s. Raise evaluation.agent.timeout_s."
            ) from error
        except requests.RequestException as error:
            raise AgentError(_unreachable(self.url, error)) from error
        if response.status_code != 200:
            raise AgentError(_refusal(self.url, response, self._advice))
        try:
            said = response.json()
        except requests.JSONDecodeError as error:
            raise AgentError(f"{self.url} answered with no JSON: {_shown(response.text)}") from error
        if not isinstance(said, dict):
            raise AgentError(f"{self.url} answered with no JSON object: {_shown(response.text)}")
        return said

    def _trace_of(self, said: Mapping[str, Any]) -> tuple[Trace, bool]:
        inline = (said.get(DATABRICKS_OUTPUT_KEY) or {}).get("trace")
        if inline:
            return _parse_trace(self.url, inline), False
        trace_id = (said.get("metadata") or {}).get("trace_id")
        if trace_id:
            return self._traces.fetch(str(trace_id)), True
        raise AgentError(
            f"{self.url} answered without a trace, so what it retrieved is not known. MLflow's AgentServer gives "
            'its id when it serves as AgentServer("ResponsesAgent") with tracing enabled; a Databricks endpoint '
            "returns it when its agent is traced by MLflow. Or score what it traced: citeqa eval --traces"
        )


class StoredTraces:
    """Traces that a server writes to a tracking store, soon after it has answered."""

    def __init__(self, tracking_uri: str, wait_s: float) -> None:
        self._uri = tracking_uri
        self._wait_s = wait_s
        self._client = mlflow.MlflowClient(tracking_uri=tracking_uri)

    def fetch(self, trace_id: str) -> Trace:
        """A finished trace; waits for it to arrive.

        Raises:
            AgentError: if it is not there in time.
        """
        deadline, pause_s = time.monotonic() + self._wait_s, 0.1
        whole: Trace | None = None
        while True:
            trace, reason = self._look(trace_id)
            if trace is not None and TRACE_SCHEMA_VERSION_KEY in trace.info.trace_metadata:
                return trace
            if trace is not None and whole is None:
                whole, deadline = trace, min(deadline, time.monotonic() + _DESCRIPTION_WAIT_S)
            if time.monotonic() > deadline:
                if whole is not None:
                    return whole
                raise AgentError(
                    f"The trace {trace_id} of the answer is not in the tracking store '{self._uri}' after "
                    f"{self._wait_s:g} s ({reason}). Name the store that the agent writes to with "
                    "--set tracking.uri=…, or raise evaluation.agent.trace_wait_s."
                )
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, 2.0)

    def _look(self, trace_id: str) -> tuple[Trace | None, str]:
        try:
            trace = self._client.get_trace(trace_id, display=False)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            return None, str(error).partition("\n")[0].rstrip(".")
        if trace is None or not _is_whole(trace):
            return None, "it is not finished"
        return trace, ""


def _is_whole(trace: Trace) -> bool:
    """Whether all of its spans have arrived: MLflow sends them in batches, as they end, and the root last."""
    spans = trace.data.spans
    known = {span.span_id for span in spans}
    return (
        trace.info.state != TraceState.IN_PROGRESS
        and any(span.parent_id is None for span in spans)
        and all(span.end_time_ns and (span.parent_id is None or span.parent_id in known) for span in spans)
    )


class _Patience(Retry):
    """Retries that wait as long as the server asks, within reason."""

    def get_retry_after(self, response: Any) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_PAUSE_S)


def _session(num_retries: int) -> requests.Session:
    # An answer that was begun and not received is not asked for again: it would be paid for twice.
    retries = _Patience(
        total=num_retries,
        read=False,
        other=0,
        redirect=0,
        status_forcelist=_BUSY,
        allowed_methods=None,
        backoff_factor=0.5,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=64, max_retries=retries))
    return session


def _address(url: str) -> str:
    parts = urlsplit(url)
    try:
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        raise ConfigurationError(f"--agent {url}: no address. Write it as http://host:port/path.")
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"--agent: the address of {parts.hostname} holds a name or a password, which would be shown. "
            f"Leave it out, and set {TOKEN_VARIABLE}."
        )
    path = parts.path.rstrip("/") or "/invocations"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _headers() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _as_it_is(request: Any) -> Any:
    """No other authorization: requests would put that of a .netrc file in the place of the header."""
    return request


def _parse_trace(url: str, inline: Any) -> Trace:
    try:
        return Trace.from_json(inline) if isinstance(inline, str) else Trace.from_dict(inline)
    except (MlflowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"{url} returned a trace that this MLflow {mlflow.__version__} cannot read: {error!r}"
        ) from error


def _unreachable(url: str, error: Exception) -> str:
    return hide_secrets(f"Nothing answers at {url}: {_root_of(error)}. Is it running, and the address right?")


def _root_of(error: BaseException) -> str:
    """The reason at the bottom of what the layers of a client make of it."""
    reason: Any = error
    while inner := getattr(reason, "reason", None) or (reason.args[0] if reason.args else None):
        if not isinstance(inner, BaseException):
            break
        reason = inner
    return shorten(str(reason).rpartition(": ")[2].rstrip("."), _REASON_CHARACTERS)


def _refusal(url: str, response: Any, advice: Mapping[int, str]) -> str:
    status = response.status_code
    return hide_secrets(
        f"{url} answered {status}: {_shown(_reason(response))} {advice.get(status, '')}"
    ).strip()


def _reason(response: Any) -> str:
    """What an error says: OpenAI, Databricks and FastAPI each have a field for it."""
    try:
        said = response.json()
    except requests.JSONDecodeError:
        return str(response.text or response.reason)
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    found = [
        said[name] for name in ("message", "detail", "error") if isinstance(said, dict) and said.get(name)
    ]
    return str(found[0]) if found else str(response.text)


def _shown(text: str) -> str:
    return hide_secrets(shorten(" ".join(text.split()), _REASON_CHARACTERS))

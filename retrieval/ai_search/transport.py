"""What Databricks' AI Search client lacks, put under it: time limits, credentials of any kind, Retry-After.

The client (0.81) sends through one `requests` session a thread, without a time limit; it retries by itself, deaf to
any deadline, and its errors do not carry the answer's headers; and of all the ways into a workspace it knows tokens
and service principals alone. So the sessions that it will use get an adapter of ours, which does all that and
changes nothing else of what it sends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError, ReadTimeoutError

_CONNECT_S = 3.05
_CONNECTIONS = 64
_PART_BYTES = 1 << 16
_RETRIES = (0, 3)
"""The numbers of retries that the client's methods ask for; a session belongs to each."""


@dataclass(slots=True)
class Exchange:
    """One attempt: when it must be over, the headers that authenticate it, and what it was asked to wait."""

    deadline: float
    headers: Mapping[str, str]
    retry_after: str | None = None


_current: ContextVar[Exchange | None] = ContextVar("ai_search_exchange", default=None)


@contextmanager
def exchange(timeout_s: float, headers: Mapping[str, str]) -> Iterator[Exchange]:
    """Within, what the client sends from this thread is over in time, and is authenticated by these headers.

    Without headers, it is as the client authenticates it. `requests.Timeout` is raised when time is up.
    """
    _prepare_sessions()
    current = Exchange(time.monotonic() + timeout_s, headers)
    before = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(before)


def _prepare_sessions() -> None:
    """Mount our adapter in the sessions of this thread."""
    from databricks.ai_search.utils import _cached_get_request_session

    process_id = os.getpid()
    adapter = _adapter(process_id)
    for retries in _RETRIES:
        # The very arguments of the client: its cache then gives the session that it will use itself.
        session: requests.Session = _cached_get_request_session(
            total_retries=retries,
            backoff_factor=1.0,
            backoff_jitter=0.2,
            process_id=process_id,
            thread_id=threading.get_ident(),
        )
        if session.adapters.get("https://") is not adapter:
            # It would read all of the environment at each request, a fifth of what the client costs.
            session.trust_env = False
            session.mount("https://", adapter)
            session.mount("http://", adapter)


@lru_cache(maxsize=1)
def _adapter(process_id: int) -> _Adapter:
    """One for all threads of a process, so that they share its open connections."""
    return _Adapter(pool_connections=8, pool_maxsize=_CONNECTIONS, max_retries=0)


class _Adapter(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["proxies"] = _proxies(*urlsplit(request.url or "")[:2])
        if kwargs.get("verify") is True:
            kwargs["verify"] = _certificates()
        current = _current.get()
        if current is None:
            return super().send(request, *args, **kwargs)
        request.headers.update(current.headers)
        left_s = max(current.deadline - time.monotonic(), 0.001)
        response = super().send(
            request, *args, **{**kwargs, "stream": True, "timeout": (min(_CONNECT_S, left_s), left_s)}
        )
        current.retry_after = response.headers.get("Retry-After")
        _read_in_time(response, current.deadline)
        return response


@lru_cache(maxsize=64)
def _proxies(scheme: str, host: str) -> dict[str, str]:
    """The proxies that the environment names for a host."""
    return dict(get_environ_proxies(f"{scheme}://{host}"))


@lru_cache(maxsize=1)
def _certificates() -> str | bool:
    """The certificates that the environment names, as requests reads it."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def _read_in_time(response: requests.Response, deadline: float) -> None:
    """Read the whole body: a limit on silence alone never ends a server that sends a byte now and then."""
    parts = []
    # One read of the socket each, where urllib3 can (2.3): `read` waits until so many bytes are there.
    read = getattr(response.raw, "read1", response.raw.read)
    try:
        while part := read(_PART_BYTES, decode_content=True):
            parts.append(part)
            if time.monotonic() > deadline:
                raise requests.exceptions.ReadTimeout("the answer was not complete in time")
        response.raw.release_conn()
    except ReadTimeoutError as error:
        response.close()
        raise requests.exceptions.ReadTimeout(error) from error
    except HTTPError as error:
        response.close()
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except requests.exceptions.ReadTimeout:
        response.close()
        raise
    # Where requests itself keeps what it has read.
    response._content = b"".join(parts)
    response._content_consumed = True

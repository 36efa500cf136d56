"""A language model that follows stated rules, behind OpenAI's chat completions on 127.0.0.1: a test double of the wire.

    python tests/eval/compiling/rule_following_model.py [--delay-ms 20] [--faults '{"error_share": 0.1}']

prints its address (`http://127.0.0.1:<port>/v1`) as one line and serves until its standard input ends. Tests take the
fixtures of `conftest.py`. What it says is decided in `model_rules` (`skills.py` has the rules); what its words mean
in `synthetic_task.py`. It is never a part of the product and imports nothing of it.

Beside `POST /v1/chat/completions` (whole and streamed, with `n`, `max_tokens`, `temperature` and usage; every other
setting is accepted and ignored) and `GET /v1/models` there are, for whoever measures from outside:
`GET /counts` (as `Counts`), `POST /forget` and `POST /faults` (a JSON object, as `Faults`).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from model_rules.answering import Knowledge
from model_rules.prompts import text_of
from model_rules.replies import Reply, reply_to
from model_rules.skills import harm_told, skills_told
from model_rules.words import chance, count_tokens, cut_to_tokens
from synthetic_task import VOCABULARY

__all__ = [
    "Counts",
    "Faults",
    "Knowledge",
    "Recorded",
    "RuleFollowingModel",
    "harm_told",
    "listening",
    "reply_to",
    "skills_told",
]


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Shares are in [0, 1], by hashes: the same prompts fail each time.

    A request is refused with 429 beyond `requests_allowed` in a window of `every_s`, answered with `error_status`,
    delayed by `slow_s`, or has its body cut in the middle: these may pass when the same prompt is asked again.
    A garbled completion has no field that was asked for, however often that prompt is asked.
    """

    requests_allowed: int | None = None
    every_s: float = 1.0
    error_share: float = 0.0
    error_status: int = 500
    slow_share: float = 0.0
    slow_s: float = 0.5
    cut_share: float = 0.0
    garbled_share: float = 0.0


@dataclass(slots=True)
class Counts:
    """What was asked so far. `by_kind` counts answered requests, `task` those of programs, `meta` optimizers'."""

    by_kind: Counter[str] = field(default_factory=Counter)
    task: int = 0
    meta: int = 0
    refused: int = 0
    failed: int = 0
    garbled: int = 0
    most_at_once: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def answered(self) -> int:
        return self.task + self.meta


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request that was answered: its body, and what was said."""

    body: Mapping[str, Any]
    reply: Reply

    @property
    def prompt(self) -> str:
        """All message text, system prompt first."""
        return "\n".join(map(text_of, self.body["messages"]))


class RuleFollowingModel(ThreadingHTTPServer):
    """The server. `faults` may be set at any time; `counts` and `requests` say what was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        knowledge: Knowledge | None = None,
        faults: Faults | None = None,
        *,
        delay_s: float = 0.0,
        keep_requests: bool = True,
    ) -> None:
        """`delay_s` is how long each reply takes; with `keep_requests`, `requests` grows with each."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.knowledge = knowledge or Knowledge(VOCABULARY)
        self.delay_s = delay_s
        self.lock = threading.Lock()
        self._keep_requests = keep_requests
        self._under_way = 0
        self._window = (0, 0)
        self.forget()
        self.faults = faults or Faults()

    @property
    def url(self) -> str:
        """What a client takes as its base URL or `api_base`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def forget(self) -> None:
        """As if nothing had been asked, and nothing went wrong."""
        with self.lock:
            self.faults = Faults()
            self.counts = Counts()
            self.requests: list[Recorded] = []
            self._times_asked: Counter[str] = Counter()

    def replies(self, body: Mapping[str, Any]) -> list[Reply]:
        """The `n` replies to a request, counted and recorded."""
        key = json.dumps([body["messages"], body.get("temperature")], sort_keys=True)
        wanted = body.get("n") or 1
        with self.lock:
            first = self._times_asked[key]
            self._times_asked[key] += wanted
        temperature = float(body.get("temperature") or 0)
        said = [
            self._garbled(body, reply_to(body["messages"], self.knowledge, temperature, first + number))
            for number in range(wanted)
        ]
        with self.lock:
            for reply in said:
                self.counts.by_kind[reply.kind] += 1
                self.counts.task += reply.is_task
                self.counts.meta += not reply.is_task
                if self._keep_requests:
                    self.requests.append(Recorded(body, reply))
        return said

    def refusal(self) -> float | None:
        """In how many seconds to try again, when there were too many requests; None when this one may pass."""
        allowed, every_s = self.faults.requests_allowed, self.faults.every_s
        if allowed is None:
            return None
        window, passed_s = divmod(time.monotonic(), every_s)
        with self.lock:
            before = self._window[1] if self._window[0] == window else 0
            self._window = (int(window), before + 1)
            if before < allowed:
                return None
            self.counts.refused += 1
        return every_s - passed_s

    def hits(self, fault: str, share: float, body: Mapping[str, Any]) -> bool:
        """Whether a fault befalls this request. The next one with the same prompt has another chance."""
        if not share:
            return False
        key = json.dumps([fault, body["messages"]], sort_keys=True)
        with self.lock:
            self._times_asked[key] += 1
            return chance(key, self._times_asked[key]) < share

    @contextmanager
    def counting_at_once(self) -> Iterator[None]:
        """Count a request as under way."""
        with self.lock:
            self._under_way += 1
            self.counts.most_at_once = max(self.counts.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self.lock:
                self._under_way -= 1

    def _garbled(self, body: Mapping[str, Any], reply: Reply) -> Reply:
        if chance("garbled", json.dumps(body["messages"], sort_keys=True)) >= self.faults.garbled_share:
            return reply
        with self.lock:
            self.counts.garbled += 1
        return Reply(reply.kind, "I would rather talk about something else.")


class _Handler(BaseHTTPRequestHandler):
    server: RuleFollowingModel
    protocol_version = "HTTP/1.1"
    # Else every second write on a kept connection waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        match self.path:
            case "/v1/models":
                model = {"id": "rules", "object": "model", "created": 0, "owned_by": "tests"}
                self._send(200, {"object": "list", "data": [model]})
            case "/counts":
                with self.server.lock:
                    # A counter within a dataclass is none of those that `asdict` can copy.
                    counts = {f.name: getattr(self.server.counts, f.name) for f in fields(Counts)}
                    self._send(200, counts)
            case _:
                self._fail(404, f"Nothing is at {self.path}.")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw or b"{}")
            match self.path:
                case "/v1/chat/completions":
                    with self.server.counting_at_once():
                        self._complete(_checked(body))
                case "/forget":
                    self.server.forget()
                    self._send(200, {})
                case "/faults":
                    self.server.faults = Faults(**body)
                    self._send(200, {})
                case _:
                    self._fail(404, f"Nothing is at {self.path}.")
        except (ValueError, TypeError) as error:
            self._fail(400, str(error))

    def _complete(self, body: dict[str, Any]) -> None:
        faults = self.server.faults
        if (wait_s := self.server.refusal()) is not None:
            self._fail(429, "Rate limit reached.", {"Retry-After": f"{wait_s:.3f}"})
            return
        if self.server.hits("error", faults.error_share, body):
            with self.server.lock:
                self.server.counts.failed += 1
            self._fail(faults.error_status, "The model fell over.")
            return
        slow = self.server.hits("slow", faults.slow_share, body)
        time.sleep(self.server.delay_s + faults.slow_s * slow)
        choices = [
            _choice(number, reply.text, body) for number, reply in enumerate(self.server.replies(body))
        ]
        usage = self._usage(body, choices)
        cut = self.server.hits("cut", faults.cut_share, body)
        if body.get("stream"):
            self._stream(body, choices, usage, cut)
        else:
            self._send(200, {**_head("chat.completion", body), "choices": choices, "usage": usage}, cut=cut)

    def _usage(self, body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, int]:
        asked = sum(4 + count_tokens(text_of(message)) for message in body["messages"])
        said = sum(count_tokens(choice["message"]["content"]) for choice in choices)
        with self.server.lock:
            self.server.counts.prompt_tokens += asked
            self.server.counts.completion_tokens += said
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def _stream(
        self, body: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int], cut: bool
    ) -> None:
        events = list(_events(body, choices, usage))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events[: len(events) // 2] if cut else events:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _fail(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        kind = "invalid_request_error" if status < 429 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        self._send(status, {"error": error}, headers)

    def _send(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None, *, cut: bool = False
    ) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if cut else payload)
        if cut:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def _checked(body: Any) -> dict[str, Any]:
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ValueError("'messages' must be a list of messages, and not empty.")
    if not isinstance(body.get("model"), str):
        raise ValueError("'model' must be a string.")
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 2:
        raise ValueError(f"'temperature' must be from 0 to 2, not {temperature}.")
    return dict(body)


def _choice(number: int, text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    kept = cut_to_tokens(text, most) if most else text
    reason = "stop" if kept == text else "length"
    message = {"role": "assistant", "content": kept, "refusal": None}
    return {"index": number, "message": message, "finish_reason": reason, "logprobs": None}


def _events(body: Mapping[str, Any], choices: list[dict[str, Any]], usage: dict[str, int]) -> Iterator[bytes]:
    """The events of a stream: deltas of eight characters, the reason to finish, usage where it is wanted."""
    options = body.get("stream_options") or {}
    head = _head("chat.completion.chunk", body) | ({"usage": None} if options.get("include_usage") else {})
    for choice in choices:
        text = choice["message"]["content"]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text[start : start + 8]} for start in range(0, len(text), 8)]
        for delta in deltas:
            yield _event({**head, "choices": [_delta(choice["index"], delta)]})
        yield _event({**head, "choices": [_delta(choice["index"], {}, choice["finish_reason"])]})
    if options.get("include_usage"):
        yield _event({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _delta(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _head(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-rules", "object": kind, "created": 0, "model": body["model"]}


@contextmanager
def listening(server: RuleFollowingModel) -> Iterator[RuleFollowingModel]:
    """Serve in a thread for as long as the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Print the address, and serve until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=0, help="how long each reply takes")
    parser.add_argument("--faults", type=json.loads, default={}, help="a JSON object, as Faults")
    parser.add_argument(
        "--words", type=Path, help="a JSON file: the asker's expressions, and the corpus's words"
    )
    parser.add_argument(
        "--holds-at", type=float, default=0.8, help="share of a question that its answer holds"
    )
    arguments = parser.parse_args()
    words = json.loads(arguments.words.read_text(encoding="utf-8")) if arguments.words else VOCABULARY
    server = RuleFollowingModel(
        Knowledge(words, arguments.holds_at),
        Faults(**arguments.faults),
        delay_s=arguments.delay_ms / 1000,
        keep_requests=False,
    )
    with listening(server):
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

"""One agent behind four doors gives one answer: called here, loaded by MLflow, served by it, served by us.

What may differ from call to call, and nothing else: the ids of the message and the response, `created_at`, and
the milliseconds in `custom_outputs.timings_ms`. Our own server's body holds the other fields of a Responses
object besides.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import yaml

from program.agent import CiteqaAgent
from program.settings import Settings, load_settings

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
CANARY = "sk-canary-0123456789"
START_TIMEOUT_S = 120.0

CONVERSATION = [
    {"role": "user", "content": "When does water boil?"},
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "At 100 degrees. [1]"}],
    },
    {"role": "user", "content": [{"type": "input_text", "text": "And on Everest?"}]},
]
REQUESTS: dict[str, dict[str, Any]] = {
    "English": {"input": [{"role": "user", "content": "When does water boil?"}]},
    "Japanese": {"input": [{"role": "user", "content": "富士山の高さは？山頂で水は何度で沸騰しますか？"}]},
    "a follow-up": {"input": CONVERSATION, "context": {"conversation_id": "c1", "user_id": "u1"}},
    "custom inputs": {
        "input": [{"role": "user", "content": "山頂では水が何度で沸騰しますか？"}],
        "custom_inputs": {"k": 1, "filters": {"lang": "ja"}, "program": "default", "session_id": "s"},
    },
    "unanswerable": {"input": [{"role": "user", "content": "Who is the king of Atlantis?"}]},
    "what it would stream": {"input": [{"role": "user", "content": "Iron?"}], "stream": True},
}
ENVELOPE = {
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": False,
    "tool_choice": "none",
    "tools": [],
}
"""What our server's body has besides; `usage` too, which is null there when no language model was asked."""


@dataclass(frozen=True)
class Logged:
    """A logged agent, and where `mlflow models serve` and `citeqa serve` serve it."""

    settings: Settings
    model_uri: str
    store: str
    mlflow_url: str
    citeqa_url: str

    def post(self, content: bytes, content_type: str = "application/json") -> httpx.Response:
        """What MLflow's server says to a request."""
        return _post(self.mlflow_url, content, content_type)

    def post_to_ours(self, content: bytes) -> httpx.Response:
        """What our server says to a request."""
        return _post(self.citeqa_url, content, "application/json")


def _post(url: str, content: bytes, content_type: str) -> httpx.Response:
    return httpx.post(
        f"{url}/invocations", content=content, headers={"Content-Type": content_type}, timeout=60
    )


@pytest.fixture(scope="module")
def models(
    index_path: str, lasting_language_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Logged]]:
    """The extractive agent and one with a language model, logged by `citeqa log` and served by both servers."""
    folder = tmp_path_factory.mktemp("served")
    language_model = {
        "model": "openai/test",
        "api_base": lasting_language_model.url,
        "cache": False,
        "num_retries": 0,
        "timeout_s": 10,
    }
    lasting_language_model.forget()
    lasting_language_model.fills({"answerable": True, "answer": "Yes. [1]"})
    sections: dict[str, dict[str, Any]] = {
        "extractive": {},
        "language model": {"language_model": language_model},
    }
    with _served(folder, index_path, sections) as served:
        yield served


@contextmanager
def _served(folder: Path, index: str, sections: dict[str, dict[str, Any]]) -> Iterator[dict[str, Logged]]:
    store = f"sqlite:///{folder}/mlflow.db"
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": store,
        "OPENAI_API_KEY": CANARY,
    }
    processes: list[subprocess.Popen[bytes]] = []

    def begin(log: Path, *command: str | Path) -> None:
        with log.open("wb") as file:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    served: dict[str, Logged] = {}
    try:
        for number, (name, section) in enumerate(sections.items()):
            config = folder / f"{number}.yaml"
            values = {"retrieval": {"index": index, "k": 3}, "tracking": {"uri": store}, **section}
            config.write_text(yaml.safe_dump(values))
            logged = _log(config, environment, folder)
            ports = _free_ports(2)
            serve = (BIN / "mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1")
            begin(folder / f"{number}-mlflow.log", *serve, "--model-uri", logged, "--port", str(ports[0]))
            serve = (BIN / "citeqa", "serve", "--config", config)
            begin(folder / f"{number}-citeqa.log", *serve, "--port", str(ports[1]))
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            served[name] = Logged(load_settings(config), logged, store, *urls)
        for number, logged_model in enumerate(served.values()):
            ours, theirs = processes[2 * number + 1], processes[2 * number]
            _wait_until_up(f"{logged_model.mlflow_url}/ping", theirs, folder / f"{number}-mlflow.log")
            _wait_until_up(f"{logged_model.citeqa_url}/ready", ours, folder / f"{number}-citeqa.log")
        yield served
    finally:
        for process in processes:
            _end(process)


def _log(config: Path, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        [BIN / "citeqa", "log", "--config", config],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(number)]
        for port in taken:
            port.bind(("127.0.0.1", 0))
        return [port.getsockname()[1] for port in taken]


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(15)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(params=["extractive", "language model"])
def model(
    request: pytest.FixtureRequest,
    models: dict[str, Logged],
    lasting_language_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Logged:
    logged = models[request.param]
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.store)
    lasting_language_model.forget()
    lasting_language_model.fills(
        {
            "standalone_question": "When does water boil on Everest? エベレストでは？",
            "answerable": True,
            "answer": "At 100 degrees. [1] 山頂では約88度で沸騰します。[2] On the moon, too. [9]",
        }
    )
    return logged


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """A body without what may differ, after a check that it is there."""
    body = copy.deepcopy(body)
    for item in body["output"]:
        assert item.pop("id").startswith("msg_")
    timings = body["custom_outputs"]["timings_ms"]
    assert all(isinstance(milliseconds, float) for milliseconds in timings.values())
    body["custom_outputs"]["timings_ms"] = sorted(timings)
    return body


def comparable_of_ours(body: dict[str, Any]) -> dict[str, Any]:
    """Our server's body without the fields that a Responses object has besides."""
    body = copy.deepcopy(body)
    assert body.pop("id").startswith("resp_")
    assert body.pop("created_at") == pytest.approx(time.time(), abs=60)
    assert {name: body.pop(name) for name in ENVELOPE} == ENVELOPE
    if body["usage"] is None:
        del body["usage"]
    for item in body["output"]:
        assert item.pop("status") == "completed"
    return comparable(body)


Door = Callable[[dict[str, Any]], dict[str, Any]]


def called(model: Logged) -> Door:
    agent = CiteqaAgent(model.settings)
    return lambda request: comparable(agent.predict(request).model_dump(exclude_none=True))


@pytest.mark.parametrize("name", REQUESTS)
def test_every_door_gives_the_same_answer(model: Logged, name: str) -> None:
    request = REQUESTS[name]
    local = called(model)(request)
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    assert comparable(loaded.predict(request)) == local

    response = model.post(json.dumps(request).encode())
    assert response.status_code == 200, response.text
    assert comparable(response.json()) == local

    whole = {name: value for name, value in request.items() if name != "stream"}
    response = model.post_to_ours(json.dumps(whole).encode())
    assert response.status_code == 200, response.text
    assert comparable_of_ours(response.json()) == local


def test_the_answers_that_are_compared_are_worth_comparing(model: Logged) -> None:
    door = called(model)
    english, japanese = door(REQUESTS["English"]), door(REQUESTS["Japanese"])
    assert "100 degrees" in english["output"][0]["content"][0]["text"]
    assert "沸騰" in japanese["output"][0]["content"][0]["text"]
    for body in (english, japanese):
        assert body["output"][0]["content"][0]["annotations"][0]["url"].startswith("https://docs.example/")
    follow_up = door(REQUESTS["a follow-up"])["custom_outputs"]["query"]
    assert "Everest" in follow_up
    assert "boil" in follow_up
    narrowed = door(REQUESTS["custom inputs"])["custom_outputs"]["sources"]
    assert [source["doc_uri"] for source in narrowed] == ["https://docs.example/fuji"]


@pytest.mark.parametrize("name", ["English", "Japanese", "a follow-up"])
def test_the_loaded_model_streams_as_the_agent_does(model: Logged, name: str) -> None:
    def events(stream: Iterator[Any]) -> list[dict[str, Any]]:
        taken = []
        for event in stream:
            body = event if isinstance(event, dict) else event.model_dump(exclude_none=True)
            assert (body.pop("item_id", "msg_")).startswith("msg_")
            if "custom_outputs" in body:
                body = comparable({"output": [body["item"]], "custom_outputs": body["custom_outputs"]})
            taken.append(body)
        return _joined(taken)

    local = events(CiteqaAgent(model.settings).predict_stream(REQUESTS[name]))
    assert len(local) > 2
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    assert events(loaded.predict_stream(REQUESTS[name])) == local


def _joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Text deltas next to each other as one: where a text is cut is the network's affair."""
    joined: list[dict[str, Any]] = []
    for event in events:
        if joined and event.get("type") == joined[-1].get("type") == "response.output_text.delta":
            joined[-1] = {**event, "delta": joined[-1]["delta"] + event["delta"]}
        else:
            joined.append(event)
    return joined


# What MLflow's server does with requests that cannot be answered is MLflow's own doing, and a client of a
# Databricks endpoint meets the same: HTTP 400 with `error_code` and `message`. Where the agent was asked, the
# message says that the model failed, and what our agent says of it is the last line of `stack_trace`.


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"input": []}, "input: holds no message. Send at least one with role 'user'."),
        (
            {"input": [{"role": "assistant", "content": "Hello."}]},
            "input: the last message has role 'assistant'. It must be the user's question.",
        ),
        ({"input": [{"role": "user", "content": " "}]}, "input: the question is empty. Ask something."),
        (
            {"input": [{"role": "user", "content": "q"}], "custom_inputs": {"k": "many"}},
            "custom_inputs: k = 'many': input should be a valid integer.",
        ),
        (
            {"input": [{"role": "user", "content": "q"}], "custom_inputs": {"program": "verse"}},
            "custom_inputs: program = 'verse' is not there. Known: default.",
        ),
    ],
)
def test_a_request_that_the_agent_refuses_is_a_400_with_its_reason_at_the_end(
    models: dict[str, Logged], request_: dict[str, Any], reason: str
) -> None:
    response = models["extractive"].post(json.dumps(request_).encode())
    assert response.status_code == 400
    body = response.json()
    assert body["error_code"] == "BAD_REQUEST"
    assert body["stack_trace"].strip().splitlines()[-1].startswith(f"retrieval.errors.RequestError: {reason}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"input": "When does water boil?"}', "Failed to enforce schema"),
        (b'{"question": "When does water boil?"}', "The input must be a JSON dictionary"),
        (b"[]", "The input must be a JSON dictionary"),
        (b"{", "Invalid input. Ensure that input is a valid JSON"),
        (b"\xff", "Invalid input. Ensure that input is a valid JSON"),
        (b"", "Invalid input. Ensure that input is a valid JSON"),
    ],
)
def test_a_body_that_is_no_request_is_refused_before_the_agent_is_asked(
    models: dict[str, Logged], content: bytes, message: str
) -> None:
    response = models["extractive"].post(content)
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_another_content_type_is_not_taken(models: dict[str, Logged]) -> None:
    assert models["extractive"].post(b"When?", "text/plain").status_code == 415


def test_a_language_model_that_fails_is_told_without_its_key(
    models: dict[str, Logged], lasting_language_model: Any
) -> None:
    lasting_language_model.forget()
    lasting_language_model.says(f"the key {CANARY} is wrong", status=401)
    response = models["language model"].post(json.dumps(REQUESTS["English"]).encode())
    assert response.status_code == 400
    last = response.json()["stack_trace"].strip().splitlines()[-1]
    assert last.startswith("retrieval.errors.LanguageModelError: The language model 'openai/test' failed: ")
    assert "the key $OPENAI_API_KEY is wrong" in last
    assert CANARY not in response.text

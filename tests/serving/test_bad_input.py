"""Whatever is sent: an answer or a reason in JSON, never a 500, never a stack trace, never a hang."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from program.serving.app import ANSWER_PATHS
from program.settings import Settings

SLOWEST_S = 30  # of three megabytes, on a busy machine: what is quadratic takes minutes
ROUTES = [*ANSWER_PATHS, "/api/feedback"]
KEYS = [
    "input",
    "role",
    "content",
    "type",
    "text",
    "stream",
    "custom_inputs",
    "context",
    "k",
    "filters",
    "user",
]
KEYS += [
    "metadata",
    "tools",
    "temperature",
    "program",
    "trace_id",
    "value",
    "comment",
    "id",
    "status",
    "call_id",
]
WORDS = [
    "user",
    "assistant",
    "system",
    "message",
    "input_text",
    "output_text",
    "input_image",
    "function_call",
]
WORDS += [
    "function_call_output",
    "reasoning",
    "refusal",
    "",
    "\ud83d",
    "\x00",
    "x" * 5000,
    "<script>",
    "tr-1",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 2**64, 1e308]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(WORDS),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5),
    ),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS)}, optional={"text": anything, "refusal": anything}
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | anything},
    optional={
        "content": st.text(max_size=9) | st.lists(parts, max_size=2) | anything,
        "type": st.sampled_from(WORDS) | anything,
        "id": anything,
        "status": anything,
        "arguments": anything,
        "summary": anything,
    },
)
custom_inputs = st.dictionaries(
    st.sampled_from(["k", "filters", "program", "session_id", "user_id", "other"]), anything, max_size=4
)
bodies = st.fixed_dictionaries(
    {"input": st.text(min_size=1, max_size=9) | st.lists(messages, max_size=3) | anything},
    optional={
        "stream": st.booleans() | anything,
        "custom_inputs": custom_inputs | anything,
        "context": st.fixed_dictionaries({}, optional={"conversation_id": anything, "user_id": anything})
        | anything,
        "metadata": anything,
        "temperature": anything,
        "tools": anything,
        "model": anything,
        "max_output_tokens": anything,
        "reasoning": anything,
        "text": anything,
        "truncation": anything,
        "user": anything,
    },
)
feedbacks = st.fixed_dictionaries(
    {"trace_id": st.text(max_size=9) | anything, "value": st.booleans() | anything},
    optional={"comment": anything, "assessment_id": anything, "user": anything, "other": anything},
)
fuzzed = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def server(serve: Any, make_settings: Callable[..., Settings], index: Any) -> Any:
    """Our own program with the reader that costs nothing."""
    return serve(make_settings(), index=index)


def check_told(response: httpx.Response) -> None:
    """An answer, or a reason in JSON that is for people."""
    assert response.status_code < 500, response.text
    assert response.elapsed.total_seconds() < SLOWEST_S
    assert "Traceback" not in response.text
    assert '.py", line' not in response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.text, parse_constant=pytest.fail)["error"]["message"]


def post(server: Any, path: str, content: bytes) -> httpx.Response:
    response: httpx.Response = server.client.post(
        path, content=content, headers={"content-type": "application/json"}
    )
    return response


def test_an_answer_or_a_reason_comes_of_any_request_body(server: Any) -> None:
    statuses = set()

    @fuzzed
    @given(body=bodies)
    def check(body: dict[str, Any]) -> None:
        response = post(server, "/responses", json.dumps(body).encode())
        check_told(response)
        assert response.status_code in (200, 400), response.text
        if response.status_code == 200 and response.headers["content-type"] == "application/json":
            assert json.loads(response.text, parse_constant=pytest.fail)["object"] == "response"
        statuses.add(response.status_code)

    check()
    assert statuses == {200, 400}, "the bodies are neither all right nor all wrong"


def test_an_answer_or_a_reason_comes_of_any_json_on_any_route(server: Any) -> None:
    @fuzzed
    @given(path=st.sampled_from(ROUTES), value=anything | feedbacks)
    def check(path: str, value: Any) -> None:
        response = post(server, path, json.dumps(value).encode())
        if path == "/api/feedback" and response.status_code == 503:
            assert response.json()["error"]["code"] == "tracing_off"
        else:
            check_told(response)

    check()


def test_an_answer_or_a_reason_comes_of_any_bytes_on_any_route(server: Any) -> None:
    @fuzzed
    @given(path=st.sampled_from(ROUTES), content=st.binary(max_size=60))
    def check(path: str, content: bytes) -> None:
        response = post(server, path, content)
        check_told(response)
        assert response.status_code == 400

    check()


def test_a_reason_comes_of_any_query_on_any_route(server: Any) -> None:
    @fuzzed
    @given(
        path=st.sampled_from(["/api/document", "/api/trace-link", "/api/playground", "/playground/", "/"]),
        key=st.sampled_from(["uri", "chunk", "trace_id", "x"]),
        value=st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        | st.sampled_from(["x" * 9000, "\x00"]),
    )
    def check(path: str, key: str, value: str) -> None:
        response = server.client.get(f"{path}?{key}={quote(value, safe='')}&uri={quote(value, safe='')}")
        if path == "/api/trace-link" and response.status_code == 503:
            assert response.json()["error"]["code"] == "tracing_off"
        else:
            check_told(response)

    check()


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'[{"input": "x"}]',
        b'"text"',
        b"7",
        b"{",
        b'{"input": "\xff"}',
        b'{"input": "\xed\xa0\xbd"}',
        b'{"input": NaN}',
        b'{"input": "x", "temperature": Infinity}',
        b'\xef\xbb\xbf{"input": "x"}',
        b'{"input": ' + b"1" * 5000 + b"}",
        b"[" * 1000,
        b"[" * 1000 + b"]" * 1000,
        b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_request_is_a_bad_request(plain: Any, path: str, content: bytes) -> None:
    response = post(plain, path, content)
    check_told(response)
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("word", ["x", "\ud83d"])
@pytest.mark.parametrize(
    "body",
    [
        '{"input": "Hello", "metadata": NESTED}',
        '{"input": "Hello", "tools": [NESTED]}',
        '{"input": "Hello", "context": NESTED}',
        '{"input": "Hello", "custom_inputs": NESTED}',
        '{"input": "Hello", "custom_inputs": {"filters": NESTED}}',
        '{"input": NESTED}',
        '{"input": [{"role": "user", "content": NESTED}]}',
        '{"input": [{"role": "user", "content": "Hello", "extra": NESTED}]}',
    ],
)
def test_nesting_is_read_or_refused_at_any_depth_wherever_it_is(plain: Any, body: str, word: str) -> None:
    for depth in (1, 50, 90, 100, 101, 200, 300, 490, 900, 1100):
        for begin, end in ('{"a":', "}"), ("[", "]"):
            nested = begin * depth + json.dumps(word) + end * depth
            response = post(plain, "/responses", body.replace("NESTED", nested).encode())
            check_told(response)
            if depth > 100:
                assert response.status_code == 400
                assert "nested too deeply" in response.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "input: is missing"),
        ({"input": None}, "input: is missing"),
        ({"input": ""}, "the question is empty"),
        ({"input": "  \n"}, "the question is empty"),
        ({"input": []}, "holds no message"),
        ({"input": 7}, "input: must be text or a list"),
        ({"input": {"role": "user"}}, "input: must be text or a list"),
        ({"input": ["Hello"]}, r"input\[0\]: must be a message"),
        ({"input": [{"role": "assistant", "content": "Hello"}]}, "must be the user's question"),
        ({"input": [{"role": "system", "content": "Hello"}]}, "holds no message"),
        ({"input": [{"role": "robot", "content": "Hello"}]}, r"input\[0\].role: \"robot\" is none of user"),
        ({"input": [{"role": ["user"], "content": "Hello"}]}, r"input\[0\].role: a list is none of"),
        ({"input": [{"content": "Hello"}]}, r"input\[0\].role: null is none of"),
        ({"input": [{"role": "user"}]}, r"input\[0\].content: must be text"),
        ({"input": [{"role": "user", "content": 7}]}, r"input\[0\].content: must be text"),
        ({"input": [{"role": "user", "content": ["Hello"]}]}, r"input\[0\].content\[0\]: must be such as"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            r"content\[0\]: must be such as",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "'input_image' cannot be read"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "'input_file' cannot be read"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "'input_audio' cannot be read"),
        ({"input": "x", "stream": "yes"}, "stream: must be true or false"),
        ({"input": "x", "stream": 1}, "stream: must be true or false"),
        ({"input": "x", "custom_inputs": []}, "custom_inputs: .*dictionary"),
        ({"input": "x", "custom_inputs": {"k": 0}}, "k = 0: .*greater than or equal to 1"),
        ({"input": "x", "custom_inputs": {"k": "5"}}, "k = '5': .*integer"),
        ({"input": "x", "custom_inputs": {"k": True}}, "k = True: .*integer"),
        ({"input": "x", "custom_inputs": {"k": 10**30}}, "k = 1"),
        ({"input": "x", "custom_inputs": {"unknown": 1}}, "unknown = 1: unknown. Known: k, filters"),
        ({"input": "x", "custom_inputs": {"filters": []}}, "filters = .*dictionary"),
        ({"input": "x", "custom_inputs": {"filters": {"lang": {"a": 1}}}}, "lang"),
        (
            {"input": "x", "custom_inputs": {"program": "other"}},
            "program = 'other' is not there. Known: default",
        ),
        ({"input": "x", "context": {"conversation_id": 7}}, "context.conversation_id: .*string"),
        ({"input": "x", "context": "c1"}, "context: "),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_told_what_is_wrong_and_where(
    plain: Any, body: dict[str, Any], reason: str, stream: bool
) -> None:
    response = plain.client.post("/responses", json={"stream": stream, **body})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "bad_request")
    assert re.search(reason, error["message"]), error["message"]


def test_half_an_emoji_becomes_the_replacement_character(plain: Any) -> None:
    response = post(plain, "/responses", b'{"input": "half \\uD83D and whole \\ud83d\\ude00"}')
    text = response.json()["output"][0]["content"][0]["text"]
    assert text == "half \ufffd and whole 😀 said [1]."


def test_what_the_responses_api_knows_and_an_agent_does_not_is_let_pass(plain: Any) -> None:
    extra = {"model": "gpt", "instructions": "Be brief.", "previous_response_id": "resp_1", "store": False}
    assert plain.ask(**extra, temperature=0.5, tools=[], parallel_tool_calls=True).status_code == 200


def test_items_of_tools_and_reasoning_in_the_conversation_are_skipped(plain: Any) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "1"}
    items = [
        {"role": "user", "content": "One"},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "reasoning", "id": "r", "summary": []},
        {"role": "user", "content": "Two"},
    ]
    assert plain.ask(items).json()["output"][0]["content"][0]["text"] == "Two said [1]."


@pytest.mark.parametrize(
    "question",
    [
        "water " * 600_000,
        " ".join(f"w{n}" for n in range(500_000)),
        "x" * 3_900_000,
        "水" * 1_200_000,
        "[1] " * 900_000,
        "`" * 3_000_000,
        "\x00" * 500_000,
        '"(' * 100_000,
    ],
    ids=lambda question: question[:8],
)
def test_a_question_of_megabytes_is_answered_or_refused_in_a_few_seconds(server: Any, question: str) -> None:
    started = time.monotonic()
    check_told(server.ask(question))
    assert time.monotonic() - started < SLOWEST_S


@pytest.mark.parametrize(
    "setting",
    [
        {"truncation": "newest"},
        {"tools": [{"type": "web_search_preview"}]},
        {"tool_choice": "allowed_tools"},
        {"reasoning": {"effort": "minimal"}},
    ],
)
def test_settings_for_other_models_than_ours_are_let_pass_whatever_they_are(
    server: Any, setting: dict[str, Any]
) -> None:
    response = post(server, "/responses", json.dumps({"input": "When does water boil?", **setting}).encode())
    assert response.status_code == 200, response.text

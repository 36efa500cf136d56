"""The language model of tests and benchmarks speaks as a real one does on the wire, and fails when told to."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import dspy
import openai
import pytest
from dspy.utils.exceptions import AdapterParseError, LMError

from program.qa import CitedQA
from program.signatures import AnswerFromPassages, RewriteQuery
from program.streaming import emitting, listening
from program.types import Piece

PASSAGES = "[1] amber kettle (u)\nThe mass of the amber kettle is 41 kilograms."


@pytest.fixture
def client(rule_following_model: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=rule_following_model.url, api_key="sk-test", max_retries=0)


def test_the_openai_client_is_answered_with_usage(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hello, you!"}]
    completion = client.chat.completions.create(model="rules", messages=messages, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    text = completion.choices[0].message.content
    assert text == "I was asked, and this is what I say."
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3 + 4 + 4 + 4, 2 * 11)
    assert client.models.list().data[0].id == "rules"


def test_a_stream_adds_up_to_the_whole_and_ends_with_usage_where_it_is_wanted(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello."}]
    whole = client.chat.completions.create(model="rules", messages=messages)
    chunks = list(
        client.chat.completions.create(
            model="rules", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices]) > 4
    assert chunks[-1].usage == whole.usage
    bare = client.chat.completions.create(model="rules", messages=messages, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in bare)


def test_a_completion_is_cut_at_the_most_tokens(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello."}]
    choice = client.chat.completions.create(model="rules", messages=messages, max_tokens=3).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("I was asked", "length")


@pytest.mark.parametrize(
    "body", [{"model": "rules", "messages": []}, {"messages": [{}]}, [], {"model": "m", "messages": "Hello"}]
)
def test_a_malformed_request_is_refused_and_says_why(body: Any, rule_following_model: Any) -> None:
    request = urllib.request.Request(
        rule_following_model.url + "/chat/completions", json.dumps(body).encode(), method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as response:
        assert response.status == 400
        assert "must be" in json.loads(response.read())["error"]["message"]


def test_the_program_streams_through_the_real_client_what_it_answers_whole(
    untraced_program: CitedQA,
) -> None:
    question = "What is the mass of the amber kettle?"
    pieces: list[Piece] = []
    with emitting(pieces.append):
        streamed = untraced_program(question=question)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == streamed.answer
    assert len(pieces) > 3
    assert untraced_program(question=question).answer == streamed.answer


def test_a_language_model_of_ours_hears_the_deltas(ruled_lm: dspy.LM) -> None:
    heard: list[str] = []
    with listening(heard.append):
        [text] = ruled_lm("Hello.")
    assert "".join(heard) == text == "I was asked, and this is what I say."
    assert len(heard) > 1


def test_dspy_counts_the_tokens_that_the_server_counted(ruled_lm: dspy.LM, rule_following_model: Any) -> None:
    with dspy.track_usage() as usage:
        predict = dspy.Predict(AnswerFromPassages)
        predict.set_lm(ruled_lm)
        predict(passages=PASSAGES, question="What is the mass of the amber kettle?")
    [tokens] = usage.get_total_tokens().values()
    counts = rule_following_model.counts
    assert (tokens["prompt_tokens"], tokens["completion_tokens"]) == (
        counts.prompt_tokens,
        counts.completion_tokens,
    )
    assert (counts.task, counts.meta, counts.by_kind) == (1, 0, {"answer": 1})


# What goes wrong on demand


def test_too_many_requests_are_refused_and_told_when_to_come_back(
    client: openai.OpenAI, rule_following: ModuleType, rule_following_model: Any
) -> None:
    rule_following_model.faults = rule_following.Faults(requests_allowed=2, every_s=1000)
    messages: Any = [{"role": "user", "content": "Hello."}]
    for _ in range(2):
        client.chat.completions.create(model="rules", messages=messages)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="rules", messages=messages)
    assert 0 < float(caught.value.response.headers["Retry-After"]) <= 1000
    assert rule_following_model.counts.refused == 1


@pytest.mark.parametrize(
    ("fault", "raised"),
    [({"error_share": 1.0}, openai.InternalServerError), ({"cut_share": 1.0}, openai.APIConnectionError)],
)
def test_errors_and_cut_bodies_reach_the_client(
    fault: dict[str, float],
    raised: type[Exception],
    client: openai.OpenAI,
    rule_following: Any,
    rule_following_model: Any,
) -> None:
    rule_following_model.faults = rule_following.Faults(**fault)
    with pytest.raises(raised):
        client.chat.completions.create(model="rules", messages=[{"role": "user", "content": "Hello."}])


def test_what_failed_may_pass_when_it_is_asked_again(
    client: openai.OpenAI, rule_following: Any, rule_following_model: Any
) -> None:
    rule_following_model.faults = rule_following.Faults(error_share=0.5, error_status=503)
    patient = client.with_options(max_retries=8)
    with patch("openai._base_client.BaseClient._calculate_retry_timeout", return_value=0.0):
        for number in range(5):
            patient.chat.completions.create(
                model="rules", messages=[{"role": "user", "content": f"{number}"}]
            )
    assert rule_following_model.counts.failed > 0
    assert rule_following_model.counts.answered == 5


def test_a_share_of_prompts_gets_completions_that_nobody_can_parse(
    ruled_lm: dspy.LM, rule_following: Any, rule_following_model: Any
) -> None:
    rule_following_model.faults = rule_following.Faults(garbled_share=0.5)
    predict = dspy.Predict(RewriteQuery)
    predict.set_lm(ruled_lm)

    def fails(question: str) -> bool:
        try:
            predict(question=question)
        except AdapterParseError:
            return True
        return False

    failed = [fails(f"Question {number}?") for number in range(20)]
    # DSPy asks once more in another layout, which is another prompt.
    assert 0 < sum(failed) < 14
    assert failed == [fails(f"Question {number}?") for number in range(20)]


def test_a_cut_stream_is_an_error_not_a_short_answer(
    ruled_lm: dspy.LM, rule_following: Any, rule_following_model: Any
) -> None:
    rule_following_model.faults = rule_following.Faults(cut_share=1.0)
    with listening(lambda delta: None), pytest.raises(LMError):
        ruled_lm("Hello.")


def test_a_process_says_where_it_is_counts_and_ends_with_its_input(
    rule_following: ModuleType, rule_following_model: Any
) -> None:
    script = Path(str(rule_following.__file__))
    body = {
        "model": "rules",
        "messages": [{"role": "user", "content": "Hello."}],
        "temperature": 1.0,
    }
    with subprocess.Popen(
        [sys.executable, script, "--faults", '{"garbled_share": 0.0}'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        there = [post(url + "/chat/completions", body) for _ in range(3)]
        here = [post(rule_following_model.url + "/chat/completions", body) for _ in range(3)]
        with urllib.request.urlopen(url.removesuffix("/v1") + "/counts") as response:
            counts = json.loads(response.read())
        process.stdin.close()
        assert process.wait(timeout=10) == 0
    assert there == here
    assert (counts["task"], counts["meta"], counts["by_kind"]) == (3, 0, {"other": 3})


def post(url: str, body: dict[str, Any]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as response:
        return json.loads(response.read())


def test_replies_do_not_depend_on_the_process(rule_following: ModuleType, synthetic_task: ModuleType) -> None:
    messages = dspy.ChatAdapter().format(
        AnswerFromPassages, [], {"passages": PASSAGES, "question": "How heavy is the yellow teapot?"}
    )
    knowledge = rule_following.Knowledge(synthetic_task.VOCABULARY)
    here = [rule_following.reply_to(messages, knowledge, 1.0, sample).text for sample in range(20)]
    code = (
        "import json, sys; from rule_following_model import Knowledge, reply_to, VOCABULARY\n"
        "messages = json.load(sys.stdin)\n"
        "print(json.dumps([reply_to(messages, Knowledge(VOCABULARY), 1.0, n).text for n in range(20)]))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(str(rule_following.__file__)).parent,
        env={"PYTHONHASHSEED": "7"},
        input=json.dumps(messages),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(there.stdout) == here
    assert len(set(here)) > 1

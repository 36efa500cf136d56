"""A language-model call is made once; what it cost and how long it took is told each time."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import dspy
import pytest
from dspy.clients.call_result import response_from_dict, response_to_dict
from dspy.clients.execution import request_to_dict
from dspy.lm15 import (
    CitationPart,
    Message,
    Request,
    Response,
    ResponseStream,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    Usage,
    response_to_events,
)
from hypothesis import given
from hypothesis import strategies as st

from program.call_notes import noting_calls
from program.content_store import ContentStore
from program.language_models import build_lm
from program.recorded_calls import KIND, RecordedEngine
from program.settings import LanguageModelSettings
from program.streaming import StreamAbandonedError, TeeEngine, listening
from retrieval.errors import StorageError

KEY = "sk-canary-0123456789"
MakeLM = Callable[..., dspy.LM]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(tmp_path / "calls.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContentStore]:
    with ContentStore(tmp_path_factory.mktemp("calls") / "calls.db") as opened:
        yield opened


@pytest.fixture
def make_lm(language_model: Any, store: ContentStore) -> MakeLM:
    """A recorded model that listens on the scripted server; keyword arguments are settings."""

    def make(**settings: Any) -> dspy.LM:
        values = {"model": "openai/test", "api_base": language_model.url, "num_retries": 0, **settings}
        return build_lm(LanguageModelSettings(**values), record_in=store)

    return make


def request(text: str = "Hi", **more: Any) -> Request:
    return Request(model="openai/test", messages=(Message.user(text),), **more)


def response(text: str = "Hello.", *parts: Any, **more: Any) -> Response:
    values: dict[str, Any] = {
        "id": "r1",
        "model": "test",
        "finish_reason": "stop",
        "usage": Usage(11, 7),
        **more,
    }
    return Response(message=Message.assistant([TextPart(text), *parts]), **values)


class Scripted:
    """An engine that says what it is told, counts, and fails on demand."""

    def __init__(self, *said: Response | Exception) -> None:
        self.said = list(said)
        self.asked: list[Request] = []

    def complete(self, request: Request) -> Response:
        self.asked.append(request)
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, Exception):
            raise said
        return said

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))


def test_the_same_prompt_is_asked_once_and_its_usage_is_told_each_time(
    make_lm: MakeLM, language_model: Any
) -> None:
    language_model.says("Hello.")
    for _ in range(3):
        with dspy.track_usage() as usage:
            assert make_lm()("Hi") == ["Hello."]
        counted = usage.get_total_tokens()["openai/test"]
        assert (counted["prompt_tokens"], counted["completion_tokens"]) == (11, 7)
    assert len(language_model.requests) == 1


def test_another_process_finds_what_this_one_recorded(
    make_lm: MakeLM, language_model: Any, store: ContentStore
) -> None:
    language_model.says("富士山です。")
    make_lm()("日本で一番高い山は？")
    with ContentStore(store.path) as reopened:
        settings = LanguageModelSettings(model="openai/test", api_base=language_model.url)
        assert build_lm(settings, record_in=reopened)("日本で一番高い山は？") == ["富士山です。"]
    assert len(language_model.requests) == 1


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.5}, {"max_tokens": 77}, {"model": "openai/other"}],
    ids=["temperature", "max_tokens", "model"],
)
def test_what_decides_the_answer_decides_the_record(
    other: dict[str, Any], make_lm: MakeLM, language_model: Any
) -> None:
    language_model.says("one")
    language_model.says("two")
    assert (make_lm()("Hi"), make_lm(**other)("Hi"), make_lm()("Hi")) == (["one"], ["two"], ["one"])


def test_the_same_model_at_another_address_is_another_model(store: ContentStore) -> None:
    here, there = Scripted(response("here")), Scripted(response("there"))
    assert RecordedEngine(here, store, address="http://a").complete(request()).text == "here"
    assert RecordedEngine(there, store, address="http://b").complete(request()).text == "there"


def test_an_endpoint_of_the_same_name_in_another_workspace_is_another_model(
    make_lm: MakeLM, language_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def address(host: str) -> str:
        monkeypatch.setenv("DATABRICKS_HOST", host)
        engine = make_lm(model="databricks/ours", api_base=None)._engine_spec._inner
        return str(engine._address)

    assert address("https://one.example") != address("https://two.example")


def test_what_does_not_decide_the_answer_does_not_ask_again(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("one")
    language_model.says("two")
    make_lm()("Hi")
    assert make_lm(timeout_s=9, num_retries=3, adapter="json")("Hi") == ["one"]


def test_a_sample_stays_the_same_until_another_rollout_is_asked_for(
    make_lm: MakeLM, language_model: Any
) -> None:
    for text in ("first", "second", "third"):
        language_model.says(text)
    lm = make_lm(temperature=0.7)
    assert (lm("Hi"), lm("Hi")) == (["first"], ["first"])
    assert (lm("Hi", rollout_id=1), lm("Hi", rollout_id=1)) == (["second"], ["second"])
    assert lm.copy(rollout_id=1)("Hi") == ["second"]
    assert lm.copy(rollout_id=2)("Hi") == ["third"]
    assert lm("Hi") == ["first"]


def test_several_candidates_of_one_call_stay_several(make_lm: MakeLM, language_model: Any) -> None:
    for text in ("a", "b", "c"):
        language_model.says(text)
    lm = make_lm(temperature=0.7)
    assert lm("Hi", n=3) == ["a", "b", "c"]
    assert lm("Hi", n=3) == ["a", "b", "c"]
    assert lm("Hi") == ["a"]
    assert len(language_model.requests) == 3


def test_with_the_cache_off_every_call_is_made(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("one")
    language_model.says("two")
    assert (make_lm(cache=False)("Hi"), make_lm(cache=False)("Hi")) == (["one"], ["two"])


def test_dspys_own_cache_which_forgets_usage_does_not_answer(make_lm: MakeLM) -> None:
    assert make_lm().cache is False


def test_a_failure_is_asked_again(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("broken", status=500)
    language_model.says("Hello.")
    lm = make_lm()
    with pytest.raises(dspy.LMError, match="broken"):
        lm("Hi")
    assert lm("Hi") == ["Hello."]


def test_a_replay_streams_its_whole_text_as_one_piece(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("Hello out there.", chunk=3)
    heard: list[list[str]] = []
    for _ in range(2):
        pieces: list[str] = []
        with listening(pieces.append):
            assert make_lm()("Hi") == ["Hello out there."]
        heard.append(pieces)
    assert ("".join(heard[0]), len(heard[0])) == ("Hello out there.", 6)
    assert heard[1] == ["Hello out there."]
    assert len(language_model.requests) == 1


def test_what_was_recorded_whole_is_replayed_streamed_and_the_other_way_round(store: ContentStore) -> None:
    engine = RecordedEngine(Scripted(response("whole"), response("streamed")), store)
    assert engine.complete(request("a")).text == "whole"
    with ResponseStream(engine.stream(request("a")), request("a")) as stream:
        assert list(stream) == ["whole"]
        assert stream.response.usage == Usage(11, 7)
    with ResponseStream(engine.stream(request("b")), request("b")) as stream:
        assert list(stream) == ["streamed"]
    assert engine.complete(request("b")) == response("streamed")


def test_a_stream_that_nobody_heard_to_its_end_is_not_recorded(store: ContentStore) -> None:
    inner = Scripted(response("Hello."))
    engine = TeeEngine(RecordedEngine(inner, store))

    def leave(_: str) -> None:
        raise StreamAbandonedError

    with pytest.raises(StreamAbandonedError), listening(leave):
        engine.complete(request())
    assert engine.complete(request()).text == "Hello."
    assert len(inner.asked) == 2


def test_threads_that_ask_the_same_at_once_make_one_call(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("Hello.", delay_s=0.1)
    lm = make_lm()
    barrier = threading.Barrier(6)

    def ask(_: int) -> tuple[list[str], int]:
        barrier.wait()
        with noting_calls() as noted:
            return lm("Hi"), noted.replayed

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert [said for said, _ in answers] == [["Hello."]] * 6
    assert sum(replayed for _, replayed in answers) == 5
    assert len(language_model.requests) == 1


def test_threads_that_ask_different_things_do_not_wait_for_one_another(store: ContentStore) -> None:
    both_there = threading.Barrier(2, timeout=5)

    class Meeting(Scripted):
        def complete(self, request: Request) -> Response:
            both_there.wait()
            return super().complete(request)

    engine = RecordedEngine(Meeting(response()), store)
    with ThreadPoolExecutor(2) as pool:
        assert [r.text for r in pool.map(engine.complete, [request("a"), request("b")])] == ["Hello."] * 2


def test_when_the_first_of_two_fails_the_second_asks_for_itself(store: ContentStore) -> None:
    inner = Scripted(ValueError("broken"), response("Hello."))
    engine = RecordedEngine(inner, store)
    with pytest.raises(ValueError, match="broken"):
        engine.complete(request())
    assert engine.complete(request()).text == "Hello."


def test_what_a_replayed_call_took_at_first_is_noted(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("Hello.", delay_s=0.05)
    with noting_calls() as first:
        make_lm()("Hi")
    with noting_calls() as second:
        make_lm()("Hi")
    assert (first.calls, first.replayed, first.replayed_ms) == (1, 0, 0)
    assert (second.calls, second.replayed) == (1, 1)
    assert second.replayed_ms >= 50
    assert second.would_take_ms(1.0) >= 50


def test_notes_within_notes_are_in_both() -> None:
    engine = TeeEngine(Scripted(response()))
    with noting_calls() as outer:
        engine.complete(request())
        with noting_calls() as inner:
            engine.complete(request())
    assert (outer.calls, inner.calls) == (2, 1)


def test_a_record_that_is_damaged_is_asked_for_anew(
    make_lm: MakeLM, language_model: Any, store: ContentStore
) -> None:
    language_model.says("one")
    language_model.says("two")
    make_lm()("Hi")
    store._connection.execute("UPDATE contents SET value = x'00'")
    assert (make_lm()("Hi"), make_lm()("Hi")) == (["two"], ["two"])
    assert store.damaged == 1


@pytest.mark.parametrize(
    "entry", [{}, {"response": {"model": 3}, "took_ms": 1}, {"response": {}, "took_ms": "x"}]
)
def test_a_record_in_a_form_of_another_version_is_asked_for_anew(
    entry: dict[str, Any], store: ContentStore
) -> None:
    engine = RecordedEngine(Scripted(response("old"), response("new")), store)
    engine.complete(request())
    store.put(KIND, engine._key(request()), entry)
    assert engine.complete(request()).text == "new"


def test_an_answer_that_cannot_be_recorded_still_counts(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(store, "put", refuse)
    assert RecordedEngine(Scripted(response()), store).complete(request()).text == "Hello."
    assert "could not be recorded: The disk is full." in caplog.text


def test_the_key_is_nowhere_in_the_record(make_lm: MakeLM, language_model: Any, store: ContentStore) -> None:
    language_model.says("Hello.")
    make_lm()("Hi")
    assert language_model.keys == [f"Bearer {KEY}"]
    [(kind, key)] = store._connection.execute("SELECT kind, key FROM contents").fetchall()
    assert KEY not in f"{kind} {key} {json.dumps(store.get(kind, key))}"


def test_copies_of_a_program_share_the_record(make_lm: MakeLM, language_model: Any) -> None:
    language_model.says("one")
    language_model.says("two")
    predict = dspy.Predict("question -> answer")
    predict.set_lm(make_lm(temperature=0.7))
    copied = copy.deepcopy(predict)
    assert predict.lm("Hi") == copied.lm("Hi") == ["one"]
    assert copied.lm("Hi", rollout_id=1) == ["two"]


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.text("abc_", min_size=1, max_size=5)
PARTS = st.one_of(
    st.builds(TextPart, ANY_TEXT),
    st.builds(ThinkingPart, ANY_TEXT),
    st.builds(CitationPart, text=ANY_TEXT.filter(bool), title=st.none() | ANY_TEXT.filter(bool)),
    st.builds(ToolCallPart, id=NAMES, name=NAMES, input=st.dictionaries(ANY_TEXT, JSON, max_size=3)),
)
COUNTS = st.none() | st.integers(0, 10**6)
RESPONSES = st.builds(
    Response,
    id=st.none() | NAMES,
    model=NAMES,
    message=st.lists(PARTS, min_size=1, max_size=4).map(Message.assistant),
    finish_reason=st.sampled_from(["stop", "length", "tool_call"]),
    usage=st.builds(Usage, COUNTS, COUNTS, cache_read_tokens=COUNTS, reasoning_tokens=COUNTS),
    provider_data=st.none() | st.dictionaries(ANY_TEXT, JSON, min_size=1, max_size=3),
)


@given(said=RESPONSES)
def test_any_response_comes_back_as_it_was(said: Response, lasting_store: ContentStore) -> None:
    address = uuid4().hex
    assert RecordedEngine(Scripted(said), lasting_store, address=address).complete(request()) == said
    silent = Scripted(ValueError("asked again"))
    replayed = RecordedEngine(silent, lasting_store, address=address).complete(request())
    assert replayed == said
    assert response_to_dict(replayed, include_provider_data=True) == response_to_dict(
        said, include_provider_data=True
    )


@given(text=ANY_TEXT.filter(bool), other=ANY_TEXT.filter(bool))
def test_requests_have_one_record_exactly_if_they_say_the_same(text: str, other: str) -> None:
    engine = RecordedEngine(Scripted(response()), store=None)  # type: ignore[arg-type]
    same = request_to_dict(request(text)) == request_to_dict(request(other))
    assert (engine._key(request(text)) == engine._key(request(other))) is same


def test_the_json_form_holds_no_pickle() -> None:
    said = response("x", ToolCallPart(id="1", name="f", input={"a": [1, "二"]}), ThinkingPart("なるほど"))
    assert response_from_dict(json.loads(json.dumps(response_to_dict(said)))) == said

"""What is heard while a language model answers, and what happens when it breaks or nobody listens."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from program.language_models import build_lm
from program.readers import LMReader
from program.settings import LanguageModelSettings
from program.streaming import (
    FieldText,
    StreamAbandonedError,
    TeeEngine,
    emit_pieces,
    emitting,
    listening,
    somebody_waits,
)
from program.types import CitedAnswer, Piece
from retrieval.types import Passage

PASSAGES = [
    Passage("c1", "https://e.org/1", "Water boils at 100 degrees."),
    Passage("c2", "https://e.org/2", "Ice."),
]
GOOD = {"answerable": True, "answer": "Water boils at 100 degrees [1]. It may freeze [9]."}

HEADERS = ["[[ ## answer ## ]]", "[[ ## answerable ## ]]", "[[ ## completed ## ]]", "[[ ## other ## ]]"]
PARTS = [
    *HEADERS,
    *("\n", "\n\n", "\r\n", "\r", "\x0b", "\u2028", "\x85", " ", "\t", "\u3000"),
    *("[", "[[", "[[ #", "[[ ## ", "]]", " ## ]]", "[[ ## a b ## ]]", "[1]", "True", "Yes.", "水。", "x"),
]
completions = st.lists(st.sampled_from(PARTS), max_size=16).map("".join)


def hear(completion: str, places: list[int]) -> str:
    field = FieldText("answer")
    bounds = sorted({0, len(completion), *(place for place in places if place < len(completion))})
    return "".join(field.feed(completion[a:b]) for a, b in itertools.pairwise(bounds))


@given(completions, completions, st.lists(st.integers(0, 120), max_size=20))
def test_a_field_is_heard_as_the_adapter_parses_it(before: str, after: str, places: list[int]) -> None:
    completion = f"[[ ## other ## ]]\n{before}\n[[ ## answer ## ]]{after}"
    parsed = dspy.ChatAdapter().parse(dspy.Signature("question -> other, answer"), completion)["answer"]
    heard = hear(completion + "\n[[ ## completed ## ]]", places)
    assert heard == parsed
    assert hear(completion + "\n[[ ## completed ## ]]", list(range(400))) == parsed
    # Without a header to end the field, only its last line may be held back.
    assert parsed.startswith(hear(completion, places))
    assert "\n" not in parsed[len(hear(completion, places)) :].strip()


@given(completions, st.lists(st.integers(0, 80), max_size=20))
def test_what_is_heard_does_not_depend_on_the_cut(completion: str, places: list[int]) -> None:
    assert hear(completion, places) == hear(completion, []) == hear(completion, list(range(120)))


def test_a_completion_in_another_format_yields_nothing() -> None:
    assert hear('{"answerable": true, "answer": "Yes [1]."}', [3, 9]) == ""


def test_a_field_is_heard_as_it_comes() -> None:
    field = FieldText("answer")
    assert field.feed("[[ ## answer ## ]]\nWater") == "Water"
    assert field.feed(" boils [") == " boils ["
    assert field.feed("1]\n[[ ##") == "1]"
    assert field.feed(" completed ## ]]") == ""


@pytest.fixture
def lm_settings(language_model: Any) -> LanguageModelSettings:
    return LanguageModelSettings(
        model="openai/test", api_base=language_model.url, cache=False, num_retries=2, timeout_s=5
    )


def read(settings: LanguageModelSettings, emit: Any = None, question: str = "When?") -> CitedAnswer:
    with emitting(emit):
        answer: CitedAnswer = LMReader(build_lm(settings))(question, PASSAGES)
    return answer


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_deltas_heard_add_up_to_the_response(language_model: Any, lm_settings: LanguageModelSettings) -> None:
    language_model.says("Good day to you, 水!", chunk=2)
    heard: list[str] = []
    with listening(heard.append):
        outputs = build_lm(lm_settings)("Hello")
    assert outputs == ["Good day to you, 水!"]
    assert len(heard) > 5
    assert "".join(heard) == outputs[0]


def test_without_a_listener_nothing_is_streamed(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills(GOOD)
    answer = read(lm_settings)
    assert not language_model.requests[0].get("stream")
    assert answer.text == "Water boils at 100 degrees [1]. It may freeze."
    assert answer.dropped_markers == 1


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_streamed_and_whole_answers_are_the_same(
    language_model: Any, lm_settings: LanguageModelSettings, chunk: int
) -> None:
    language_model.fills(GOOD, chunk=chunk)
    pieces: list[Piece] = []
    streamed = read(lm_settings, pieces.append)
    assert language_model.requests[0]["stream"] is True
    assert streamed == read(lm_settings)
    assert text_of(pieces) == streamed.text


def test_a_failure_before_the_first_token_is_retried(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.says("busy", status=429, headers={"Retry-After": "0"})
    language_model.says("down", status=503, headers={"Retry-After": "0"})
    language_model.fills(GOOD)
    pieces: list[Piece] = []
    assert read(lm_settings, pieces.append).text == text_of(pieces)
    assert len(language_model.requests) == 3


def test_a_failure_after_the_first_token_is_not_retried_and_what_was_said_stays(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills(GOOD, chunk=8, cut_after=9)
    pieces: list[Piece] = []
    with pytest.raises(dspy.LMError, match="the answer was cut off"):
        read(lm_settings, pieces.append)
    assert len(language_model.requests) == 1
    assert text_of(pieces).startswith("Water b")


def test_a_listener_that_leaves_stops_the_language_model_within_a_token(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills({"answerable": True, "answer": "word " * 400}, chunk=5, delay_s=0.002)

    def leave(piece: Piece) -> None:
        raise StreamAbandonedError

    with pytest.raises(StreamAbandonedError):
        read(lm_settings, leave)
    assert language_model.wait_for_hang_up()
    assert language_model.deltas_sent < 60
    assert len(language_model.requests) == 1


def test_a_cached_answer_comes_as_one_piece_of_text(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    language_model.fills({"answerable": True, "answer": "It boils at 100 degrees."}, chunk=4)
    cached = lm_settings.model_copy(update={"cache": True})
    first, second = list[Piece](), list[Piece]()
    assert read(cached, first.append) == read(cached, second.append)
    assert len(language_model.requests) == 1
    assert len(first) > 3
    assert second == ["It boils at 100 degrees."]


def test_an_answer_in_the_fallback_format_is_still_whole(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.says('{"answerable": true, "answer": "It boils [1]."}', chunk=5)
    pieces: list[Piece] = []
    answer = read(lm_settings, pieces.append)
    assert answer.text == text_of(pieces) == "It boils [1]."
    assert answer.citations


def test_a_second_completion_does_not_speak_after_the_first(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills({"answer": "It boils [1]."}, chunk=5)
    language_model.says('{"answerable": true, "answer": "Something else."}', chunk=5)
    pieces: list[Piece] = []
    answer = read(lm_settings, pieces.append)
    assert len(language_model.requests) == 2
    assert answer.text == text_of(pieces) == "It boils [1]."


def test_two_completions_that_cannot_be_parsed_are_not_said_twice(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills({"answer": "It boils [1]."}, chunk=5)
    pieces: list[Piece] = []
    with pytest.raises(AdapterParseError):
        read(lm_settings, pieces.append)
    assert len(language_model.requests) == 2
    assert "It boils [1].".startswith(text_of(pieces))
    assert text_of(pieces).startswith("It boils")


def test_many_streams_at_once_do_not_hear_each_other(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    def answer(body: dict[str, Any]) -> str:
        canary = str(body["messages"][-1]["content"]).partition("canary-")[2][:2]
        fields = {"answerable": True, "answer": f"{canary} " * 30}
        return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())

    language_model.computes(answer, chunk=7, delay_s=0.001)
    reader = LMReader(build_lm(lm_settings))
    everybody_here = threading.Barrier(32)

    def ask(number: int) -> str:
        pieces: list[Piece] = []
        everybody_here.wait()
        with emitting(pieces.append):
            text: str = reader(f"canary-{number:02}", PASSAGES).text
        assert text_of(pieces) == text
        return text

    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(ask, range(32)))
    assert [set(text.split()) for text in texts] == [{f"{number:02}"} for number in range(32)]


def test_emitting_ends_with_its_block_and_is_the_threads_own() -> None:
    pieces: list[Piece] = []
    waits_elsewhere: list[bool] = []
    with emitting(pieces.append):
        assert somebody_waits()
        emit_pieces(["a", "b"])
        thread = threading.Thread(target=lambda: waits_elsewhere.append(somebody_waits()))
        thread.start()
        thread.join()
    emit_pieces(["c"])
    assert not somebody_waits()
    assert pieces == ["a", "b"]
    assert waits_elsewhere == [False]


def test_a_tee_passes_a_stream_through_unchanged() -> None:
    class Inner:
        def complete(self, request: Any) -> Any:
            raise AssertionError("not asked")

        def stream(self, request: Any) -> Any:
            return iter([request, "event"])

    assert list(TeeEngine(Inner()).stream("request")) == ["request", "event"]


def test_the_first_piece_comes_before_the_language_model_has_finished(
    language_model: Any, lm_settings: LanguageModelSettings
) -> None:
    language_model.fills({"answerable": True, "answer": "word " * 60}, chunk=10, delay_s=0.01)
    arrivals: list[float] = []
    read(lm_settings, lambda piece: arrivals.append(time.monotonic()))
    assert arrivals[-1] - arrivals[0] > 0.1

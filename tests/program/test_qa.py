"""The program: condense, retrieve in one RETRIEVER span, read, cite; and what a person hears when it fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, Trace

from program.assembly import build_program, build_programs
from program.qa import HISTORY_MESSAGES, CitedQA
from program.state import save_state
from program.types import CitedAnswer, Message, Piece, Turn
from retrieval.errors import LanguageModelError, RequestError
from retrieval.local_index import LocalIndex
from retrieval.tracing import in_current_trace

ANSWER = {"answerable": True, "answer": "At 100 degrees [1]."}
HISTORY = (Message("user", "What does Everest do to water?"), Message("assistant", "It boils earlier [1]."))


@pytest.fixture
def extractive(make_settings: Any, index: LocalIndex) -> CitedQA:
    return build_program(make_settings(), index)


@pytest.fixture
def lm_program(make_settings: Any, index: LocalIndex, language_model: Any) -> CitedQA:
    return build_program(make_settings(language_model), index)


def test_a_first_question_is_searched_as_it_is(lm_program: CitedQA, language_model: Any) -> None:
    language_model.fills(ANSWER)
    answer = lm_program.respond(Turn("When does water boil?"))
    assert len(language_model.requests) == 1
    assert answer.query == "When does water boil?"
    assert answer.cited_uris == ["https://docs.example/water"]
    assert answer.reader == "openai/test"
    assert not answer.abstained


def test_a_follow_up_is_made_to_stand_alone_before_the_search(
    lm_program: CitedQA, language_model: Any
) -> None:
    language_model.fills({"standalone_question": "When does iron melt?"})
    language_model.fills(ANSWER)
    answer = lm_program.respond(Turn("And when does iron melt?", HISTORY))
    assert "It boils earlier" in language_model.prompt(0)
    assert answer.query == "When does iron melt?"
    assert answer.passages[0].doc_uri == "https://docs.example/iron"
    assert "When does iron melt?" in language_model.prompt(1)


def test_a_question_is_searched_for_by_the_query_that_the_model_makes_of_it_and_answered_as_it_was_asked(
    make_settings: Any, index: LocalIndex, language_model: Any
) -> None:
    program = build_program(make_settings(language_model, program={"rewrite_query": True}), index)
    language_model.fills({"search_query": "iron melts"})
    language_model.fills(ANSWER)
    answer = program.respond(Turn("When does Fe become a liquid?"))
    assert answer.query == "iron melts"
    assert answer.passages[0].doc_uri == "https://docs.example/iron"
    assert "When does Fe become a liquid?" in language_model.prompt(1)
    assert "rewrite" in answer.timings_ms
    assert [name for name, _ in program.named_predictors()] == ["reader.answer", "condense", "rewrite"]


def test_an_empty_query_of_the_model_leaves_the_question(
    make_settings: Any, index: LocalIndex, language_model: Any
) -> None:
    program = build_program(make_settings(language_model, program={"rewrite_query": True}), index)
    language_model.fills({"search_query": "  "})
    language_model.fills(ANSWER)
    assert program.respond(Turn("When does iron melt?")).query == "When does iron melt?"


def test_a_copy_of_a_program_searches_the_same_index_with_prompts_of_its_own(
    lm_program: CitedQA, language_model: Any
) -> None:
    copy = lm_program.deepcopy()
    assert copy.retriever is lm_program.retriever
    copy.reader.answer.demos = [{"question": "q", "answer": "a"}]
    assert lm_program.reader.answer.demos == []
    language_model.fills(ANSWER)
    assert copy.respond(Turn("When does water boil?")).cited_uris == ["https://docs.example/water"]


def test_a_follow_up_is_read_against_the_latest_messages_only(
    lm_program: CitedQA, language_model: Any
) -> None:
    language_model.fills({"standalone_question": "When?"})
    language_model.fills(ANSWER)
    history = tuple(Message("user", f"message-{number}-") for number in range(HISTORY_MESSAGES + 2))
    lm_program.respond(Turn("And then?", history))
    assert "message-2-" in language_model.prompt(0)
    assert "message-1-" not in language_model.prompt(0)


def test_without_a_language_model_a_follow_up_is_searched_with_the_question_before_it(
    extractive: CitedQA,
) -> None:
    assert extractive.respond(Turn("And what melts?", HISTORY)).query == (
        "What does Everest do to water?\nAnd what melts?"
    )
    assert extractive.respond(Turn("What melts?")).query == "What melts?"


def test_what_the_turn_says_of_k_and_filters_goes_before_the_configuration(
    make_settings: Any, index: LocalIndex
) -> None:
    program = build_program(make_settings(retrieval={"k": 1, "filters": {"lang": "en"}}), index)
    assert len(program.respond(Turn("water boils")).passages) == 1
    assert len(program.respond(Turn("water boils", k=2)).passages) == 2
    japanese = program.respond(Turn("富士山の高さ", filters={"lang": "ja"})).passages
    assert [passage.lang for passage in japanese] == ["ja"]
    assert program.respond(Turn("富士山の高さ")).passages == ()


def test_the_configured_filters_hold_beside_those_of_the_turn(make_settings: Any, index: LocalIndex) -> None:
    program = build_program(make_settings(retrieval={"filters": {"lang": "en"}}), index)
    both = program.respond(Turn("water melts boils", filters={"title": ["Iron", "富士山"]}))
    assert {passage.title for passage in both.passages} == {"Iron"}


def test_usage_and_timings_are_told(lm_program: CitedQA, language_model: Any) -> None:
    language_model.fills(ANSWER)
    for emit in (None, lambda piece: None):
        answer = lm_program.respond(Turn("When does water boil?"), emit)
        assert answer.usage == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        assert set(answer.timings_ms) == {"condense", "retrieve", "read"}
        assert all(milliseconds >= 0 for milliseconds in answer.timings_ms.values())


def test_the_program_is_a_module_with_the_prompts_as_predictors(
    lm_program: CitedQA, language_model: Any
) -> None:
    language_model.fills({"answerable": False, "answer": "The passages do not say."})
    prediction = lm_program(question="Who was Napoleon?")
    assert prediction.answer == "The passages do not say."
    assert prediction.cited.abstained
    assert [name for name, _ in lm_program.named_predictors()] == ["reader.answer", "condense"]


@pytest.mark.parametrize("question", ["", "  \n\u3000"])
def test_an_empty_question_is_refused_before_anything_is_searched(extractive: CitedQA, question: str) -> None:
    with pytest.raises(RequestError, match="empty"):
        extractive.respond(Turn(question))


def retrievals(trace: Trace) -> list[Any]:
    return trace.search_spans(span_type=SpanType.RETRIEVER)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_turn_makes_exactly_one_retriever_span_below_the_callers(
    extractive: CitedQA, tracing: Callable[[], Trace], streamed: bool
) -> None:
    emit = (lambda piece: None) if streamed else None
    with mlflow.start_span("caller") as caller:
        extractive.respond(Turn("When does water boil?", k=2, filters={"lang": "en"}), emit)
    [span] = retrievals(tracing())
    assert span.parent_id == caller.span_id
    assert span.inputs == {"query": "When does water boil?", "k": 2, "filters": {"lang": "en"}}
    document = span.outputs[0]
    assert document["page_content"].startswith("# Water")
    assert document["metadata"]["doc_uri"] == "https://docs.example/water"
    assert {"chunk_id", "title", "score"} <= document["metadata"].keys()


def test_retriever_spans_from_worker_threads_stay_in_the_callers_trace(
    extractive: CitedQA, tracing: Callable[[], Trace]
) -> None:
    with mlflow.start_span("caller") as caller, ThreadPoolExecutor(4) as pool:
        respond = in_current_trace(extractive.respond)
        answers = list(pool.map(respond, [Turn(f"water {number}") for number in range(8)]))
    assert all(isinstance(answer, CitedAnswer) for answer in answers)
    spans = retrievals(tracing())
    assert {span.parent_id for span in spans} == {caller.span_id}
    assert sorted(span.inputs["query"] for span in spans) == [f"water {number}" for number in range(8)]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("reply", "reason", "advice"),
    [
        ({"text": "Incorrect API key: sk-canary-0123456789", "status": 401}, "$OPENAI_API_KEY", "API key"),
        ({"text": "slow down", "status": 429, "headers": {"Retry-After": "0"}}, "slow down", "num_retries"),
        ({"text": "no such model", "status": 404}, "no such model", ""),
        ({"text": "x" * 2000, "status": 400}, "…", ""),
        ({"delay_s": 0.5, "text": "late"}, "did not answer in time", "timeout_s"),
        ({"body": b"<html>\ngateway"}, "failed", ""),
        ({"text": "I will not follow any format."}, "failed", "adapter"),
    ],
)
def test_a_failing_language_model_is_one_line_with_advice_and_without_the_key(
    make_settings: Any,
    index: LocalIndex,
    language_model: Any,
    reply: dict[str, Any],
    reason: str,
    advice: str,
    streamed: bool,
) -> None:
    language_model.says(**reply)
    settings = make_settings(language_model, language_model={"timeout_s": 0.2, "num_retries": 0})
    with pytest.raises(LanguageModelError) as caught:
        build_program(settings, index).respond(Turn("When?"), (lambda piece: None) if streamed else None)
    message = str(caught.value)
    assert message.startswith("The language model")
    assert "\n" not in message
    assert len(message) < 500
    assert reason in message
    assert advice in message
    assert "sk-canary" not in message


def test_a_language_model_that_is_not_there_is_told_with_its_address(
    make_settings: Any, index: LocalIndex, language_model: Any
) -> None:
    settings = make_settings(
        language_model, language_model={"api_base": "http://127.0.0.1:9/v1", "num_retries": 0}
    )
    with pytest.raises(LanguageModelError, match=r"127\.0\.0\.1:9.* Check language_model\.api_base"):
        build_program(settings, index).respond(Turn("When?"))


def test_a_key_that_is_missing_is_told_to_be_set(
    make_settings: Any, index: LocalIndex, language_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(LanguageModelError, match=r"Set its API key in the environment"):
        build_program(make_settings(language_model), index).respond(Turn("When?"))


def test_what_was_said_before_a_failure_stays_said(lm_program: CitedQA, language_model: Any) -> None:
    language_model.fills(ANSWER, chunk=8, cut_after=9)
    pieces: list[Piece] = []
    with pytest.raises(LanguageModelError, match="cut off"):
        lm_program.respond(Turn("When?"), pieces.append)
    assert "".join(map(str, pieces)).startswith("At 1")


def test_a_key_that_the_gateway_repeats_does_not_reach_the_trace(
    lm_program: CitedQA, language_model: Any, tracing: Callable[[], Trace]
) -> None:
    language_model.says("Incorrect API key: sk-canary-0123456789", status=401)
    mlflow.dspy.autolog()
    with mlflow.start_span("caller"), pytest.raises(LanguageModelError):
        lm_program.respond(Turn("When?"))
    trace = tracing()
    assert "Incorrect API key: $OPENAI_API_KEY" in trace.to_json()
    assert "sk-canary" not in trace.to_json()


def test_compiled_programs_stand_beside_the_default_one(
    make_settings: Any, language_model: Any, index: LocalIndex, tmp_path: Any
) -> None:
    compiled = build_program(make_settings(language_model), index)
    compiled.reader.answer.signature = compiled.reader.answer.signature.with_instructions("Answer in verse.")
    save_state(compiled, tmp_path / "verse.json")
    programs = build_programs(
        make_settings(language_model, program={"states": {"verse": str(tmp_path / "verse.json")}})
    )
    language_model.fills(ANSWER)
    programs["verse"].respond(Turn("When?"))
    programs["default"].respond(Turn("When?"))
    assert "Answer in verse." in language_model.prompt(0)
    assert "Answer in verse." not in language_model.prompt(1)


def test_passages_are_shown_with_number_title_section_and_source(
    lm_program: CitedQA, language_model: Any
) -> None:
    language_model.fills(ANSWER)
    lm_program.respond(Turn("At sea level, when does water boil?"))
    assert "[1] Water (https://docs.example/water)\n# Water" in language_model.prompt()

"""What a sweep records of a question is what the real agent's run would have recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest

from eval.answering import answer_questions
from eval.ground_truth import GroundTruth, read_ground_truth
from eval.questions import Question
from eval.records import AnswerRecord
from eval.sweep.answering import StagedAgent
from eval.traces import collect_traces
from program.agent import CiteqaAgent
from program.content_store import ContentStore
from program.settings import Settings
from program.state import save_state
from retrieval.errors import ConfigurationError, IndexMissingError
from retrieval.local_index import LocalIndex

MakeSettings = Callable[..., Settings]
ROOT = Path(__file__).parents[3]
FOLLOW_UPS = [
    Question(
        "f1",
        "And on Everest?",
        (),
        history=(
            {"role": "user", "content": "At how many degrees does water boil?"},
            {"role": "assistant", "content": "At 100 degrees."},
        ),
    ),
    Question(
        "f2", "どのくらい高いですか", (), history=({"role": "user", "content": "富士山は日本一高い山ですか"},)
    ),
]
ODD = [
    Question("o1", "zzz qqq xxx", ()),
    Question("o2", 'Is "water" AND (iron OR [bees])? *:* ~', ()),
    Question("o3", "half an emoji \ud83d in a question about water", ()),
]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(tmp_path / "stages.db") as opened:
        yield opened


@pytest.fixture
def questions(quiz: GroundTruth) -> list[Question]:
    return [*quiz.questions, *FOLLOW_UPS, *ODD]


def really(settings: Settings, questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """As `citeqa eval` records the agent's answers."""
    agent = CiteqaAgent(settings)
    with collect_traces() as collector:
        return by_id(a.record for a in answer_questions(agent.predict, questions, collector))


def staged(
    settings: Settings, questions: Sequence[Question], cache: ContentStore, depth: int = 10
) -> dict[str, dict[str, Any]]:
    with StagedAgent(settings, cache, depth) as agent:
        return by_id(outcome.record for outcome in agent.answer_all(questions))


def by_id(records: Iterator[AnswerRecord]) -> dict[str, dict[str, Any]]:
    return {record.id: record.model_dump(exclude={"latency_ms", "trace_id"}) for record in records}


SECTIONS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "k = 1": {"retrieval": {"k": 1}},
    "k = 10": {"retrieval": {"k": 10}},
    "English only": {"retrieval": {"filters": {"lang": "en"}}},
    "nothing passes the filter": {"retrieval": {"filters": {"lang": "xx"}}},
    "long answers": {"reader": {"max_sentences": 4, "abstain_below": 0.0}},
    "abstains from nearly all": {"reader": {"abstain_below": 0.95}},
}


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS.keys())
def test_an_extractive_answer_is_the_agents_own(
    make_settings: MakeSettings, questions: list[Question], cache: ContentStore, sections: dict[str, Any]
) -> None:
    settings = make_settings(**sections)
    expected = really(settings, questions)
    assert staged(settings, questions, cache) == expected
    assert staged(settings, questions, cache) == expected, "from what is kept"


def test_among_these_are_answers_and_abstentions(
    make_settings: MakeSettings, questions: list[Question]
) -> None:
    records = really(make_settings(reader={"abstain_below": 0.5}), questions)
    assert {record["abstained"] for record in records.values()} == {True, False}
    assert records["f1"]["retrieved"][0]["doc_uri"] in (
        "https://library.example/mountains",
        "https://library.example/water",
    )
    assert sum(record["error"] is not None for record in records.values()) <= 1
    assert any(record["cited_uris"] for record in records.values())


def test_searches_that_were_made_for_a_larger_k_serve_a_smaller_one(
    make_settings: MakeSettings, questions: list[Question], cache: ContentStore, searches: list[Any]
) -> None:
    for k in (10, 3, 1):
        settings = make_settings(retrieval={"k": k})
        made = len(searches)
        answers = staged(settings, questions, cache)
        assert (len(searches) > made) == (k == 10)
        assert answers == really(settings, questions)


@pytest.mark.parametrize(
    "sections",
    [{}, {"retrieval": {"k": 1}}, {"retrieval": {"filters": {"lang": "ja"}}}, {"evaluation": {"threads": 4}}],
)
def test_a_language_models_answer_is_the_agents_own(
    make_settings: MakeSettings,
    questions: list[Question],
    cache: ContentStore,
    reading_model: Any,
    sections: dict[str, Any],
) -> None:
    settings = make_settings(language_model=reading_model.section(), **sections)
    expected = really(make_settings(language_model=reading_model.section(cache=False), **sections), questions)
    assert expected["q01"]["usage"]["input_tokens"] == 11
    assert expected["f1"]["calls"] == 2, "a follow-up is condensed first"
    assert expected["q04"]["abstained"]
    assert staged(settings, questions, cache) == expected
    asked = len(reading_model.prompts)
    assert staged(settings, questions, cache) == expected, "replayed, with what it cost at first"
    assert len(reading_model.prompts) == asked


def test_a_model_that_fails_is_the_reason_of_its_question_and_a_fallbacks_answer_is_not_steady(
    make_settings: MakeSettings, quiz: GroundTruth, cache: ContentStore, language_model: Any
) -> None:
    language_model.says("the model is out", status=400)
    section = {"model": "openai/test", "api_base": language_model.url, "num_retries": 0}
    questions = quiz.questions[:2]
    for fallback in ("none", "extractive"):
        settings = make_settings(language_model=section, reader={"fallback": fallback})
        expected = really(settings, questions)
        assert staged(settings, questions, cache) == expected
        with StagedAgent(settings, cache, 3) as agent:
            outcomes = list(agent.answer_all(questions))
        assert not any(outcome.is_steady for outcome in outcomes)
        assert all((outcome.record.error is None) == (fallback == "extractive") for outcome in outcomes)
    mlflow.dspy.autolog(disable=True)


def test_a_compiled_program_answers_as_it_does_for_the_agent(
    make_settings: MakeSettings, quiz: GroundTruth, cache: ContentStore, reading_model: Any, tmp_path: Path
) -> None:
    from program.assembly import build_program

    settings = make_settings(language_model=reading_model.section(cache=False))
    program = build_program(settings, LocalIndex.open(settings.retrieval.index))
    program.reader.answer.signature = program.reader.answer.signature.with_instructions(
        "Answer like a pirate."
    )
    state = tmp_path / "pirate.json"
    save_state(program, state)
    settings = make_settings(
        language_model=reading_model.section(cache=False), program={"states": {"default": str(state)}}
    )
    reading_model.reads()
    expected = really(settings, quiz.questions[:2])
    assert staged(settings, quiz.questions[:2], cache) == expected
    assert len(reading_model.prompts) == 4
    assert all("pirate" in prompt for prompt in reading_model.prompts)


def test_every_question_of_the_sample_is_answered_as_the_agent_answers_it(
    make_settings: MakeSettings, cache: ContentStore, tmp_path: Path
) -> None:
    from retrieval.corpus import read_documents

    index = tmp_path / "sample"
    LocalIndex.build(index, read_documents(str(ROOT / "datasets/agent_docs/docs")))
    questions = read_ground_truth(ROOT / "datasets/agent_docs/ground_truth.jsonl", split="dev").questions
    assert len(questions) > 100
    for k in (5, 3):
        settings = make_settings(retrieval={"index": str(index), "k": k}, evaluation={"threads": 1})
        assert staged(settings, questions, cache, depth=5) == really(settings, questions)


def test_before_each_question_one_may_say_stop_and_those_under_way_are_kept(
    make_settings: MakeSettings, quiz: GroundTruth, cache: ContentStore, reading_model: Any
) -> None:
    class Stop(Exception):  # noqa: N818 - no error
        pass

    allowed = 5

    def stop() -> None:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise Stop

    settings = make_settings(language_model=reading_model.section(), evaluation={"threads": 3})
    records: list[Any] = []
    with StagedAgent(settings, cache, 3) as agent, pytest.raises(Stop):
        records.extend(agent.answer_all(quiz.questions, stop))
    assert len(records) == len(reading_model.prompts) == 5
    assert all(outcome.is_paid for outcome in records)
    with StagedAgent(settings, cache, 3) as agent:
        outcomes = list(agent.answer_all(quiz.questions))
    assert sum(outcome.is_paid for outcome in outcomes) == 7, "what is replayed is not paid for twice"


def test_what_is_asked_leaves_no_trace_behind(
    make_settings: MakeSettings, quiz: GroundTruth, cache: ContentStore, reading_model: Any
) -> None:
    mlflow.set_tracking_uri(make_settings().tracking.uri)
    staged(make_settings(language_model=reading_model.section()), quiz.questions[:2], cache)
    mlflow.flush_trace_async_logging()
    assert mlflow.search_traces(locations=["0"], return_type="list") == []


@pytest.mark.parametrize(
    ("sections", "error"),
    [
        ({"retrieval": {"index": "/nowhere"}}, IndexMissingError),
        ({"reader": {"kind": "lm"}}, ConfigurationError),
    ],
)
def test_an_agent_that_cannot_be_made_says_why_and_leaves_tracing_as_it_was(
    make_settings: MakeSettings, cache: ContentStore, sections: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        StagedAgent(make_settings(**sections), cache, 3)
    mlflow.tracing.reset()
    with collect_traces() as collector:
        assert collector.call(mlflow.trace(lambda: 1)).traces, raised


def test_warming_up_is_asked_once_of_an_agent_and_never_of_a_language_model(
    make_settings: MakeSettings,
    quiz: GroundTruth,
    cache: ContentStore,
    reading_model: Any,
    searches: list[Any],
) -> None:
    with StagedAgent(make_settings(), cache, 3) as agent:
        assert len(list(agent.answer_all(quiz.questions[:2]))) == 2
        assert len(list(agent.answer_all(quiz.questions[2:4]))) == 2
    assert len(searches) == 4
    with StagedAgent(make_settings(language_model=reading_model.section(cache=False)), cache, 3) as agent:
        outcomes = list(agent.answer_all(quiz.questions[:2]))
    assert len(reading_model.prompts) == 2
    assert all(outcome.is_paid for outcome in outcomes)

"""One scored run: broken set-ups stop early, what is finished is never asked again, failures are no zeros."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType, Trace
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

from eval.answering import Agent
from eval.ground_truth import GroundTruth
from eval.metrics import default_metrics
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, RunDirectory
from eval.run import TRIED_FIRST, RunPlan, RunResult, answer_run, score_row, score_run
from program.agent import CiteqaAgent
from program.settings import Settings
from retrieval.errors import LanguageModelError, RunStoppedError, StorageError

pytestmark = pytest.mark.usefixtures("mlflow_as_found")

MakeSettings = Callable[..., Settings]


class Watched:
    """The real agent, which also counts what it is asked and raises on the questions it is told to."""

    def __init__(self, settings: Settings) -> None:
        self.asked: list[str] = []
        self.raises: dict[str, BaseException] = {}
        self.raises_always: BaseException | None = None
        self._agent = CiteqaAgent(settings)

    def __call__(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        question = str(request.input[-1].model_dump()["content"])
        self.asked.append(question)
        error = self.raises.get(question, self.raises_always)
        if error is not None:
            raise error
        return self._agent.predict(request)


@pytest.fixture
def agent(make_settings: MakeSettings) -> Watched:
    return Watched(make_settings())


@pytest.fixture
def plan(quiz: GroundTruth) -> RunPlan:
    return RunPlan("quiz", {"k": 3}, quiz, default_metrics((1, 3)))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def answer(plan: RunPlan, run: RunDirectory, agent: Agent, **how: Any) -> int:
    with run:
        return answer_run(plan, run, agent, how.pop("keep_traces", list), **how)


def score(plan: RunPlan, run: RunDirectory, answered_now: int = 0) -> RunResult:
    with run:
        return score_run(plan, run, answered_now)


def texts(plan: RunPlan, *ids: str) -> list[str]:
    return [question.question for question in plan.ground_truth.questions if question.id in ids]


def comparable(run: RunDirectory) -> list[dict[str, Any]]:
    """The scored questions without what differs from one run to the next."""
    rows = [json.loads(line) for line in run.scores_file.read_text().splitlines()]
    for row in rows:
        row["metrics"].pop("latency_ms", None)
        row.pop("latency_ms", None)
        row.pop("trace_id", None)
    return rows


def many(plan: RunPlan, count: int) -> RunPlan:
    """The plan with so many questions, all about bread."""
    questions = [
        Question(f"q{n}", f"What makes bread rise, for the {n}th time?", ((GoldItem("x"),),))
        for n in range(count)
    ]
    return replace(plan, ground_truth=replace(plan.ground_truth, questions=tuple(questions)))


def untraced(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    return ResponsesAgentResponse(output=[])


@mlflow.trace(span_type=SpanType.RETRIEVER)
def nothing_found(query: str) -> list[dict[str, Any]]:
    return []


def finds_nothing(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    nothing_found("x")
    return ResponsesAgentResponse(output=[])


# What is asked, and when it stops


def test_every_question_is_asked_once_and_its_progress_told(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    told: list[tuple[int, int]] = []
    assert answer(plan, run, agent, on_answer=lambda done, total: told.append((done, total))) == 12
    assert Counter(agent.asked) == Counter(question.question for question in plan.ground_truth.questions)
    assert told == [(number, 12) for number in range(1, 13)]


def test_each_trace_is_kept_once(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    kept: list[Trace] = []
    answer(plan, run, agent, keep_traces=kept.extend)
    records = run.read_answers().values()
    assert Counter(trace.info.trace_id for trace in kept) == Counter(record.trace_id for record in records)
    assert not run.traces_file.exists()


def test_answerable_questions_are_tried_first(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    answer(plan, run, agent)
    assert agent.asked[:TRIED_FIRST] == texts(plan, "q01", "q02", "q03", "q05", "q06")


@pytest.mark.parametrize("threads", [1, 4])
def test_a_run_stops_when_each_of_the_first_questions_fails(
    plan: RunPlan, run: RunDirectory, agent: Watched, threads: int
) -> None:
    agent.raises_always = LanguageModelError("The language model is out.")
    with pytest.raises(RunStoppedError, match=r"each of the first 5 .* because: The language model is out\."):
        answer(replace(plan, threads=threads), run, agent)
    assert len(agent.asked) == TRIED_FIRST
    agent.raises_always = None
    assert answer(plan, run, agent) == 12


def test_a_run_stops_when_nothing_shows_what_was_retrieved(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    with pytest.raises(RunStoppedError, match="no RETRIEVER span in the traces of the first 5 questions"):
        answer(plan, run, untraced)
    assert answer(plan, run, agent) == 12, "the five answers that prove nothing are not kept"


def test_a_run_stops_when_nothing_is_retrieved(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    with pytest.raises(RunStoppedError, match=r"nothing was retrieved .*'At how many degrees.*\?'"):
        answer(plan, run, finds_nothing)
    assert answer(plan, run, agent) == 12


def test_one_failure_among_the_first_stops_nothing(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    agent.raises = dict.fromkeys(texts(plan, "q01"), ValueError("odd"))
    assert answer(plan, run, agent) == 12


def test_a_single_question_is_no_reason_to_stop(plan: RunPlan, run: RunDirectory) -> None:
    assert answer(many(plan, 1), run, untraced) == 1


def test_questions_without_gold_are_no_reason_to_stop(plan: RunPlan, run: RunDirectory) -> None:
    unanswerable = tuple(question for question in plan.ground_truth.questions if not question.answerable)
    plan = replace(plan, ground_truth=replace(plan.ground_truth, questions=unanswerable))
    assert answer(plan, run, finds_nothing) == 2


def test_a_run_stops_later_when_too_many_questions_fail(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    plan = many(replace(plan, max_failed_share=0.1), 100)
    agent.raises = {q.question: ValueError("full") for q in plan.ground_truth.questions[20:]}
    with pytest.raises(RunStoppedError, match=r"11 of 31 questions failed, .*ValueError\('full'\) Mend"):
        answer(plan, run, agent)
    assert len(agent.asked) <= 32, "one may be under way by then"
    assert len(run.read_answers()) == 20, "what failed is asked again"
    agent.raises = {}
    assert answer(plan, run, agent) == 80


def test_a_run_that_stopped_still_brings_its_traces_home(plan: RunPlan, run: RunDirectory) -> None:
    kept: list[Trace] = []
    with pytest.raises(RunStoppedError):
        answer(plan, run, finds_nothing, keep_traces=kept.extend)
    assert len(kept) == TRIED_FIRST


# The same call again


def test_a_finished_run_asks_nothing(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    answer(plan, run, agent)
    agent.asked.clear()
    assert answer(plan, run, agent) == 0
    assert agent.asked == []


def test_a_run_interrupted_before_anything_worked_is_tried_again(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    agent.raises_always = ValueError("broken")
    agent.raises = dict.fromkeys(texts(plan, "q03"), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        answer(plan, run, agent)
    assert len(run.read_answers()) == 2
    agent.raises, agent.asked = {}, []
    with pytest.raises(RunStoppedError, match="each of the first 5 questions failed"):
        answer(plan, run, agent)
    assert len(agent.asked) == 5
    assert run.read_answers() == {}


def test_questions_of_another_run_in_the_directory_are_not_counted(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    with run:
        run.append_answer(AnswerRecord(id="elsewhere", error="no"), ())
    told: list[tuple[int, int]] = []
    answer(plan, run, agent, on_answer=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert score(plan, run).failed == {}


def test_a_run_interrupted_at_its_seventh_answer_keeps_six_and_goes_on_to_the_same_scores(
    plan: RunPlan, run: RunDirectory, agent: Watched, make_settings: MakeSettings, tmp_path: Path
) -> None:
    whole = RunDirectory(tmp_path / "whole")
    answer(plan, whole, Watched(make_settings()))
    uninterrupted = score(plan, whole)

    seventh = texts(plan, "q07")
    agent.raises = dict.fromkeys(seventh, KeyboardInterrupt())
    kept: list[Trace] = []
    with pytest.raises(KeyboardInterrupt):
        answer(plan, run, agent, keep_traces=kept.extend)
    assert agent.asked[6:] == seventh
    assert len(run.read_answers()) == 6
    assert len(kept) == 6

    agent.raises, agent.asked = {}, []
    assert answer(plan, run, agent, keep_traces=kept.extend) == 6
    assert len(agent.asked) == 6
    assert len({trace.info.trace_id for trace in kept}) == 12
    result = score(plan, run)
    assert comparable(run) == comparable(whole)
    means = {name: i for name, i in result.summary.overall.intervals.items() if name != "latency_ms"}
    assert means.items() <= uninterrupted.summary.overall.intervals.items()


def test_a_failed_question_is_unscored_and_asked_again_only_on_demand(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    agent.raises = dict.fromkeys(texts(plan, "q09"), ValueError("odd"))
    answer(plan, run, agent)
    result = score(plan, run)
    assert result.failed == {"q09": "ValueError('odd')"}
    assert result.scores["q09"] == {}
    assert (result.summary.overall.scored, result.summary.overall.unscored) == (11, 1)
    assert result.summary.overall.intervals["recall@3"].n == 9
    row = next(row for row in comparable(run) if row["id"] == "q09")
    assert (row["error"], row["metrics"]) == ("ValueError('odd')", {})

    agent.raises, agent.asked = {}, []
    assert answer(plan, run, agent) == 0
    assert answer(plan, run, agent, retry_errors=True) == 1
    assert agent.asked == texts(plan, "q09")
    assert score(plan, run).summary.overall.intervals["recall@3"].n == 10


def test_a_question_that_fails_for_good_does_not_stop_its_retry(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    agent.raises = dict.fromkeys(texts(plan, "q08", "q09"), ValueError("odd"))
    answer(plan, run, agent)
    assert answer(plan, run, agent, retry_errors=True) == 2
    assert set(score(plan, run).failed) == {"q08", "q09"}


def test_a_run_can_be_scored_anew_without_asking(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    answer(plan, run, agent)
    agent.asked.clear()
    result = score(replace(plan, metrics=default_metrics((2,)), slices=("lang",)), run)
    assert "recall@2" in result.summary.overall.intervals
    assert list(result.summary.slices) == ["lang"]
    assert agent.asked == []


def test_a_run_that_is_not_finished_says_which_questions_are_not_answered(
    plan: RunPlan, run: RunDirectory
) -> None:
    result = score(plan, run)
    assert result.summary.overall.unscored == 12
    assert {row["error"] for row in comparable(run)} == {"not answered"}


def test_the_row_of_a_question_holds_its_evidence(plan: RunPlan, run: RunDirectory, agent: Watched) -> None:
    answer(plan, run, agent)
    score(plan, run)
    row = comparable(run)[6]
    assert (row["id"], row["tags"]["type"]) == ("q07", "two")
    assert row["gold"] == [["https://library.example/iron"], ["https://library.example/water"]]
    assert {found["doc_uri"] for found in row["retrieved"]} >= {"https://library.example/iron"}
    assert row["metrics"]["recall@3"] == 1.0
    assert json.loads(run.summary_file.read_text())["overall"]["scored"] == 12


def test_a_document_that_was_judged_not_to_be_relevant_is_no_gold_of_the_row(
    plan: RunPlan, run: RunDirectory
) -> None:
    judged = Question(
        "q", "What melts?", ((GoldItem("https://a.example", grade=0),), (GoldItem("https://b.example"),))
    )
    row = score_row(judged, score(plan, run))
    assert row["gold"] == [["https://b.example"]]


# Stores that refuse


def refuse(traces: Sequence[Trace]) -> None:
    raise StorageError("the store is away")


def test_when_the_store_refuses_answers_are_kept_and_traces_follow_later(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    with pytest.raises(StorageError, match="the store is away"):
        answer(plan, run, agent, keep_traces=refuse)
    assert len(run.read_answers()) == 12
    kept: list[Trace] = []
    assert answer(plan, run, agent, keep_traces=kept.extend) == 0
    assert {trace.info.trace_id for trace in kept} == {r.trace_id for r in run.read_answers().values()}
    assert run.pending_traces() == []


def test_when_the_disk_refuses_the_run_ends_and_goes_on_with_what_it_has(
    plan: RunPlan, run: RunDirectory, agent: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_append, appended = RunDirectory.append_answer, 0

    def append(self: RunDirectory, record: AnswerRecord, traces: Sequence[Trace]) -> None:
        nonlocal appended
        appended += 1
        if appended > 4:
            raise StorageError("full")
        really_append(self, record, traces)

    monkeypatch.setattr(RunDirectory, "append_answer", append)
    with pytest.raises(StorageError, match="full"):
        answer(plan, run, agent)
    monkeypatch.undo()
    assert len(run.read_answers()) == 4
    assert answer(plan, run, agent) == 8


def test_traces_go_to_the_store_in_batches(
    plan: RunPlan, run: RunDirectory, agent: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.run.BATCH_SIZE", 5)
    batches: list[int] = []
    answer(plan, run, agent, keep_traces=lambda traces: batches.append(len(traces)))
    assert batches == [5, 5, 2]


def test_searches_in_threads_of_the_agents_own_are_kept_though_no_question_can_claim_them(
    plan: RunPlan, run: RunDirectory, agent: Watched
) -> None:
    def wandering(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        thread = threading.Thread(target=nothing_found, args=("x",))
        thread.start()
        thread.join()
        return agent(request)

    kept: list[Trace] = []
    answer(plan, run, wandering, keep_traces=kept.extend)
    assert len(kept) == 24


# Which run it is


def test_a_run_is_known_by_what_it_is_of(plan: RunPlan) -> None:
    fewer = replace(plan.ground_truth, questions=plan.ground_truth.questions[1:])
    elsewhere = replace(plan.ground_truth, path=Path("/elsewhere/quiz.jsonl"))
    assert plan.key.startswith("quiz-")
    assert replace(plan, metrics=(), threads=9, ground_truth=elsewhere).key == plan.key
    assert replace(plan, identity={"k": 4}).key != plan.key
    assert replace(plan, ground_truth=fewer).key != plan.key

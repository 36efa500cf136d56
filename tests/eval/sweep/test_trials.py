"""One configuration: from what is kept where it is there, question by question, and failures are no zeros."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from eval.comparison.loading import read_scored_run
from eval.evaluate import evaluate
from eval.sweep.planning import plan_trials
from eval.sweep.questions import read_questions
from eval.sweep.results import NOTHING, Spending
from eval.sweep.space import build_space
from eval.sweep.stages import Stages
from eval.sweep.trials import Progress, ScoredTrial, TrialPlan, run_trial
from program.qa import CitedQA
from program.settings import TrackingSettings, load_settings
from retrieval.local_retriever import LETTERS_DEPTH

MakePlan = Callable[..., TrialPlan]
ANSWER_USD = (11 * 100 + 7 * 1000) / 1e6


@pytest.fixture
def make_plan(sweeps: Any) -> Iterator[MakePlan]:
    """The plan of a sweep, over the test's one cache, as another process would make it."""
    opened: list[Stages] = []

    def make(own_indexes: bool = False, **keys: Any) -> TrialPlan:
        retry_errors = keys.pop("retry_errors", False)
        specification = sweeps.specify(**keys)
        space = build_space(specification, "s.yaml")
        chosen_on, _ = read_questions(specification, space.base)
        stages = Stages(Path(specification.cache), own_indexes=own_indexes)
        opened.append(stages)
        directory = Path(specification.results) / "quiz"
        return plan_trials(specification, space, stages, chosen_on, directory, retry_errors=retry_errors)

    yield make
    for stages in opened:
        stages.store.close()


class Broken:
    """The real program, which fails on questions with these words, and counts what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: tuple[str, ...] = ()
        self.asked: list[str] = []
        really_respond = CitedQA.respond

        def respond(program: CitedQA, turn: Any, emit: Any = None) -> Any:
            self.asked.append(turn.question)
            if any(word in turn.question for word in self.words):
                raise ValueError("the reader stumbled")
            return really_respond(program, turn, emit)

        monkeypatch.setattr(CitedQA, "respond", respond)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, cold: None) -> Broken:
    return Broken(monkeypatch)


def rows_of(scored: ScoredTrial) -> dict[str, Any]:
    lines = (scored.trial.path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def run(plan: TrialPlan, k: int = 3, number: int = 1, **parameters: Any) -> ScoredTrial:
    return run_trial(plan, number, {"retrieval.k": k, **parameters})


def test_a_trial_is_what_citeqa_eval_says_of_the_same_configuration(
    make_plan: MakePlan, sweeps: Any, store: str, tmp_path: Path
) -> None:
    scored = run(make_plan())
    settings = load_settings(
        sweeps.write_config(
            tracking={"uri": store}, evaluation={"results": str(tmp_path / "r"), "split": None}
        )
    )
    expected = evaluate(settings).result
    overall = scored.trial.summary.overall
    clockless = {name: i for name, i in overall.intervals.items() if name != "latency_ms"}
    assert {n: i for n, i in expected.summary.overall.intervals.items() if n in clockless} == clockless
    assert (overall.scored, overall.unscored) == (12, 0)
    assert set(scored.trial.summary.slices) == set(expected.summary.slices)
    assert scored.trial.objectives == {"citation_recall": overall.intervals["citation_recall"].mean}
    assert scored.trial.spending == NOTHING


def test_its_directory_is_a_run_that_every_command_reads(make_plan: MakePlan) -> None:
    scored = run(make_plan())
    loaded = read_scored_run(str(scored.trial.path), TrackingSettings())
    values = dict(zip(loaded.questions, loaded.values["citation_recall"].tolist(), strict=True))
    assert {id_: value for id_, value in values.items() if not math.isnan(value)} == scored.values
    assert len(values) == 12
    manifest = json.loads((scored.trial.path / "run.json").read_bytes())
    assert manifest["settings"]["retrieval"]["k"] == 3
    assert manifest["dataset"]["questions"] == 12


def test_a_finished_trial_is_read_back_as_it_was_and_nothing_is_asked(
    make_plan: MakePlan, broken: Broken
) -> None:
    first = run(make_plan())
    files = {file: file.read_bytes() for file in first.trial.path.iterdir() if file.is_file()}
    again = run(make_plan())
    assert again == first
    assert len(broken.asked) == 12
    assert {file: file.read_bytes() for file in files} == files


@pytest.mark.parametrize("name", ["trial.json", "summary.json", "scores.jsonl"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n", b"null\n"])
def test_a_trial_whose_files_are_damaged_is_scored_anew_from_its_answers(
    make_plan: MakePlan, broken: Broken, name: str, content: bytes
) -> None:
    first = run(make_plan())
    (first.trial.path / name).write_bytes(content)
    assert run(make_plan()) == first
    assert len(broken.asked) == 12
    assert len(rows_of(first)) == 12


def test_a_damaged_answer_is_asked_again(make_plan: MakePlan, broken: Broken) -> None:
    plan = make_plan()
    first = run(plan)
    (first.trial.path / "trial.json").unlink()
    one = "(SELECT min(key) FROM contents WHERE kind = 'answer')"
    plan.stages.store._connection.execute(
        f"UPDATE contents SET value = x'00' WHERE kind = 'answer' AND key = {one}"
    )
    assert run(make_plan()).values == first.values
    assert len(broken.asked) == 13


def test_other_slices_metrics_or_prices_are_scored_anew_and_nothing_is_asked(
    make_plan: MakePlan, broken: Broken
) -> None:
    first = run(make_plan())
    sliced = run(make_plan(set={"evaluation.slices": ["lang"]}))
    assert set(first.trial.summary.slices) == {"type", "lang"}
    assert set(sliced.trial.summary.slices) == {"lang"}
    deeper = run(make_plan(objectives=["recall@2"]))
    assert "recall@2" in deeper.trial.summary.overall.intervals
    assert len(broken.asked) == 12


def test_questions_of_a_second_configuration_share_what_it_does_not_change(
    make_plan: MakePlan, searches: list[Any]
) -> None:
    plan = make_plan(factors={"retrieval.k": [1, 3], "reader.max_sentences": [1, 2]})
    for number, (k, sentences) in enumerate([(3, 2), (1, 2), (3, 1), (1, 1)], start=1):
        run(plan, k, number, **{"reader.max_sentences": sentences})
    assert len(searches) == 12
    assert {k for _, k in searches} == {LETTERS_DEPTH}, "as deep as any of them needs it"


def test_a_factor_of_the_index_builds_one_for_each_value_and_searches_each_once(
    make_plan: MakePlan, corpus: Path, searches: list[Any]
) -> None:
    factors = {"chunking.max_tokens": [60, 100], "retrieval.k": [3, 1]}
    plan = make_plan(
        own_indexes=True,
        factors=factors,
        sections={"corpus": {"path": str(corpus)}, "chunking": {"overlap_tokens": 0}},
    )
    trials = [run(plan, k, **{"chunking.max_tokens": n}) for n in (60, 100) for k in (3, 1)]
    assert all(scored.trial.state == "complete" for scored in trials)
    assert len(list((plan.stages.directory / "indexes").glob("*/manifest.json"))) == 2
    assert len(searches) == 24


# Failures


def test_a_question_that_fails_is_unscored_with_its_reason_and_in_no_mean(
    make_plan: MakePlan, broken: Broken
) -> None:
    broken.words = ("Yeast", "bread")
    scored = run(make_plan())
    whole = scored.trial.summary.overall
    assert (scored.trial.state, whole.scored, whole.unscored) == ("complete", 11, 1)
    row = rows_of(scored)["q09"]
    assert (row["error"], row["metrics"]) == ("ValueError('the reader stumbled')", {})
    assert "q09" not in scored.values
    assert whole.intervals["recall@3"].n == 9, "of ten answerable ones"


def test_failures_stand_until_they_are_to_be_retried(make_plan: MakePlan, broken: Broken) -> None:
    broken.words = ("bread",)
    first = run(make_plan())
    broken.words = ()
    asked = len(broken.asked)
    assert run(make_plan()) == first
    (first.trial.path / "trial.json").unlink()
    assert run(make_plan()) == first, "nor does scoring ask them again"
    assert len(broken.asked) == asked
    mended = run(make_plan(retry_errors=True))
    assert broken.asked[asked:] == ["What makes bread rise?"]
    assert mended.trial.summary.overall.unscored == 0
    assert run(make_plan(retry_errors=True)) == run(make_plan()) == mended
    assert len(broken.asked) == asked + 1


def test_a_retry_that_fails_again_stands_again(make_plan: MakePlan, broken: Broken) -> None:
    broken.words = ("bread",)
    first = run(make_plan())
    again = run(make_plan(retry_errors=True))
    assert again == first
    asked = len(broken.asked)
    assert run(make_plan()) == first
    assert len(broken.asked) == asked


def test_a_configuration_that_fails_at_once_costs_five_questions(make_plan: MakePlan, broken: Broken) -> None:
    broken.words = ("",)
    scored = run(make_plan())
    assert scored.trial.state == "failed"
    assert scored.trial.reason == (
        "each of the first 5 questions failed, the last because: ValueError('the reader stumbled')"
    )
    assert len(broken.asked) == 5
    assert scored.trial.objectives == {"citation_recall": None}
    assert scored.values == {}
    broken.words = ()
    assert run(make_plan()).trial.state == "complete", "mended, it goes on: no such failure stands"


def test_more_failures_than_are_borne_fail_the_configuration(make_plan: MakePlan, broken: Broken) -> None:
    broken.words = ("How", "Why", "What", "Do")
    scored = run(make_plan())
    assert scored.trial.state == "failed"
    assert "questions failed, the last because: ValueError" in scored.trial.reason
    tolerant = run(make_plan(set={"evaluation.max_failed_share": 0.9}))
    assert tolerant.trial.state == "complete"
    assert tolerant.trial.summary.overall.unscored == len([q for q in tolerant_questions(tolerant) if q])


def tolerant_questions(scored: ScoredTrial) -> list[bool]:
    return [row["error"] is not None for row in rows_of(scored).values()]


@pytest.mark.parametrize(
    ("keys", "parameters", "says"),
    [
        ({"set": {"retrieval.index": "/nowhere"}}, {}, "No index at '/nowhere'"),
        ({}, {"reader.kind": "lm"}, "No language model is configured"),
        ({}, {"program.states.default": "/nowhere.json"}, "/nowhere.json"),
    ],
)
def test_a_configuration_that_cannot_be_set_up_fails_with_its_reason(
    make_plan: MakePlan, keys: Any, parameters: Any, says: str
) -> None:
    scored = run(make_plan(**keys), **parameters)
    assert scored.trial.state == "failed"
    assert says in scored.trial.reason


def test_chunks_that_overlap_more_than_they_hold_fail_alone(make_plan: MakePlan, corpus: Path) -> None:
    plan = make_plan(own_indexes=True, sections={"corpus": {"path": str(corpus)}})
    scored = run(plan, **{"chunking.max_tokens": 50, "chunking.overlap_tokens": 60})
    assert (scored.trial.state, "overlap" in scored.trial.reason) == ("failed", True)


# Costs


def test_what_answers_cost_is_known_each_time_and_spent_once(make_plan: MakePlan, reading_model: Any) -> None:
    keys = {"sections": {"language_model": reading_model.section()}}
    told: list[Progress] = []
    plan = replace(make_plan(**keys), on_progress=told.append)
    first = run(plan)
    assert first.trial.spending == Spending(pytest.approx(12 * ANSWER_USD), 132, 84, 12)
    assert sum(progress.spent.calls for progress in told) == 12
    told.clear()
    (first.trial.path / "trial.json").unlink()
    assert run(plan) == first
    assert sum(progress.spent.calls for progress in told) == 0
    assert told[-1].answered == 12
    assert len(reading_model.prompts) == 12


def test_calls_that_another_configuration_made_are_not_spent_again(
    make_plan: MakePlan, reading_model: Any
) -> None:
    told: list[Progress] = []
    keys = {
        "factors": {"retrieval.k": [3], "reader.fallback": ["none", "extractive"]},
        "sections": {"language_model": reading_model.section()},
    }
    plan = replace(make_plan(**keys), on_progress=told.append)
    trials = [
        run(plan, number=n, **{"reader.fallback": f}) for n, f in enumerate(("none", "extractive"), start=1)
    ]
    assert trials[0].trial.spending == trials[1].trial.spending
    assert trials[0].values == trials[1].values
    assert len(reading_model.prompts) == 12
    assert sum(progress.spent.calls for progress in told) == 12


def test_a_price_that_nobody_knows_is_unknown_and_can_be_stated_later(
    make_plan: MakePlan, reading_model: Any
) -> None:
    section = reading_model.section(price=None)
    scored = run(make_plan(sections={"language_model": section}, objectives=["usd"]))
    assert scored.trial.spending == Spending(None, 132, 84, 12)
    assert scored.trial.objectives == {"usd": None}
    priced = run(make_plan(sections={"language_model": reading_model.section()}, objectives=["usd"]))
    assert priced.trial.spending.usd == pytest.approx(12 * ANSWER_USD)
    assert priced.trial.objectives == {"usd": pytest.approx(ANSWER_USD)}
    assert len(reading_model.prompts) == 12


def test_what_a_fallback_answered_is_asked_again_by_the_next_scoring(
    make_plan: MakePlan, language_model: Any
) -> None:
    language_model.says("the model is out", status=400)
    section = {"model": "openai/test", "api_base": language_model.url, "num_retries": 0}
    keys = {"sections": {"language_model": section, "reader": {"fallback": "extractive"}}}
    first = run(make_plan(**keys))
    assert first.trial.state == "complete"
    assert rows_of(first)["q01"]["reader"] == "extractive"
    asked = len(language_model.requests)
    assert run(make_plan(**keys)) == first
    assert len(language_model.requests) == asked
    (first.trial.path / "trial.json").unlink()
    run(make_plan(**keys))
    assert len(language_model.requests) == 2 * asked
    mlflow.dspy.autolog(disable=True)


def test_threads_ask_as_many_questions_at_once_and_each_once(make_plan: MakePlan, reading_model: Any) -> None:
    reading_model.reads(delay_s=0.05)
    keys = {"sections": {"language_model": reading_model.section()}, "set": {"evaluation.threads": 4}}
    assert run(make_plan(**keys)).trial.state == "complete"
    assert len(set(reading_model.prompts)) == len(reading_model.prompts) == 12


# Racing


def test_a_stopped_trial_has_what_it_answered_and_no_more(make_plan: MakePlan, broken: Broken) -> None:
    plan = replace(make_plan(), looks=(5, 9))
    looked: list[tuple[int, int]] = []

    def race(answered: int, values: Any) -> bool:
        looked.append((answered, len(values)))
        return answered >= 9

    scored = run_trial(plan, 1, {"retrieval.k": 3}, race)
    assert [answered for answered, _ in looked] == [5, 9]
    assert (scored.trial.state, scored.trial.reason) == ("stopped", "after 9 questions")
    assert broken.asked == [question.question for question in plan.order[:9]]
    assert len(rows_of(scored)) == 9
    assert set(scored.values) <= {question.id for question in plan.order[:9]}
    assert run_trial(plan, 1, {"retrieval.k": 3}, race) == scored
    assert len(broken.asked) == 9


def test_failures_of_a_stopped_trial_stand_too(make_plan: MakePlan, broken: Broken) -> None:
    plan = replace(make_plan(), looks=(11,))
    broken.words = (plan.order[2].question,)
    scored = run_trial(plan, 1, {"retrieval.k": 3}, lambda *_: True)
    assert scored.trial.summary.overall.unscored == 1
    broken.words = ()
    assert run_trial(plan, 1, {"retrieval.k": 3}, lambda *_: True) == scored
    assert len(broken.asked) == 11


def test_a_trial_that_was_complete_and_is_stopped_now_does_not_pass_for_complete(
    make_plan: MakePlan, broken: Broken
) -> None:
    broken.words = ("bread",)
    complete = run(make_plan())
    plan = replace(make_plan(retry_errors=True), looks=(3,))
    assert run_trial(plan, 1, {"retrieval.k": 3}, lambda *_: True).trial.state == "stopped"
    later = run(make_plan())
    assert len(rows_of(later)) == 12
    assert later.trial.summary.overall.scored + later.trial.summary.overall.unscored == 12
    assert complete.trial.path == later.trial.path


def test_an_interruption_keeps_what_is_answered(make_plan: MakePlan, broken: Broken) -> None:
    plan = make_plan()

    def interrupt(progress: Progress) -> None:
        if progress.answered == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(plan, on_progress=interrupt))
    assert len(broken.asked) == 7
    whole = run(make_plan())
    assert len(broken.asked) == 12
    assert whole.trial.summary.overall.scored == 12


def test_two_trials_of_one_cache_at_once_do_not_disturb_one_another(make_plan: MakePlan) -> None:
    found: dict[int, ScoredTrial] = {}
    plans = {k: make_plan() for k in (1, 3)}
    threads = [threading.Thread(target=lambda k=k: found.update({k: run(plans[k], k)})) for k in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {k: scored.trial.state for k, scored in found.items()} == {1: "complete", 3: "complete"}

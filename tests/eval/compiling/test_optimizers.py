"""Each optimizer end to end: the rule-following model over HTTP through the real client, and a real index."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest

from eval.compiling.candidates import state_key
from eval.compiling.examples import to_examples
from eval.compiling.metering import LimitReachedError, Meter, MeteredEngine
from eval.compiling.optimizers import parse_optimizer
from eval.compiling.optimizers.preparing import prepare, teaching
from eval.compiling.optimizers.watching import HOPELESS
from eval.compiling.remembering_retriever import RememberingRetriever
from eval.compiling.specification import Limits
from eval.compiling.task import Candidate, CompileTask
from eval.ground_truth import read_ground_truth
from program.assembly import build_program
from program.content_store import ContentStore
from program.language_models import build_lm
from program.settings import validate_settings
from program.state import load_state, save_state
from program.types import Message
from retrieval.errors import ConfigurationError, RunStoppedError
from retrieval.local_index import LocalIndex

TRAIN, DEV = 6, 5
MakeTask = Callable[..., CompileTask]

SMALL: dict[str, dict[str, Any]] = {
    "LabeledFewShot": {"k": 3},
    "BootstrapFewShot": {"max_bootstrapped_demos": 2, "max_labeled_demos": 3, "metric_threshold": 1.0},
    "BootstrapFewShotWithRandomSearch": {"num_candidate_programs": 2, "max_bootstrapped_demos": 2},
    "COPRO": {"breadth": 2, "depth": 2},
    "MIPROv2": {"num_candidates": 4, "num_trials": 3, "max_bootstrapped_demos": 2, "max_labeled_demos": 2},
    "SIMBA": {"bsize": 3, "max_steps": 2, "num_candidates": 2, "max_demos": 2},
    "GEPA": {"max_metric_calls": 24},
    "InferRules": {"num_candidates": 2, "num_rules": 2, "max_bootstrapped_demos": 2},
    "BetterTogether": {
        "steps": [
            {"name": "BootstrapFewShot", "max_bootstrapped_demos": 1},
            {"name": "GEPA", "max_metric_calls": 12},
        ]
    },
}

BARE: dict[str, Callable[[CompileTask], dspy.Module]] = {
    "LabeledFewShot": lambda task: dspy.LabeledFewShot(k=3).compile(task.program, trainset=task.train),
    "BootstrapFewShot": lambda task: dspy.BootstrapFewShot(
        metric=task.metric, max_bootstrapped_demos=2, max_labeled_demos=3, metric_threshold=1.0
    ).compile(task.program, trainset=task.train),
    "BootstrapFewShotWithRandomSearch": lambda task: dspy.BootstrapFewShotWithRandomSearch(
        metric=task.metric, num_candidate_programs=2, max_bootstrapped_demos=2, max_labeled_demos=4
    ).compile(task.program, trainset=task.train, valset=task.validation),
    "COPRO": lambda task: dspy.COPRO(
        metric=task.metric, prompt_model=task.prompt_model.copy(rollout_id=0), breadth=2, depth=2
    ).compile(task.program, trainset=task.train, eval_kwargs={}),
    "MIPROv2": lambda task: dspy.MIPROv2(
        metric=task.metric,
        prompt_model=task.prompt_model,
        auto=None,
        num_candidates=4,
        max_bootstrapped_demos=2,
        max_labeled_demos=2,
        seed=0,
    ).compile(task.program, trainset=task.train, valset=task.validation, num_trials=3, minibatch=False),
    "SIMBA": lambda task: dspy.SIMBA(
        metric=lambda example, prediction: scored_without_timings(task, example, prediction),
        prompt_model=task.prompt_model,
        bsize=3,
        max_steps=2,
        num_candidates=2,
        max_demos=2,
    ).compile(task.program, trainset=task.train, seed=0),
    "GEPA": lambda task: dspy.GEPA(
        metric=task.metric, reflection_lm=task.prompt_model, max_metric_calls=24, seed=0
    ).compile(task.program, trainset=task.train, valset=task.validation),
}
"""DSPy's own, called as its documentation has it, with the settings of `SMALL` stated where they are no defaults."""

EXACT = {"COPRO", "LabeledFewShot"}
"""How often these run the program is known before."""


def cites_briefly(
    example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
) -> Any:
    """Half for a citation, half for a single sentence; with feedback when asked for it."""
    cited = prediction.cited
    is_brief = sum(cited.text.count(stop) for stop in ".。") <= 1
    score = (bool(cited.citations) + is_brief) / 2
    if pred_name is None:
        return score
    missing = ["cites nothing"] * (not cited.citations) + ["too long"] * (not is_brief)
    return dspy.Prediction(score=score, feedback="; ".join(missing) or "Well done.")


def scored_without_timings(task: CompileTask, example: dspy.Example, prediction: dspy.Prediction) -> Any:
    """The score with feedback; else SIMBA's prompts hold how long the answer took, and no two are the same."""
    said = task.metric(example, prediction, None, "")
    del prediction["cited"]
    return said


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Nothing is traced while optimizing, as in a compilation."""
    mlflow.tracing.disable()
    yield
    mlflow.tracing.reset()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(tmp_path / "calls.db") as opened:
        yield opened


@pytest.fixture
def make_task(
    collection: Path, collection_questions: Path, rule_following_model: Any, recorded: ContentStore
) -> MakeTask:
    """A task of the first questions of the collection, its calls recorded; keyword arguments replace its parts."""
    index = LocalIndex.open(collection)
    model = {"model": "openai/rules", "api_base": rule_following_model.url, "num_retries": 0}

    def make(
        *,
        train: int = TRAIN,
        dev: int = DEV,
        rewrite: bool = False,
        kind: str = "fixed",
        calls: int | None = None,
        **parts: Any,
    ) -> CompileTask:
        settings = validate_settings(
            [
                (
                    "test",
                    {
                        "retrieval": {"index": str(collection)},
                        "language_model": model,
                        "program": {"rewrite_query": rewrite, "kind": kind},
                    },
                )
            ]
        )
        program = build_program(settings, index)
        program.retriever = RememberingRetriever(index)
        program.set_lm(None)
        questions = {
            split: read_ground_truth(collection_questions, split=split).questions
            for split in ("train", "dev")
        }
        meter = Meter(Limits(calls=calls))

        def lm(name: str) -> dspy.LM:
            named = settings.language_model.model_copy(update={"model": name})
            return build_lm(
                named,
                record_in=recorded,
                wrap=lambda engine: MeteredEngine(engine, meter, settings.language_model),
            )

        task = CompileTask(
            program=program,
            metric=cites_briefly,
            train=to_examples(questions["train"][:train], program, demonstrate=True),
            validation=to_examples(questions["dev"][:dev], program, demonstrate=False),
            task_model=lm("openai/rules"),
            prompt_model=lm("openai/prompts"),
            teacher=None,
            threads=2,
            seed=0,
            max_errors=3,
        )
        if "teacher" in parts:
            teacher = program.deepcopy()
            teacher.set_lm(lm(parts.pop("teacher")))
            task = replace(task, teacher=teacher)
        return replace(task, **parts)

    return make


def optimize(task: CompileTask, name: str, **settings: Any) -> list[Candidate]:
    kept: list[Candidate] = []
    parse_optimizer({"name": name, **(settings or SMALL[name])}, "optimizer").run(task, kept.append)
    return kept


def models_asked(server: Any) -> Counter[str]:
    return Counter(recorded.body["model"] for recorded in server.requests)


@pytest.mark.parametrize("name", BARE)
def test_an_optimizer_asks_and_chooses_what_bare_dspy_does_and_no_more_than_estimated(
    name: str, make_task: MakeTask, rule_following_model: Any
) -> None:
    task = make_task()
    bare = prepare(task)
    with dspy.context(lm=task.task_model, num_threads=2):
        chosen = BARE[name](bare)
    counts = rule_following_model.counts
    runs, prompt_calls = counts.by_kind["answer"], counts.meta

    candidates = optimize(task, name)

    # Everything was replayed: it asks nothing that DSPy alone does not ask.
    assert (counts.by_kind["answer"], counts.meta) == (runs, prompt_calls)
    choice = candidates[-1].program
    assert choice.reader.answer.signature.instructions == chosen.reader.answer.signature.instructions
    assert len(choice.reader.answer.demos) == len(chosen.reader.answer.demos)
    estimate = parse_optimizer({"name": name, **SMALL[name]}, "optimizer").estimate(TRAIN, DEV, 1)
    assert runs <= estimate.program_runs
    assert prompt_calls <= estimate.prompt_calls
    assert estimate.program_runs <= 2 * runs or name not in EXACT


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "fixed") for name in SMALL),
        *((name, "react") for name in ("BootstrapFewShot", "SIMBA", "GEPA")),
    ],
)
def test_candidates_are_few_distinct_programs_that_can_be_saved_and_loaded(
    name: str,
    kind: str,
    make_task: MakeTask,
    rule_following_model: Any,
    tmp_path: Path,
    capsys: Any,
    caplog: Any,
) -> None:
    task = make_task(rewrite=kind == "fixed" and name in ("BootstrapFewShot", "MIPROv2"), kind=kind)
    seed = state_key(task.program)

    with caplog.at_level(logging.INFO, logger="eval.compiling.optimizers"):
        candidates = optimize(task, name)

    asked = rule_following_model.counts.answered
    keys = [state_key(candidate.program) for candidate in candidates]
    assert 1 <= len(keys) == len(set(keys)) <= 5
    assert seed not in keys[:-1]
    for candidate, key in zip(candidates, keys, strict=True):
        assert not any(predictor.lm for predictor in candidate.program.predictors())
        save_state(candidate.program, tmp_path / "candidate.json")
        loaded = task.program.deepcopy()
        load_state(loaded, tmp_path / "candidate.json")
        assert state_key(loaded) == key
    assert capsys.readouterr() == ("", "")
    assert caplog.records or name == "LabeledFewShot"
    assert state_key(task.program) == seed

    assert [state_key(candidate.program) for candidate in optimize(task, name)] == keys
    assert rule_following_model.counts.answered == asked


def test_what_is_shown_of_deciding_on_searches_is_shown_again_from_its_file(
    make_task: MakeTask, rule_following_model: Any, tmp_path: Path
) -> None:
    task = make_task(kind="react")
    compiled = optimize(task, "BootstrapFewShot")[-1].program
    [demo, *_] = compiled.decide.demos
    [call] = demo["tool_calls"]["tool_calls"]
    save_state(compiled, tmp_path / "candidate.json")
    loaded = task.program.deepcopy()
    load_state(loaded, tmp_path / "candidate.json")

    shown = []
    for program in (compiled, loaded):
        with dspy.context(lm=task.task_model):
            program(question="What is the colour of the lamp?")
        deciding = next(r for r in reversed(rule_following_model.requests) if r.reply.kind == "decide")
        shown.append(deciding.body["messages"])
    assert shown[0] == shown[1]
    assert f'{{"tool_calls": [{{"name": "{call["name"]}"' in shown[1][2]["content"]


def test_the_seed_decides_which_examples_are_shown(make_task: MakeTask) -> None:
    task = make_task(train=20)
    shown = [
        state_key(optimize(replace(task, seed=seed), "LabeledFewShot")[-1].program) for seed in (0, 1, 0)
    ]
    assert shown[0] == shown[2] != shown[1]


def test_demonstrations_have_the_fields_of_their_predictor_and_all_of_them(make_task: MakeTask) -> None:
    task = make_task(rewrite=True)
    labelled = optimize(task, "LabeledFewShot")[-1].program
    made = optimize(task, "BootstrapFewShot", max_bootstrapped_demos=2, max_labeled_demos=4)[-1].program

    assert not labelled.rewrite.demos
    assert not labelled.condense.demos
    assert len(labelled.reader.answer.demos) == 3
    assert made.rewrite.demos
    assert not made.condense.demos
    for program in (labelled, made):
        for predictor in program.predictors():
            for demo in predictor.demos:
                assert set(demo.keys()) == set(predictor.signature.fields)
                assert None not in demo.values()


def test_without_answered_examples_there_is_nothing_to_show(make_task: MakeTask) -> None:
    task = make_task()
    bare = [example.without("answer") for example in task.train]
    with pytest.raises(ConfigurationError, match="none of the 6 train questions has an expected answer"):
        optimize(replace(task, train=bare), "LabeledFewShot")


def test_zero_shot_miprov2_is_never_scored_with_demonstrations(
    make_task: MakeTask, rule_following_model: Any
) -> None:
    task = make_task()
    candidates = optimize(
        task, "MIPROv2", num_candidates=3, num_trials=3, max_bootstrapped_demos=0, max_labeled_demos=0
    )

    dev = [example.question for example in task.validation]
    scored = [
        request.body["messages"]
        for request in rule_following_model.requests
        if request.reply.kind == "answer" and any(q in request.body["messages"][-1]["content"] for q in dev)
    ]
    assert len(scored) >= 2 * DEV
    # The system prompt and the question: a demonstration would be two more.
    assert {len(messages) for messages in scored} == {2}
    assert not any(p.demos for candidate in candidates for p in candidate.program.predictors())


def test_miprov2_goes_on_when_every_combination_was_evaluated(make_task: MakeTask) -> None:
    settings = {"num_candidates": 2, "num_trials": 8, "minibatch": True, "minibatch_size": 2}
    candidates = optimize(
        make_task(),
        "MIPROv2",
        **settings,
        minibatch_full_eval_steps=1,
        max_bootstrapped_demos=0,
        max_labeled_demos=0,
    )
    assert len(candidates) >= 1


def test_rules_are_those_of_the_candidate_that_was_best_and_the_seed_keeps_its_own(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    before = task.program.reader.answer.signature.instructions
    rules = iter(["Always cite, such as [1].", "Never cite anything.", "Never cite anything at all."])
    monkeypatch.setattr(
        "dspy.teleprompt.infer_rules.RulesInductionProgram.forward", lambda self, examples_text: next(rules)
    )

    candidates = optimize(task, "InferRules", num_candidates=3, max_bootstrapped_demos=1, max_labeled_demos=0)

    assert "Always cite, such as [1]." in candidates[-1].program.reader.answer.signature.instructions
    assert task.program.reader.answer.signature.instructions == before


def test_a_teacher_shows_how_and_is_not_asked_for_more(
    make_task: MakeTask, rule_following_model: Any
) -> None:
    task = make_task(teacher="openai/teacher")
    optimize(task, "BootstrapFewShotWithRandomSearch")

    asked = models_asked(rule_following_model)
    dev = {example.question for example in task.validation}
    assert asked["openai/teacher".removeprefix("openai/")] >= 2
    for request in rule_following_model.requests:
        is_dev = any(question in request.body["messages"][-1]["content"] for question in dev)
        assert request.body["model"] == ("rules" if is_dev else "teacher")


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_teacher_is_asked_again_only_in_later_rounds(
    make_task: MakeTask, rule_following_model: Any, rounds: int
) -> None:
    task = make_task(train=3, teacher="openai/teacher", metric=lambda *_: 0.0)
    optimize(task, "BootstrapFewShot", max_rounds=rounds)
    assert models_asked(rule_following_model) == {"teacher": 3 * rounds}
    temperatures = [request.body.get("temperature") or 0 for request in rule_following_model.requests]
    assert temperatures.count(1.0) == 3 * (rounds - 1)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("BootstrapFewShotWithRandomSearch", 20),
        ("COPRO", 14),
        ("MIPROv2", 30),
        ("SIMBA", 26),
        ("GEPA", 24),
        ("InferRules", 8),
        ("BetterTogether", 14),
    ],
)
def test_a_limit_ends_an_optimizer_at_once_and_what_it_tried_is_handed_over(
    name: str, calls: int, make_task: MakeTask, rule_following_model: Any
) -> None:
    task = make_task(calls=calls)
    kept: list[Candidate] = []

    with pytest.raises(LimitReachedError, match=f"limit of {calls} language-model calls"):
        parse_optimizer({"name": name, **SMALL[name]}, "optimizer").run(task, kept.append)

    # A call that was under way in the other thread is answered.
    assert calls <= rule_following_model.counts.answered <= calls + 1
    assert kept
    assert all(candidate.score is not None for candidate in kept)


@pytest.mark.parametrize("name", ["BootstrapFewShotWithRandomSearch", "MIPROv2", "SIMBA", "GEPA"])
def test_a_provider_that_only_fails_is_not_asked_for_ever(
    name: str, make_task: MakeTask, rule_following_model: Any
) -> None:
    rule_following_model.faults = replace(rule_following_model.faults, error_share=1.0)
    task = make_task(train=12, dev=12, max_errors=1_000_000)
    with pytest.raises(RunStoppedError, match=f"{HOPELESS} language-model calls failed.*fell over"):
        optimize(task, name)
    assert rule_following_model.counts.failed <= HOPELESS + task.threads


@pytest.mark.parametrize("name", ["BootstrapFewShotWithRandomSearch", "SIMBA", "GEPA"])
def test_an_example_that_fails_is_no_end(name: str, make_task: MakeTask, rule_following_model: Any) -> None:
    rule_following_model.faults = replace(rule_following_model.faults, error_share=0.2)
    assert optimize(make_task(max_errors=100), name)
    assert rule_following_model.counts.failed > 0


def test_more_failures_than_are_borne_end_it_with_the_reason(
    make_task: MakeTask, rule_following_model: Any
) -> None:
    rule_following_model.faults = replace(rule_following_model.faults, error_share=1.0)
    task = make_task(max_errors=2)
    with pytest.raises(RunStoppedError, match=r"BootstrapFewShotWithRandomSearch stopped: .*fell over"):
        optimize(task, "BootstrapFewShotWithRandomSearch")


def test_an_interruption_hands_over_what_was_tried(make_task: MakeTask) -> None:
    evaluated = 0

    def interrupted(example: Any, prediction: Any, *more: Any) -> Any:
        nonlocal evaluated
        evaluated += 1
        if evaluated > 4 * TRAIN:
            raise KeyboardInterrupt
        return cites_briefly(example, prediction, *more)

    kept: list[Candidate] = []
    task = make_task(metric=interrupted, threads=1)
    with pytest.raises(KeyboardInterrupt):
        parse_optimizer({"name": "COPRO", "breadth": 4, "depth": 2}, "optimizer").run(task, kept.append)
    assert kept


def test_a_predictor_that_no_example_asks_is_left_out_and_comes_back(make_task: MakeTask) -> None:
    task = make_task()
    assert prepare(task).program.condense is None
    assert optimize(task, "LabeledFewShot")[-1].program.condense is not None
    talk = task.train[0].copy(history=(Message("user", "Hello"),)).with_inputs("question", "history")
    assert prepare(replace(task, train=[talk, *task.train])).program.condense is not None


def test_a_teachers_model_is_in_the_settings_and_not_in_the_program(make_task: MakeTask) -> None:
    teacher = teaching(make_task(teacher="openai/teacher"))
    assert teacher.program is not None
    assert not any(predictor.lm for predictor in teacher.program.predictors())
    assert teacher.settings["lm"].model == "openai/teacher"
    assert teaching(make_task()).settings == {}


def test_a_step_that_fails_is_not_taken_for_the_end_of_the_chain(
    make_task: MakeTask, rule_following_model: Any
) -> None:
    task = make_task(max_errors=100)
    settings = {
        "steps": [{"name": "BootstrapFewShot", "max_bootstrapped_demos": 1}, {"name": "COPRO", "breadth": 2}]
    }

    def garble_proposals(*arguments: Any) -> Any:
        """The rest of what the program is asked is answered."""
        reply = rule_following_model.__class__._garbled(rule_following_model, *arguments)
        return reply if reply.is_task else replace(reply, text="I would rather not.")

    rule_following_model._garbled = garble_proposals
    kept: list[Candidate] = []
    with pytest.raises(RunStoppedError, match=r"BetterTogether stopped\. .*failed"):
        parse_optimizer({"name": "BetterTogether", **settings}, "optimizer").run(task, kept.append)
    assert kept


def test_what_others_write_to_stderr_meanwhile_is_left_alone(make_task: MakeTask, capsys: Any) -> None:
    def telling(*arguments: Any) -> Any:
        print("progress", file=sys.stderr)
        return cites_briefly(*arguments)

    optimize(make_task(metric=telling), "BootstrapFewShot")
    assert set(capsys.readouterr().err.split()) == {"progress"}

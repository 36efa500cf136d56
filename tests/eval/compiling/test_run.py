"""Compiling from the specification to the installed program: what is gained, proved, kept, refused and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.compiling.run import CompileOptions, compile_program, plan_compilation
from eval.compiling.specification import CompileSpecification, parse_specification
from eval.compiling.table import render_compilation, render_plan
from program.assembly import build_programs
from program.settings import Settings
from program.types import Turn
from retrieval.errors import ConfigurationError, GroundTruthError, RunStoppedError

LITTLE = {
    "name": "BootstrapFewShotWithRandomSearch",
    "num_candidate_programs": 1,
    "max_bootstrapped_demos": 2,
    "max_labeled_demos": 2,
}
Specify = Callable[..., CompileSpecification]


QUESTIONS = 40
"""Of each split: enough to prove a gain of a third, and half of what there are."""


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing a report takes seconds, and is tested where it is drawn."""
    monkeypatch.setattr("eval.compiling.selection.write_report_once", lambda result: None)


@pytest.fixture(scope="session")
def fewer_questions(collection_questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = collection_questions.read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("fewer") / "collection.jsonl"
    kept = [
        line
        for split in ("train", "dev", "test")
        for line in [line for line in lines if json.loads(line)["tags"]["split"] == split][:QUESTIONS]
    ]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def specify(
    make_taught_settings: Callable[..., Settings],
    fewer_questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Specify:
    """A specification over the collection, in an empty directory; keyword arguments are its keys."""
    monkeypatch.chdir(tmp_path)

    def make(settings: dict[str, Any] | None = None, **keys: Any) -> CompileSpecification:
        sections = {"evaluation": {"dataset": str(fewer_questions)}, **(settings or {})}
        stated = make_taught_settings(**sections).model_dump(mode="json", exclude_unset=True)
        (tmp_path / "agent.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
        return parse_specification(
            {"config": "agent.yaml", "optimizer": LITTLE, "name": "taught", **keys}, "c.yaml"
        )

    return make


def test_what_is_gained_is_proved_on_questions_that_nobody_saw_and_installed_and_asked_for_once(
    specify: Specify, rule_following_model: Any, make_taught_settings: Callable[..., Settings]
) -> None:
    specification = specify()
    result = compile_program(specification)
    final = result.selection.final
    assert result.is_better
    assert final is not None
    assert final.difference is not None
    assert final.difference.difference.low > 0
    assert (final.split, final.questions) == ("test", QUESTIONS)
    assert result.selection.trial(1).parameters == {"program.states.default": None}, (
        "the seed is the baseline"
    )
    assert "really better than the seed" in render_compilation(result)

    # Whoever uses the installed program has what was measured.
    assert result.installed == Path("build/programs/taught.json")
    body = json.loads(result.installed.read_text(encoding="utf-8"))
    assert body["provenance"]["optimizer"]["name"] == "BootstrapFewShotWithRandomSearch"
    held_out = body["provenance"]["scores"]["test"]
    assert held_out["this"]["compiled_metric"][0] == pytest.approx(final.held_out, abs=1e-6)
    assert held_out["difference"]["compiled_metric"][0] == pytest.approx(
        final.difference.difference.mean, abs=1e-6
    )
    assert body["provenance"]["dataset"]["splits"] == dict.fromkeys(("train", "dev", "test"), QUESTIONS)
    settings = make_taught_settings(program={"states": {"default": str(result.installed)}})
    assert build_programs(settings)["default"].reader.answer.demos

    # Again: nothing is asked, and nothing is another.
    rule_following_model.forget()
    again = compile_program(specification)
    assert rule_following_model.counts.task == 0
    assert again.selection.final == final
    assert again.asked == result.asked, "what it cost is told again"


@pytest.mark.slow
def test_the_agentic_program_is_compiled_as_any_other_and_asks_no_more_than_was_said_before(
    specify: Specify, rule_following_model: Any, make_taught_settings: Callable[..., Settings]
) -> None:
    specification = specify(set={"program.kind": "react", "program.max_searches": 2})
    planned = plan_compilation(specification)
    result = compile_program(specification)
    assert rule_following_model.counts.task <= planned.calls + planned.final_calls
    assert result.is_better
    body = json.loads(Path("build/programs/taught.json").read_text(encoding="utf-8"))
    assert set(body["predictors"]) == {"reader.answer", "condense", "decide"}
    program = {"kind": "react", "states": {"default": str(result.installed)}}
    answer = build_programs(make_taught_settings(program=program))["default"].respond(
        Turn("What is the colour of the lamp?")
    )
    assert answer.steps


def test_choosing_asks_nothing_of_dev_that_the_optimizer_asked_already(
    specify: Specify, rule_following_model: Any
) -> None:
    asked: list[int] = []
    compile_program(
        specify(), options=CompileOptions(on_call=lambda metered: asked.append(metered.spent.calls))
    )
    # The seed and the winner on all questions of test, and nothing else.
    assert rule_following_model.counts.task - asked[-1] == 2 * QUESTIONS


def test_what_cannot_change_the_metric_is_no_gain_and_is_not_installed(specify: Specify) -> None:
    # Demonstrations for the reader alone leave what is found as it is.
    specification = specify(
        settings={"program": {"rewrite_query": True}},
        metric={"recall@1": 1},
        optimizer={"name": "LabeledFewShot", "k": 2},
    )
    result = compile_program(specification)
    assert not result.is_better
    assert result.installed is None
    assert not Path("build/programs").exists()
    assert "the metric sees nothing of what they change" in render_compilation(result)


def test_a_metric_that_no_prompt_can_change_is_refused_before_anything_is_asked(
    specify: Specify, rule_following_model: Any
) -> None:
    with pytest.raises(ConfigurationError, match="rewrite_query"):
        compile_program(specify(metric={"recall@1": 1}))
    assert rule_following_model.counts.task == 0


def test_a_winner_is_installed_all_the_same_where_that_is_forced(specify: Specify) -> None:
    specification = specify(
        metric={"abstention_accuracy": 1, "citation_precision": 0.01}, output="forced.json"
    )
    result = compile_program(specification, options=CompileOptions(force=True))
    assert (result.installed is not None) == (result.winner is not None)


def test_a_limit_stops_the_optimizer_with_the_best_so_far(
    specify: Specify, rule_following_model: Any
) -> None:
    result = compile_program(specify(limits={"calls": 100}))
    assert "100 language-model calls" in result.stopped_early
    assert result.asked.spent.calls <= 100 + 2, "calls that were under way may end"
    assert "did not come to its end" in render_compilation(result)


def test_a_plan_asks_nothing_and_bounds_what_is_asked(specify: Specify, rule_following_model: Any) -> None:
    specification = specify()
    plan = plan_compilation(specification)
    assert rule_following_model.counts.task == 0
    assert plan.usd is not None
    assert f"{QUESTIONS} train, {QUESTIONS} dev, {QUESTIONS} test" in render_plan(plan)
    result = compile_program(specification)
    assert result.asked.spent.calls <= plan.calls
    assert result.asked.spent.input_tokens <= plan.input_tokens * 3


def test_without_a_language_model_there_is_nothing_to_improve(specify: Specify) -> None:
    with pytest.raises(ConfigurationError, match=r"no language model is configured.*language_model\.model"):
        compile_program(specify(settings={"reader": {"kind": "extractive"}}))


@pytest.mark.parametrize("keys", [{"dev": "train"}, {"test": "dev"}])
def test_what_teaches_must_not_choose_and_what_chooses_must_not_prove(
    specify: Specify, keys: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match="must be three splits"):
        compile_program(specify(**keys))


def test_a_question_of_test_that_leaks_into_train_is_refused(
    specify: Specify, collection_questions: Path, tmp_path: Path, rule_following_model: Any
) -> None:
    rows = [json.loads(line) for line in collection_questions.read_text(encoding="utf-8").splitlines()]
    of = {split: next(row for row in rows if row["tags"]["split"] == split) for split in ("train", "test")}
    leaked = {**of["train"], "id": "leak", "tags": {**of["train"]["tags"], "split": "test"}}
    leaked["inputs"] = {"question": of["train"]["inputs"]["question"].rstrip("?？") + "!"}
    (tmp_path / "leaky.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*rows, leaked]), encoding="utf-8"
    )
    with pytest.raises(GroundTruthError, match="citeqa dataset split"):
        compile_program(specify(settings={"evaluation": {"dataset": str(tmp_path / "leaky.jsonl")}}))
    assert rule_following_model.counts.task == 0


def test_a_model_that_cannot_be_reached_is_said_and_nothing_is_installed(specify: Specify) -> None:
    unreachable = {"language_model": {"api_base": "http://127.0.0.1:9/v1", "num_retries": 0}}
    with pytest.raises(RunStoppedError):
        compile_program(specify(settings=unreachable))
    assert not Path("build/programs").exists()


def test_the_installed_program_streams_and_cites_as_any(
    specify: Specify, make_taught_settings: Callable[..., Settings]
) -> None:
    result = compile_program(specify())
    settings = make_taught_settings(program={"states": {"default": str(result.installed)}})
    pieces: list[Any] = []
    answer = build_programs(settings)["default"].respond(Turn(_a_question(settings)), pieces.append)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == answer.text
    assert answer.citations


def _a_question(settings: Settings) -> str:
    lines = Path(settings.evaluation.dataset).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return next(
        row["inputs"]["question"]
        for row in rows
        if row["tags"]["split"] == "test" and row["expectations"]["expected_retrieved_context"]
    )

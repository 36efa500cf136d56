"""What can be asked of an optimizer, and what is said where it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from eval.compiling.optimizers import parse_optimizer
from eval.compiling.optimizers.parsing import NAMES
from retrieval.errors import ConfigurationError


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", ["light", "medium", "heavy"])
def test_each_has_budgets_that_suit_eighty_questions(name: str, budget: str) -> None:
    optimizer = parse_optimizer({"name": name, "budget": budget}, "optimizer")
    optimizer.check(80, 80)
    estimate = optimizer.estimate(80, 80)
    assert optimizer.name == name
    assert optimizer.settings["budget"] == budget
    assert 0 <= estimate.program_runs < 20_000
    assert estimate.explanation.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_budget_asks_no_less(name: str) -> None:
    runs = [
        parse_optimizer({"name": name, "budget": budget}, "optimizer").estimate(80, 80, 1).program_runs
        for budget in ("light", "medium", "heavy")
    ]
    assert runs == sorted(runs)


@pytest.mark.parametrize(
    ("name", "budget", "runs"),
    [
        ("BootstrapFewShotWithRandomSearch", "light", 640 + 6 * 80),
        ("COPRO", "medium", 800),
        ("MIPROv2", "light", 740 + 4 * 80),
        ("MIPROv2", "heavy", 2_120 + 16 * 80),
        ("SIMBA", "medium", 1_648),
        ("SIMBA", "heavy", 3_888),
        ("GEPA", "light", 640 + 85),
        ("InferRules", "heavy", 800 + 80),
    ],
)
def test_budgets_run_the_program_as_often_as_documented(name: str, budget: str, runs: int) -> None:
    assert parse_optimizer({"name": name, "budget": budget}, "x").estimate(80, 80, 1).program_runs == runs


def test_what_is_stated_wins_over_the_budget() -> None:
    optimizer = parse_optimizer({"name": "COPRO", "budget": "heavy", "depth": 1}, "optimizer")
    assert optimizer.settings["breadth"] == 10
    assert optimizer.settings["depth"] == 1
    gepa = parse_optimizer({"name": "GEPA", "budget": "heavy", "max_metric_calls": 200}, "optimizer")
    assert gepa.estimate(80, 80).program_runs == 200 - 1 + 80 + 6


def test_a_name_alone_is_enough() -> None:
    assert parse_optimizer("GEPA", "optimizer").settings["budget"] == "light"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            {"name": "MIPRO"},
            "optimizer.name = 'MIPRO': no optimizer of DSPy's. Did you mean 'MIPROv2'? There is: Lab",
        ),
        ({}, "optimizer: name is missing. There is: LabeledFewShot, "),
        (
            {"name": "COPRO", "bredth": 3},
            "optimizer: unknown setting 'bredth'. Did you mean 'breadth'? Settings are:",
        ),
        (
            {"name": "COPRO", "breadth": 1},
            "optimizer.breadth = 1: input should be greater than or equal to 2.",
        ),
        (
            {"name": "SIMBA", "budget": "huge"},
            "optimizer.budget = 'huge': input should be 'light', 'medium' or",
        ),
        ({"name": "SIMBA", "bsize": "many"}, "optimizer.bsize = 'many': input should be a valid integer"),
        (
            {"name": "GEPA", "max_full_evals": 2, "max_metric_calls": 9},
            "optimizer: max_full_evals and max_metric_calls",
        ),
        (
            {"name": "MIPROv2", "max_bootstrapped_demos": 0},
            "optimizer: max_bootstrapped_demos: 0 needs max_labeled",
        ),
        (
            {"name": "KNNFewShot"},
            "optimizer.name = KNNFewShot: it picks its demonstrations when a question is answered",
        ),
        ({"name": "Ensemble"}, "which no program file can hold. Use BetterTogether"),
        ({"name": "BootstrapFinetune"}, "needs a provider that fine-tunes. Use MIPROv2 or GEPA"),
        (
            {"name": "BetterTogether", "steps": ["MIPROv2", "BootstrapFinetune"]},
            "optimizer.steps[1].name = BootstrapFinetune: it changes a language model's weights",
        ),
        (
            {"name": "BetterTogether", "steps": [{"name": "COPRO", "wide": 3}]},
            "optimizer.steps[0]: unknown setting 'wide'.",
        ),
        (
            {"name": "BetterTogether", "steps": ["BetterTogether"]},
            "optimizer.steps[0].name = BetterTogether: a chain",
        ),
        ({"name": "BetterTogether", "steps": []}, "optimizer.steps = []: tuple should have at least 1 item"),
    ],
)
def test_what_cannot_be_is_refused_by_name(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_optimizer(raw, "optimizer")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_mistake_has_a_line() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_optimizer({"name": "COPRO", "breadth": 0, "bredth": 3}, "optimizer")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("raw", "train", "dev", "said"),
    [
        (
            "BootstrapFewShot",
            0,
            5,
            "BootstrapFewShot needs examples to learn from, and there are none. Add questions",
        ),
        (
            "InferRules",
            5,
            0,
            "InferRules needs examples to validate on, and there are none. Add questions to the dev",
        ),
        (
            {"name": "SIMBA", "bsize": 32},
            20,
            5,
            "at least 32 train questions (its bsize), and there are 20. Add",
        ),
        (
            {"name": "MIPROv2", "minibatch": True},
            20,
            20,
            "minibatch_size = 35 is more than the 20 dev questions. Set",
        ),
        (
            {"name": "GEPA", "max_metric_calls": 80},
            80,
            80,
            "the 80 metric calls that it may make are spent when",
        ),
        (
            {"name": "BetterTogether", "steps": [{"name": "SIMBA", "bsize": 9}]},
            8,
            8,
            "SIMBA needs at least 9 train",
        ),
    ],
)
def test_too_few_questions_are_refused_before_anything_is_asked(
    raw: Any, train: int, dev: int, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_optimizer(raw, "optimizer").check(train, dev)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "dev"), [("LabeledFewShot", 0), ("COPRO", 0), ("SIMBA", 0), ("MIPROv2", 20)]
)
def test_what_is_not_needed_is_not_missed(name: str, dev: int) -> None:
    parse_optimizer(name, "optimizer").check(10, dev)

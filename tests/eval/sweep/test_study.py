"""Which configuration is tried next: Optuna's choice, the same again after whatever ended a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest

from eval.questions import Question
from eval.sweep.racing import make_pruner
from eval.sweep.results import Objective
from eval.sweep.space import Space, label
from eval.sweep.specification import Range, Search
from eval.sweep.study import Racer, Study
from program.settings import Settings

QUALITY = (Objective("fact_recall"),)
FACTORS: dict[str, Any] = {
    "retrieval.k": Range(low=1, high=20),
    "reader.abstain_below": Range(low=0.1, high=0.9),
    "language_model.temperature": Range(low=0.01, high=1.0, log=True),
    "chunking.max_tokens": Range(low=100, high=450, step=100),
    "reader.kind": ["auto", "lm"],
    "retrieval.filters": [{}, {"lang": "en"}],
    "program.states.default": [None, "c.json"],
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(level)


def space_of(factors: dict[str, Any]) -> Space:
    return Space(Settings(), factors, "s.yaml")


def quality(parameters: Any) -> float:
    return float(sum(len(label(value)) for value in parameters.values()) % 7) / 7


def tried(
    factors: dict[str, Any],
    search: Search,
    baseline: dict[str, Any],
    objectives: Sequence[Objective] = QUALITY,
    fails: Sequence[int] = (),
) -> list[dict[str, Any]]:
    study = Study(space_of(factors), search, objectives, baseline)
    found = []
    for suggestion in study:
        assert suggestion.number == len(found) + 1
        found.append(dict(suggestion.parameters))
        value = quality(suggestion.parameters)
        study.tell(suggestion, None if suggestion.number in fails else [value] * len(objectives))
    return found


BASELINE = {
    "retrieval.k": 5,
    "reader.abstain_below": 0.4,
    "language_model.temperature": 0.5,
    "chunking.max_tokens": 200,
    "reader.kind": "auto",
    "retrieval.filters": {},
    "program.states.default": None,
}


def test_a_grid_is_tried_whole_the_baseline_first_and_each_once() -> None:
    factors = {"retrieval.k": [3, 5], "retrieval.filters": [{}, {"lang": "en"}]}
    baseline = {"retrieval.k": 5, "retrieval.filters": {}}
    found = tried(factors, Search(), baseline)
    assert found[0] == baseline
    assert found[1:] == [
        {"retrieval.k": 3, "retrieval.filters": {}},
        {"retrieval.k": 3, "retrieval.filters": {"lang": "en"}},
        {"retrieval.k": 5, "retrieval.filters": {"lang": "en"}},
    ]


def test_a_baseline_outside_of_the_grid_is_tried_first_and_besides() -> None:
    found = tried({"retrieval.k": [3, 5]}, Search(), {"retrieval.k": 4})
    assert [p["retrieval.k"] for p in found] == [4, 3, 5]


@pytest.mark.parametrize("method", ["random", "tpe"])
@pytest.mark.parametrize("outside", [{}, {"retrieval.k": 50}, {"reader.kind": "extractive"}])
def test_a_search_tries_so_many_each_once_within_the_factors_and_the_baseline_first(
    method: Any, outside: dict[str, Any]
) -> None:
    baseline = {**BASELINE, **outside}
    found = tried(FACTORS, Search(method=method, trials=25), baseline)
    assert len(found) == 25
    assert found[0] == baseline
    assert len({label(parameters) for parameters in found}) == 25
    for parameters in found[1:]:
        assert parameters["retrieval.k"] in range(1, 21)
        assert 0.1 <= parameters["reader.abstain_below"] <= 0.9
        assert 0.01 <= parameters["language_model.temperature"] <= 1
        assert parameters["chunking.max_tokens"] in (100, 200, 300, 400)
        assert parameters["reader.kind"] in ("auto", "lm")
        assert parameters["retrieval.filters"] in ({}, {"lang": "en"})
        assert parameters["program.states.default"] in (None, "c.json")
        assert space_of(FACTORS).settings(parameters)


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_the_same_seed_and_results_give_the_same_suggestions_another_seed_others(method: Any) -> None:
    searches = [Search(method=method, trials=20, seed=seed) for seed in (1, 1, 2)]
    one, again, other = (tried(FACTORS, search, BASELINE, fails=(3, 12)) for search in searches)
    assert one == again
    assert one != other


def test_tpe_learns_from_what_it_is_told() -> None:
    search = Search(method="tpe", trials=30)
    failing = tried(FACTORS, search, BASELINE, fails=range(1, 31))
    assert failing != tried(FACTORS, search, BASELINE)


def test_several_objectives_are_searched_each_in_its_direction() -> None:
    objectives = (*QUALITY, Objective("usd", minimize=True))
    found = tried(FACTORS, Search(method="tpe", trials=20), BASELINE, objectives)
    assert found == tried(FACTORS, Search(method="tpe", trials=20), BASELINE, objectives)
    assert len(found) == 20


def test_log_ranges_draw_small_values_as_often_as_large_ones() -> None:
    factors = {"language_model.temperature": Range(low=0.001, high=1.0, log=True)}
    found = tried(factors, Search(method="random", trials=60), {"language_model.temperature": 0.5})
    small = sum(p["language_model.temperature"] < 0.0316 for p in found)
    assert 20 <= small <= 40


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_space_that_is_smaller_than_the_number_of_trials_ends_when_it_is_exhausted(method: Any) -> None:
    found = tried({"retrieval.k": [1, 2, 3]}, Search(method=method, trials=50), {"retrieval.k": 2})
    assert sorted(p["retrieval.k"] for p in found) == [1, 2, 3]


def test_steps_of_a_search_are_the_values_that_a_grid_has() -> None:
    factors = {"retrieval.k": Range(low=2, high=8, step=2)}
    found = tried(factors, Search(method="random", trials=30), {"retrieval.k": 4})
    assert sorted(map(label, (p["retrieval.k"] for p in found))) == ["2", "4", "6", "8"], (
        "4 is not tried as 4.0, too"
    )


# Racing


def test_a_racer_hands_each_value_over_once_by_its_place_and_leaves_out_what_has_none() -> None:
    questions = [Question(f"q{n}", "why?", ()) for n in range(60)]
    study = Study(
        space_of({"retrieval.k": [1, 2, 3]}), Search(), QUALITY, {"retrieval.k": 1}, make_pruner(0.05, (20,))
    )
    stopped = {}
    for suggestion in study:
        racer = Racer(suggestion, questions)
        worst = suggestion.number == 2
        values = {q.id: 0.0 if worst else 1.0 for q in questions if q.id != "q5"}
        stopped[suggestion.number] = racer.should_stop(30, {id_: values[id_] for id_ in list(values)[:29]})
        racer.report(values, 60)
        study.tell(suggestion, None if stopped[suggestion.number] else [values["q0"]])
    assert stopped == {1: False, 2: True, 3: False}
    first = study._study.trials[0].intermediate_values
    assert sorted(first) == [n for n in range(60) if n != 5]

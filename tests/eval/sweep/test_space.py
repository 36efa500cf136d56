"""The configurations of a sweep: factors over any setting, checked before anything is run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.sweep.planning import baseline_of, check_size, count_configurations
from eval.sweep.space import Space, build_space, label, rounded, values_of
from eval.sweep.specification import Range, SweepSpecification
from program.settings import Settings
from retrieval.errors import ConfigurationError


class Sweeps(Protocol):
    def specify(self, **keys: Any) -> SweepSpecification: ...


def space_of(**factors: Any) -> Space:
    named = {name.replace("__", "."): values for name, values in factors.items()}
    return Space(Settings(), named, "s.yaml")


def mistakes(**factors: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        space_of(**factors).check()
    return str(raised.value).splitlines()


def test_a_grid_is_every_combination_the_last_factor_changing_fastest() -> None:
    space = space_of(retrieval__k=[3, 5], reader__max_sentences=[1, 2])
    assert space.size == 4
    assert [list(parameters.values()) for parameters in space.grid()] == [[3, 1], [3, 2], [5, 1], [5, 2]]


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        (Range(low=1, high=4), [1, 2, 3, 4]),
        (Range(low=1, high=8, step=3), [1, 4, 7]),
        (Range(low=0.1, high=0.4, step=0.1), [0.1, 0.2, 0.3, 0.4]),
        (Range(low=0, high=1, step=0.25), [0, 0.25, 0.5, 0.75, 1]),
        (Range(low=0.1, high=0.4), None),
    ],
)
def test_a_range_has_its_steps_without_the_rounding_of_sums(values: Range, steps: list[Any] | None) -> None:
    found = values_of(values)
    assert (None if found is None else list(found)) == steps


@given(st.integers(-1000, 1000), st.integers(1, 400), st.sampled_from([0.1, 0.25, 0.3, 1.5, 2.0]))
def test_the_steps_of_a_range_begin_at_low_and_never_pass_high(low: int, width: int, step: float) -> None:
    steps = values_of(Range(low=float(low), high=float(low + width), step=step))
    assert steps is not None
    assert steps[0] == low
    assert low + width - step - 1e-9 < steps[-1] <= low + width + 1e-9
    assert all(value == round(value, 10) for value in steps)


def test_a_value_reaches_its_setting_and_leaves_the_others(tmp_path: Path) -> None:
    base = Settings.model_validate({"retrieval": {"k": 7}, "program": {"states": {"brief": "b.json"}}})
    names = ["retrieval.filters", "program.states.default", "reader.kind", "language_model.price"]
    space = Space(base, {name: [] for name in names}, "s.yaml")
    price = {"input_usd_per_million": 1, "output_usd_per_million": 2}
    settings = space.settings(dict(zip(names, [{"lang": "en"}, "c.json", "lm", price], strict=True)))
    assert settings.retrieval.filters == {"lang": "en"}
    assert settings.program.states == {"brief": "b.json", "default": "c.json"}
    assert (settings.reader.kind, settings.retrieval.k) == ("lm", 7)
    assert settings.language_model.price is not None
    assert settings.language_model.price.output_usd_per_million == 2


def test_an_empty_filter_and_no_compiled_program_are_values_like_others() -> None:
    base = Settings.model_validate(
        {"retrieval": {"filters": {"lang": "en"}}, "program": {"states": {"default": "c.json"}}}
    )
    space = Space(base, {"retrieval.filters": [{}], "program.states.default": [None]}, "s.yaml")
    settings = space.settings({"retrieval.filters": {}, "program.states.default": None})
    assert (settings.retrieval.filters, settings.program.states) == ({}, {})
    assert space.current() == {"retrieval.filters": {"lang": "en"}, "program.states.default": "c.json"}


def test_one_key_of_a_filter_can_be_a_factor() -> None:
    base = Settings.model_validate({"retrieval": {"filters": {"lang": "en", "product": "mlflow"}}})
    space = Space(base, {"retrieval.filters.lang": ["en", "ja"]}, "s.yaml")
    space.check()
    assert space.settings({"retrieval.filters.lang": "ja"}).retrieval.filters == {
        "lang": "ja",
        "product": "mlflow",
    }


def test_a_part_of_a_section_that_is_not_stated_can_be_a_factor() -> None:
    base = Settings.model_validate({"language_model": {"price": None}})
    name = "language_model.price"
    space = Space(base, {f"{name}.input_usd_per_million": [1]}, "s.yaml")
    settings = space.settings({f"{name}.input_usd_per_million": 1, f"{name}.output_usd_per_million": 2})
    assert settings.language_model.price is not None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("retrieval.kk", "no such setting. Did you mean 'k'?"),
        ("retreival.k", "no such setting. Did you mean 'retrieval'?"),
        ("zzz", "no such setting. There is: corpus, chunking, embedder, retrieval, "),
        ("", "no such setting. There is: corpus"),
        ("retrieval.k.x", "'retrieval.k' has no parts"),
        ("retrieval", "this is a section. Name one of its settings: index, k, filters, "),
        ("language_model.price", "a section. Name one of its settings: input_usd_per_million"),
        ("evaluation.ks", "this changes no answer, so there is nothing to compare. Put it into `set`."),
        ("serving.port", "this changes no answer"),
        ("tracking.uri", "this changes no answer"),
    ],
)
def test_what_is_no_setting_of_an_answer_is_refused_by_name(name: str, says: str) -> None:
    (line,) = mistakes(**{name: [1, 2]})
    assert line.startswith(f"s.yaml: factors.{name}: ")
    assert says in line


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("retrieval.k", 0, "retrieval.k = 0: input should be greater than or equal to 1"),
        (
            "reader.kind",
            "extractiv",
            "reader.kind = 'extractiv': input should be 'auto', 'lm' or 'extractive'",
        ),
        ("retrieval.k", "many", "retrieval.k = 'many'"),
        ("reader.abstain_below", 1.5, "reader.abstain_below = 1.5"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(name: str, value: Any, says: str) -> None:
    (line,) = mistakes(**{name: [value]})
    assert line.startswith("s.yaml: factors: ")
    assert says in line


def test_each_mistake_of_several_factors_has_its_line() -> None:
    assert len(mistakes(retrieval__kk=[1], reader__kind=["lm", "x", "y"], serving__port=[1])) == 4


def test_a_range_beyond_what_a_setting_takes_is_one_mistake_however_long_it_is() -> None:
    began = time.perf_counter()
    (line,) = mistakes(retrieval__k=Range(low=1, high=2_000_000))
    assert "retrieval.k = 2000000" in line
    assert time.perf_counter() - began < 2


def test_fractions_in_a_range_of_a_whole_setting_are_refused() -> None:
    (line,) = mistakes(retrieval__k=Range(low=1, high=5, step=0.5))
    assert "retrieval.k = 1.5" in line


def test_a_baseline_is_checked_as_factors_are(sweeps: Sweeps) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"s\.yaml: baseline\.retrieval\.kk is no factor\. Did you mean 'retrieval\.k'",
    ):
        build_space(sweeps.specify(baseline={"retrieval.kk": 3}), "s.yaml")
    with pytest.raises(ConfigurationError, match=r"s\.yaml: baseline: retrieval\.k = 'banana'"):
        build_space(sweeps.specify(baseline={"retrieval.k": "banana"}), "s.yaml")


def test_a_mistake_in_what_is_shared_is_told_as_everywhere(sweeps: Sweeps) -> None:
    with pytest.raises(
        ConfigurationError, match=r"--set retrieval\.kk=3: unknown setting 'retrieval\.kk'; did you mean"
    ):
        build_space(sweeps.specify(set={"retrieval.kk": 3}), "s.yaml")


# Sizes


def test_a_grid_of_a_million_is_counted_and_refused_at_once(sweeps: Sweeps) -> None:
    specification = sweeps.specify(
        factors={
            "retrieval.k": {"low": 1, "high": 1000},
            "chunking.max_tokens": {"low": 1000, "high": 1999},
        }
    )
    began = time.perf_counter()
    space = build_space(specification, "s.yaml")
    with pytest.raises(ConfigurationError) as raised:
        check_size(specification, space)
    assert time.perf_counter() - began < 2
    assert str(raised.value) == (
        "s.yaml: the grid has 1,000,000 configurations, more than max_trials = 1,000. "
        "Name fewer values, search by random or tpe, or confirm with --yes."
    )


def test_the_limit_is_the_sweeps_own_and_holds_for_grids_alone(sweeps: Sweeps) -> None:
    small = sweeps.specify(max_trials=2)
    check_size(small, build_space(small, "s.yaml"))
    with pytest.raises(ConfigurationError, match="the grid has 2 configurations, more than max_trials = 1"):
        check_size(sweeps.specify(max_trials=1), build_space(small, "s.yaml"))
    searched = sweeps.specify(max_trials=1, search={"method": "tpe"})
    check_size(searched, build_space(searched, "s.yaml"))


def test_a_baseline_outside_of_the_grid_is_one_more(sweeps: Sweeps) -> None:
    for baseline, count in (({}, 2), ({"retrieval.k": 1}, 2), ({"retrieval.k": 9}, 3)):
        specification = sweeps.specify(baseline=baseline)
        assert count_configurations(specification, build_space(specification, "s.yaml")) == count


@pytest.mark.parametrize("values", [[0, 0.4, 1], {"low": 0, "high": 1, "step": 0.2}, [0.0, 0.4]])
def test_a_baseline_that_a_setting_spells_otherwise_is_the_factors_value(sweeps: Sweeps, values: Any) -> None:
    specification = sweeps.specify(
        factors={"reader.abstain_below": values}, sections={"reader": {"abstain_below": 0.0}}
    )
    space = build_space(specification, "s.yaml")
    baseline = baseline_of(specification, space)
    assert label(baseline["reader.abstain_below"]) in [label(v["reader.abstain_below"]) for v in space.grid()]


@given(st.floats(-1e9, 1e9))
def test_rounding_moves_no_number_by_more_than_its_tenth_digit(value: float) -> None:
    assert rounded(value) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("lm", "lm"),
        (3, "3"),
        (None, "null"),
        (True, "true"),
        ({"b": 1, "a": "日"}, '{"a": "日", "b": 1}'),
        ({}, "{}"),
    ],
)
def test_a_label_is_what_a_person_would_write(value: Any, text: str) -> None:
    assert label(value) == text

"""What a sweep is asked to do: its YAML file, read and checked.

name: agent-docs
config: configs/agent.yaml            # what all configurations share
set: {evaluation.dataset: quiz.jsonl} # what of it differs here
factors:
  retrieval.k: [3, 5, 10]
  reader.abstain_below: {low: 0.2, high: 0.6, step: 0.1}
search: {method: grid}                # or random, tpe: {method: tpe, trials: 40, seed: 0}
objectives: [fact_recall, usd]        # the first ranks; with several, the Pareto front is shown
select_on: dev
report_on: test                       # or hold out a share of select_on: {holdout: 0.3}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from eval.metric_names import is_lower_better, is_metric, parse_metric
from eval.mixes import parse_mix
from eval.sweep.results import Objective
from program.yaml_files import read_yaml
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Part):
    """The numbers from `low` to `high`: whole ones if both are whole, in steps if `step` is given."""

    low: int | float
    high: int | float
    step: int | float | None = Field(None, gt=0)
    log: bool = Field(False, description="small values as often as large ones; without a step")

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("log needs low > 0 and no step")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int) and self.step in (None, 1)


_VALUES, _RANGE = "(values)", "(range)"


def _kind_of_factor(value: Any) -> str:
    return _RANGE if isinstance(value, Mapping | Range) else _VALUES


# By a discriminator, since a mistake in a plain union is reported once for each of its members.
Factor: TypeAlias = Annotated[
    Annotated[list[Any], Tag(_VALUES)] | Annotated[Range, Tag(_RANGE)], Discriminator(_kind_of_factor)
]


class Search(_Part):
    """Which configurations are tried: all of a grid, or `trials` that Optuna's sampler suggests."""

    method: Literal["grid", "random", "tpe"] = "grid"
    trials: int = Field(30, ge=1, description="random and tpe")
    seed: int = 0


class Racing(_Part):
    """Stop a configuration early that will not become the best (one objective only)."""

    alpha: float = Field(0.05, gt=0, lt=1, description="chance to stop one that would have ended as good")
    looks: int = Field(3, ge=1, le=20)


class Budget(_Part):
    """What the sweep may spend; when it is spent, what is finished is ranked."""

    usd: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)


class MixedObjective(_Part):
    """Several metrics as one objective, under a name of its own (`eval.mixes`)."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    weights: dict[str, float] = Field(min_length=1)


class SweepSpecification(_Part):
    """The whole file. `factors` are settings by dotted name, each with its values or its range."""

    name: str = Field("sweep", pattern=r"^[\w.-]+$")
    config: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    factors: dict[str, Factor] = Field(min_length=1)
    search: Search = Search()
    objectives: tuple[str | MixedObjective, ...] = Field(("fact_recall",), min_length=1)
    select_on: str | None = "dev"
    report_on: str | None = "test"
    holdout: float | None = Field(None, gt=0, lt=1, description="share of select_on kept for the report")
    baseline: dict[str, Any] = Field(default_factory=dict)
    racing: Racing | None = None
    budget: Budget = Budget()
    max_trials: int = Field(1000, ge=1, description="a larger grid needs --yes")
    results: str = "build/sweeps"
    cache: str = "build/stages"

    @field_validator("factors")
    @classmethod
    def _no_empty_factor(cls, factors: dict[str, list[Any] | Range]) -> dict[str, list[Any] | Range]:
        for name, values in factors.items():
            if values == []:
                raise ValueError(f"{name} has no value, so the grid is empty")
            _refuse_what_json_has_not(
                name, [values.low, values.high] if isinstance(values, Range) else values
            )
            if isinstance(values, list) and any(value in values[:n] for n, value in enumerate(values)):
                raise ValueError(f"{name} names a value twice: {values}")
        return factors

    @field_validator("set", "baseline")
    @classmethod
    def _json_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, value in values.items():
            _refuse_what_json_has_not(name, value)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> SweepSpecification:
        if self.holdout is not None and "report_on" in self.model_fields_set and self.report_on is not None:
            raise ValueError("give report_on or holdout, not both")
        if self.racing is not None and len(self.objectives) > 1:
            raise ValueError("racing compares by one objective; leave it out, or all objectives but one")
        names = [named if isinstance(named, str) else named.name for named in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"an objective is named twice: {', '.join(names)}")
        for factor, values in self.factors.items():
            if self.search.method == "grid" and isinstance(values, Range) and values.step is None:
                if not values.whole:
                    raise ValueError(f"{factor}: a grid needs a step, or a list of values")
                if values.log:
                    raise ValueError(f"{factor}: a grid has no log; give a list of values")
        return self

    @property
    def report_split(self) -> str | None:
        """The split of the final questions, if that is how they are found."""
        return None if self.holdout is not None else self.report_on


def read_specification(path: str | Path) -> SweepSpecification:
    """The sweep of a YAML file.

    Raises:
        ConfigurationError: one line for each mistake, naming the file, the key and the value.
    """
    file = Path(path)
    raw = read_yaml(file, f"No sweep file at '{file}'. See configs/sweep.yaml for one.")
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{file}: must hold keys such as `factors:`, not {raw!r}")
    return parse_specification(raw, str(file))


def parse_specification(raw: Mapping[str, Any], place: str) -> SweepSpecification:
    """The sweep that a dictionary says; `place` is named in errors. Raises as `read_specification`."""
    try:
        specification = SweepSpecification.model_validate(dict(raw))
    except ValidationError as error:
        mistakes = {_location(dict(e)): _describe(dict(e), place) for e in error.errors()}
        raise ConfigurationError("\n".join(mistakes.values())) from None
    for name in specification.objectives:
        _parse_objective(name, place)
    return specification


def objectives_of(specification: SweepSpecification) -> tuple[Objective, ...]:
    """The objectives with their directions: costs, times and mistakes are made small, all else large."""
    return tuple(_parse_objective(name, "objectives") for name in specification.objectives)


def _parse_objective(stated: str | MixedObjective, place: str) -> Objective:
    if isinstance(stated, MixedObjective):
        return _parse_mixed(stated, place)
    name = stated
    try:
        metric = parse_metric(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: objectives: {error}") from None
    if metric.is_judged:
        raise ConfigurationError(
            f"{place}: objectives: {name!r} is a language model's verdict, for which a sweep asks none. "
            "Judge the winner: citeqa eval --config <the sweep's winner.yaml>."
        )
    return Objective(metric.name, minimize=is_lower_better(metric.name))


def _refuse_what_json_has_not(name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: {value!r} is no value of a setting ({error}). YAML reads 2024-01-01 as a date: write it in quotes"
        ) from None


def _location(error: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the mistake is, without the members of unions that pydantic tried there."""
    return tuple(str(part) for part in error["loc"] if part not in (_VALUES, _RANGE, "int", "float"))


def _parse_mixed(stated: MixedObjective, place: str) -> Objective:
    try:
        mix = parse_mix(stated.name, stated.weights)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: objectives: {error}") from None
    if is_metric(stated.name):
        raise ConfigurationError(
            f"{place}: objectives: {stated.name!r} is a metric's name. Call the mix otherwise."
        )
    return Objective(mix.name, mix=mix)


def _describe(error: dict[str, Any], place: str) -> str:
    location = _location(error)
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _known_keys(location)
        return (
            f"{place}: unknown key '{key}'. {did_you_mean(location[-1], known)}Keys are: {', '.join(known)}."
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["loc"][-1:] == (_VALUES,):
        message = "Input should be a list of values, or a range such as {low: 1, high: 5}"
    if error["type"] == "missing":
        return f"{place}: {key} is missing."
    return f"{place}: {key + ': ' if key else ''}{message}" + (
        f", not {error['input']!r}" if error["type"] not in ("value_error", "missing") else ""
    )


def _known_keys(location: Sequence[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "search": Search,
        "racing": Racing,
        "budget": Budget,
        "factors": Range,
    }
    model = SweepSpecification if len(location) == 1 else sections.get(location[0], SweepSpecification)
    return list(model.model_fields)

"""The configurations of a sweep: settings by their factors, checked before anything is run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from eval.sweep.specification import Range, SweepSpecification
from program.settings import Settings, load_settings, to_overrides, validate_settings
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean

NO_PART_OF_AN_ANSWER = ("evaluation", "serving", "tracking")

HOW_AN_ANSWER_IS_COME_BY = frozenset(
    f"{section}.{name}"
    for section, names in {
        "language_model": (
            "timeout_s",
            "num_retries",
            "requests_per_minute",
            "rate_limit_wait_s",
            "price",
            "cache",
        ),
        "embedder": ("threads", "batch_size", "timeout_s", "num_retries", "cache"),
    }.items()
    for name in names
)
"""Settings of a section that answers depend on, on which they do not."""

Parameters = Mapping[str, Any]
"""One configuration: factor (`retrieval.k`) to value."""


@dataclass(frozen=True, slots=True)
class Space:
    """All configurations that a sweep may try. `base` is what they share; `place` is named in errors."""

    base: Settings
    factors: Mapping[str, Sequence[Any] | Range]
    place: str

    @property
    def size(self) -> int | None:
        """How many configurations there are; None where a range has no steps."""
        counts = [len(steps) if (steps := values_of(v)) is not None else 0 for v in self.factors.values()]
        return math.prod(counts) if all(counts) else None

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration, the last factor changing fastest.

        Raises:
            ConfigurationError: if a range has no steps.
        """
        lists = []
        for name, values in self.factors.items():
            steps = values_of(values)
            if steps is None:
                raise ConfigurationError(
                    f"{self.place}: factors.{name}: a grid needs a step, or a list of values"
                )
            lists.append(steps)
        return (dict(zip(self.factors, combination, strict=True)) for combination in product(*lists))

    def settings(self, parameters: Parameters, stated_in: str = "factors") -> Settings:
        """The whole configuration.

        Raises:
            ConfigurationError: if a value does not fit its setting; names the factor and the nearest valid.
        """
        values = self.base.model_dump(exclude_unset=True)
        for name, value in parameters.items():
            _assign(values, name.split("."), value)
        return validate_settings([(f"{self.place}: {stated_in}", values)])

    def current(self) -> dict[str, Any]:
        """The factors as `base` has them."""
        return {name: _lookup(self.base.model_dump(mode="json"), name.split(".")) for name in self.factors}

    def check(self) -> None:
        """Try each value of each factor alone.

        Raises:
            ConfigurationError: one line for each factor that is no setting, or no part of an answer, and each
                value that does not fit.
        """
        lines = [line for name in self.factors for line in self._mistakes(name)]
        if lines:
            raise ConfigurationError("\n".join(lines))

    def _mistakes(self, name: str) -> Iterator[str]:
        if problem := _unknown_setting(name):
            yield f"{self.place}: factors.{name}: {problem}"
            return
        for value in _tried_alone(self.factors[name]):
            try:
                self.settings({name: value})
            except ConfigurationError as error:
                yield str(error).splitlines()[0]


def build_space(specification: SweepSpecification, place: str) -> Space:
    """The configurations of a sweep.

    Raises:
        ConfigurationError: as `Space.check`, and for mistakes in the base configuration or the baseline.
    """
    base = load_settings(specification.config, to_overrides(specification.set))
    space = Space(base, specification.factors, place)
    space.check()
    for name in specification.baseline:
        if name not in space.factors:
            raise ConfigurationError(
                f"{place}: baseline.{name} is no factor. {did_you_mean(name, space.factors)}"
                f"Factors are: {', '.join(space.factors)}. What all share belongs in `set`."
            )
    space.settings(specification.baseline, stated_in="baseline")
    return space


def values_of(values: Sequence[Any] | Range) -> Sequence[Any] | None:
    """The values of a factor; None for a range without steps."""
    if not isinstance(values, Range):
        return values
    if values.whole:
        return range(int(values.low), int(values.high) + 1)
    if values.step is None:
        return None
    count = math.floor((values.high - values.low) / values.step + 1e-9) + 1
    return [rounded(values.low + n * values.step) for n in range(count)]


def label(value: Any) -> str:
    """A value as people read it, and as Optuna and MLflow keep it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _tried_alone(values: Sequence[Any] | Range) -> Sequence[Any]:
    """Of a range, which may be of millions, its ends and one between: they show the size and the kind of all."""
    if not isinstance(values, Range):
        return values
    steps = values_of(values)
    return [values.low, values.high] if steps is None else list(dict.fromkeys([*steps[:2], steps[-1]]))


def rounded(value: float) -> int | float:
    """A number as a sweep file would have it: 0.3 for 0.30000000000000004, 4 for 4.0."""
    value = round(value, 10)
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def _assign(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    if value is None and keys[0] == "program":
        # A name without a compiled program: the program as it is written.
        values.pop(keys[-1], None)
    else:
        values[keys[-1]] = value


def _lookup(values: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _unknown_setting(name: str) -> str:
    """Why a factor is no setting of an answer; empty if it is one."""
    model: Any = Settings
    keys = name.split(".")
    for place, key in enumerate(keys):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            # Within a dictionary (filters, compiled programs by name) any key may stand.
            return "" if _is_dictionary(model) else f"'{'.'.join(keys[:place])}' has no parts"
        if key not in model.model_fields:
            near = did_you_mean(key, model.model_fields) or f"There is: {', '.join(model.model_fields)}."
            return f"no such setting. {near}".strip()
        model = _bare(model.model_fields[key].annotation)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return f"this is a section. Name one of its settings: {', '.join(model.model_fields)}."
    if keys[0] in NO_PART_OF_AN_ANSWER or ".".join(keys[:2]) in HOW_AN_ANSWER_IS_COME_BY:
        return "this changes no answer, so there is nothing to compare. Put it into `set`."
    return ""


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), options[0])
    return annotation


def _is_dictionary(annotation: Any) -> bool:
    return annotation is dict or get_origin(annotation) is dict

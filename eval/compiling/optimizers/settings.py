"""Settings of an optimizer: what its budget says, and what is stated besides, which wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean

BUDGETS = ("light", "medium", "heavy")


class OptimizerSettings(BaseModel):
    """What every optimizer has. Subclasses say in `BY_BUDGET` what their budgets stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    BY_BUDGET: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    budget: Literal["light", "medium", "heavy"] = "light"


class DemonstrationSettings(OptimizerSettings):
    """What optimizers that collect demonstrations have: see `BootstrapFewShot`.

    An answer of the teacher becomes a demonstration if the metric gives it `metric_threshold`, or anything but 0
    where none is set. For up to `max_rounds` times a question is asked again until it does.
    """

    max_bootstrapped_demos: int = Field(4, ge=0)
    max_labeled_demos: int = Field(4, ge=0)
    max_rounds: int = Field(1, ge=1)
    metric_threshold: float | None = None


S = TypeVar("S", bound=OptimizerSettings)


def read_settings(model: type[S], raw: Mapping[str, Any], place: str) -> S:
    """The settings that `raw` states, over those of its budget.

    Raises:
        ConfigurationError: one line for each setting that is unknown, with the nearest, or does not fit.
    """
    of_budget = model.BY_BUDGET.get(str(raw.get("budget", "light")), {})
    try:
        return model.model_validate({**of_budget, **raw})
    except ValidationError as error:
        lines = (_describe(dict(problem), model, place) for problem in error.errors())
        raise ConfigurationError("\n".join(lines)) from None


def _describe(problem: dict[str, Any], model: type[OptimizerSettings], place: str) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(model.model_fields)
        return (
            f"{place}: unknown setting '{key}'. {did_you_mean(key, known)}Settings are: {', '.join(known)}."
        )
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    if not key:
        return f"{place}: {message}."
    return f"{place}.{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}."

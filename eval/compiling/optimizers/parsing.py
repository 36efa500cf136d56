"""An optimizer from its name and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.compiling.optimizers.better_together import BetterTogether, BetterTogetherSettings
from eval.compiling.optimizers.copro import COPRO, COPROSettings
from eval.compiling.optimizers.dspy_optimizer import DSPyOptimizer
from eval.compiling.optimizers.few_shot import (
    BootstrapFewShot,
    BootstrapFewShotSettings,
    BootstrapFewShotWithRandomSearch,
    LabeledFewShot,
    LabeledFewShotSettings,
    RandomSearchSettings,
)
from eval.compiling.optimizers.gepa import GEPA, GEPASettings
from eval.compiling.optimizers.infer_rules import InferRules, InferRulesSettings
from eval.compiling.optimizers.mipro import MIPROv2, MIPROv2Settings
from eval.compiling.optimizers.settings import OptimizerSettings, read_settings
from eval.compiling.optimizers.simba import SIMBA, SIMBASettings
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean, there_is

_OPTIMIZERS: dict[str, tuple[type[DSPyOptimizer[Any]], type[OptimizerSettings]]] = {
    optimizer.name: (optimizer, settings)
    for optimizer, settings in (
        (LabeledFewShot, LabeledFewShotSettings),
        (BootstrapFewShot, BootstrapFewShotSettings),
        (BootstrapFewShotWithRandomSearch, RandomSearchSettings),
        (COPRO, COPROSettings),
        (MIPROv2, MIPROv2Settings),
        (SIMBA, SIMBASettings),
        (GEPA, GEPASettings),
        (InferRules, InferRulesSettings),
    )
}
NAMES = (*_OPTIMIZERS, BetterTogether.name)

_REFUSED = {
    "KNNFewShot": "picks its demonstrations when a question is answered, by an embedding model, which no program file "
    "can hold. Use BootstrapFewShotWithRandomSearch, which picks them beforehand.",
    "Ensemble": "answers with several programs at once, which no program file can hold. Use BetterTogether, or compile "
    "with several optimizers and compare what they make (citeqa compare).",
    "BootstrapFinetune": "changes a language model's weights, and needs a provider that fine-tunes. Use MIPROv2 or "
    "GEPA, which change the prompts.",
    "GRPO": "changes a language model's weights, and needs a provider that trains. Use MIPROv2 or GEPA, which change "
    "the prompts.",
    "BootstrapFewShotWithOptuna": "searches as MIPROv2 does, without instructions. Use MIPROv2 or "
    "BootstrapFewShotWithRandomSearch.",
    "AvatarOptimizer": "optimizes agents that call tools, and this program calls none. Use MIPROv2 or GEPA.",
}


def parse_optimizer(raw: Mapping[str, Any] | str, place: str) -> DSPyOptimizer[Any]:
    """The optimizer of `{name: MIPROv2, budget: light, …}`, or of its name alone; `place` is named in errors.

    Raises:
        ConfigurationError: if there is no such optimizer, or it cannot be used here, or a setting does not exist or
            fit.
    """
    settings = {"name": raw} if isinstance(raw, str) else dict(raw)
    name = settings.pop("name", None)
    if name is None:
        raise ConfigurationError(f"{place}: name is missing. There is: {there_is(NAMES)}.")
    if name in _REFUSED:
        raise ConfigurationError(f"{place}.name = {name}: it {_REFUSED[name]}")
    if name == BetterTogether.name:
        return _parse_chain(settings, place)
    if name not in _OPTIMIZERS:
        near = did_you_mean(str(name), NAMES)
        raise ConfigurationError(
            f"{place}.name = {name!r}: no optimizer of DSPy's. {near}There is: {there_is(NAMES)}."
        )
    optimizer, model = _OPTIMIZERS[name]
    return optimizer(read_settings(model, settings, place))


def _parse_chain(raw: Mapping[str, Any], place: str) -> BetterTogether:
    settings = read_settings(BetterTogetherSettings, raw, place)
    steps = []
    for number, step in enumerate(settings.steps):
        here = f"{place}.steps[{number}]"
        of_step: dict[str, Any] = {"name": step} if isinstance(step, str) else dict(step)
        if of_step.get("name") == BetterTogether.name:
            raise ConfigurationError(
                f"{here}.name = {BetterTogether.name}: a chain is no step of a chain. Add its steps."
            )
        steps.append(parse_optimizer({"budget": settings.budget, **of_step}, here))
    return BetterTogether(settings, steps)

"""The factors of a sweep as Optuna has them: lists as categories by their labels, ranges as distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eval.sweep.space import Parameters, Space, label, rounded, values_of
from eval.sweep.specification import Range

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


class OptunaSpace:
    """Translates configurations to Optuna's parameters and back."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._choices = {
            name: {label(value): value for value in values}
            for name, values in space.factors.items()
            if not isinstance(values, Range)
        }
        self.distributions = {name: self._distribution(name) for name in space.factors}

    def encode(self, parameters: Parameters) -> dict[str, Any]:
        """Optuna's parameters for a configuration of the space."""
        return {name: label(value) if name in self._choices else value for name, value in parameters.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that Optuna's parameters say."""
        return {
            name: self._choices[name][value] if name in self._choices else rounded(value)
            for name, value in params.items()
        }

    def holds(self, parameters: Parameters) -> bool:
        """Whether each value is one of its factor's."""
        return all(self._has(name, value) for name, value in parameters.items())

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """The configuration that the trial's sampler chooses."""
        return self.decode({name: self._suggest(trial, name) for name in self._space.factors})

    def _has(self, name: str, value: Any) -> bool:
        values = self._space.factors[name]
        if not isinstance(values, Range):
            return label(value) in self._choices[name]
        if (steps := values_of(values)) is not None:
            return value in steps
        return isinstance(value, int | float) and values.low <= value <= values.high

    def _suggest(self, trial: optuna.trial.Trial, name: str) -> Any:
        from optuna.distributions import FloatDistribution, IntDistribution

        match self.distributions[name]:
            case IntDistribution() as whole:
                return trial.suggest_int(name, whole.low, whole.high, log=whole.log)
            case FloatDistribution() as real:
                return trial.suggest_float(name, real.low, real.high, step=real.step, log=real.log)
            case _:
                return trial.suggest_categorical(name, list(self._choices[name]))

    def _distribution(self, name: str) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        values = self._space.factors[name]
        if not isinstance(values, Range):
            return CategoricalDistribution(list(self._choices[name]))
        if values.whole:
            return IntDistribution(int(values.low), int(values.high), log=values.log)
        if values.step is not None:
            # To the last step: Optuna would warn of a range that is no multiple of it.
            return FloatDistribution(values.low, list(values_of(values) or [])[-1], step=values.step)
        return FloatDistribution(values.low, values.high, log=values.log)

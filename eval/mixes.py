"""Several metrics as one value, by stated weights: what an optimizer climbs, and a sweep may rank by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.metric_names import is_lower_better, parse_metric
from retrieval.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Mix:
    """A weighted mix of metrics under a name of its own.

    The value of a question is the weighted mean over the metrics that apply to it: sum of weight times value over
    the sum of the weights' sizes. Weights of metrics where less is better are negative, so that more is always better.
    """

    name: str
    weights: Mapping[str, float]

    def value(self, row: Mapping[str, float | None]) -> float | None:
        """The mix of one question's metrics; None where none of them applies."""
        parts = [
            (weight, value)
            for metric, weight in self.weights.items()
            if (value := row.get(metric)) is not None
        ]
        if not parts:
            return None
        return sum(weight * value for weight, value in parts) / sum(abs(weight) for weight, _ in parts)


def parse_mix(name: str, weights: Mapping[str, float]) -> Mix:
    """The mix of these weights, by metric names of any spelling.

    Raises:
        ConfigurationError: if a name is no metric, or a weight is 0 or has the wrong sign.
    """
    if not weights:
        raise ConfigurationError(f"{name}: name at least one metric with its weight, such as fact_recall: 1.")
    mixed: dict[str, float] = {}
    for metric_name, weight in weights.items():
        metric = parse_metric(metric_name).name
        if weight == 0:
            raise ConfigurationError(f"{name}: the weight of {metric!r} is 0. Leave it out.")
        if (weight < 0) != is_lower_better(metric):
            better, sign = ("less", "negative") if is_lower_better(metric) else ("more", "positive")
            raise ConfigurationError(
                f"{name}: {metric} = {weight:g}: of {metric}, {better} is better, so its weight must be {sign}."
            )
        mixed[metric] = weight
    return Mix(name, mixed)

"""How likely something in the passages answers a question: what a reader sees of them, weighed as fitted on labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.errors import ConfigurationError

_KIND = "citeqa calibration"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic model: the probability (0 to 1) that the passages answer, from features by name.

    `fitted` tells where it comes from, for whoever opens the file; it decides nothing.
    """

    weights: Mapping[str, float]
    bias: float
    fitted: Mapping[str, str | int | float] = field(default_factory=dict)

    def probability(self, features: Mapping[str, float]) -> float:
        """The probability for one question; a feature that is not there counts as 0."""
        total = self.bias + sum(weight * features.get(name, 0.0) for name, weight in self.weights.items())
        return 0.5 * (1 + math.tanh(total / 2))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {
            "kind": _KIND,
            "weights": dict(self.weights),
            "bias": self.bias,
            "fitted": dict(self.fitted),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> Calibration:
        """The calibration in a file.

        Raises:
            ConfigurationError: if there is none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.get("kind") != _KIND:
                raise ValueError("it is no calibration")
            weights = {str(name): float(weight) for name, weight in content["weights"].items()}
            bias = float(content["bias"])
            if not all(map(math.isfinite, (bias, *weights.values()))):
                raise ValueError("a weight is not finite")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"reader.calibration = '{path}': cannot be read ({error}). Make it: citeqa calibrate --out {path}"
            ) from None
        return Calibration(weights, bias, content.get("fitted", {}))

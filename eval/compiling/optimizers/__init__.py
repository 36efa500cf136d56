"""DSPy's optimizers behind one protocol: their settings, our splits, and candidates that a program file can hold."""

from eval.compiling.optimizers.parsing import parse_optimizer

__all__ = ["parse_optimizer"]

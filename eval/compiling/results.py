"""What compiling found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.compiling.metering import Metered
from eval.compiling.task import Estimate
from eval.sweep.results import SweepResult


@dataclass(frozen=True, slots=True)
class SavedCandidate:
    """A candidate on disk. `note` and `score` are the optimizer's own words and figure for it."""

    path: Path
    note: str
    score: float | None


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What `citeqa compile` did.

    Attributes:
        optimizer: its name.
        candidates: the programs that it made, in the order in which it made them.
        selection: the sweep over the seed and the candidates: chosen on dev, reported once on test.
        winner: the chosen candidate's file; None where the seed is the best.
        is_better: whether the winner is better than the seed beyond noise, on the questions that chose nothing.
        installed: where the winner was put; None where it was not.
        asked: what the optimizer asked of language models, over all calls of this command.
        stopped_early: why the optimizer did not come to its end; empty when it did.
    """

    name: str
    path: Path
    optimizer: str
    candidates: tuple[SavedCandidate, ...]
    selection: SweepResult
    winner: Path | None
    is_better: bool
    installed: Path | None
    asked: Metered
    stopped_early: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What compiling would ask, at most, before anything is asked. `usd` is None where no price is known."""

    optimizer: str
    train: int
    dev: int
    test: int
    estimate: Estimate
    calls: int
    final_calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None

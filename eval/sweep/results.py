"""What a sweep found, as its report, its tables, MLflow and machines read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eval.mixes import Mix
from eval.paired import PairedDifference
from eval.summary import Summary

State: TypeAlias = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is to be made large, or small: a metric (`recall@5`, `latency_ms`, `usd`), or a mix of some by its name."""

    name: str
    minimize: bool = False
    mix: Mix | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it needs."""
        return (self.name,) if self.mix is None else tuple(self.mix.weights)


@dataclass(frozen=True, slots=True)
class Spending:
    """What the answers cost when they were first given, whatever caches save later.

    `usd` is None where no price is known for the model that was asked.
    """

    usd: float | None = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0


NOTHING = Spending()


def add(a: Spending, b: Spending) -> Spending:
    """The sum of two; its `usd` is unknown where one is."""
    return Spending(
        None if a.usd is None or b.usd is None else a.usd + b.usd,
        a.input_tokens + b.input_tokens,
        a.output_tokens + b.output_tokens,
        a.calls + b.calls,
    )


def total(spendings: Iterable[Spending]) -> Spending:
    """The sum of all."""
    return reduce(add, spendings, NOTHING)


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration.

    Attributes:
        number: its place in the order of asking, from 1.
        parameters: factor (`retrieval.k`) to value.
        state: `stopped` by racing after some of the questions, or `failed` as a whole; both are in no ranking.
        reason: why it was stopped or failed.
        path: its run directory (`scores.jsonl`, `summary.json`, `run.json`), which `citeqa compare` takes.
        objectives: each objective's mean over the scored questions; None where it applies to none.
        summary: all metrics, over all questions and by slice (for a stopped trial: of the questions it answered).
        spending: for all its answers.
    """

    number: int
    parameters: Mapping[str, Any]
    state: State
    reason: str
    path: Path
    objectives: Mapping[str, float | None]
    summary: Summary
    spending: Spending

    @property
    def label(self) -> str:
        """`#3 retrieval.k=5, reader.max_sentences=2`."""
        return f"#{self.number} " + ", ".join(f"{name}={value}" for name, value in self.parameters.items())


@dataclass(frozen=True, slots=True)
class FactorEffect:
    """What a factor does to the first objective.

    Attributes:
        means: value (as text) to the mean of the objective over the complete trials with it, and their number.
        share: of the variance of the objective over complete trials, how much the factor alone explains (eta
            squared of a one-way analysis), 0 to 1; None with fewer than two trials a value.
    """

    factor: str
    means: Mapping[str, tuple[float, int]]
    share: float | None


@dataclass(frozen=True, slots=True)
class FinalCheck:
    """The winner and the baseline on questions that chose nothing.

    `difference` is winner minus baseline there (None when the winner is the baseline); `chosen_on` the winner's
    first objective where it was chosen, `held_out` on these questions: the first is optimistic by the excess.
    `reads` counts how often sweeps of this name have looked at these questions, this time included.
    """

    split: str
    questions: int
    objective: str
    chosen_on: float
    held_out: float
    baseline_held_out: float | None
    difference: PairedDifference | None
    winner_path: Path
    baseline_path: Path | None
    reads: int = 1


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished (or cleanly stopped) sweep.

    Attributes:
        stopped_early: why not all configurations were tried (a budget); empty when all were.
        ranking: numbers of complete trials, best first by the first objective; with several objectives the
            Pareto front comes first.
        pareto: numbers of the trials that no other beats in every objective, in ranking order; with one
            objective, the winner alone.
        baseline: number of the trial that others are compared with, if it is among them.
        against_baseline: trial number to its paired difference (trial minus baseline) in the first objective,
            Holm-corrected over all of them.
        against_winner: likewise, trial minus winner: who cannot be told from the winner.
        settings: what all configurations share, by dotted key.
        provenance: versions, dataset digest, code hash, seed, when it was begun (ISO date).
    """

    name: str
    path: Path
    dataset: str
    split: str
    questions: int
    objectives: Sequence[Objective]
    factors: Mapping[str, Sequence[Any]]
    trials: Sequence[Trial]
    ranking: Sequence[int]
    pareto: Sequence[int]
    winner: int | None
    baseline: int | None
    against_baseline: Mapping[int, PairedDifference]
    against_winner: Mapping[int, PairedDifference]
    effects: Sequence[FactorEffect]
    final: FinalCheck | None
    spent: Spending
    stopped_early: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return self.trials[number - 1]

"""The candidates chosen from on `dev` and reported once on `test`: a sweep over program states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eval.comparison.verdicts import judge
from eval.compiling.results import SavedCandidate
from eval.compiling.specification import MIX, CompileSpecification
from eval.sweep.command import write_report_once
from eval.sweep.files import write_result
from eval.sweep.results import SweepResult
from eval.sweep.run import SweepOptions, SweepProgress, run_sweep
from eval.sweep.space import build_space
from eval.sweep.specification import MixedObjective, SweepSpecification

STATE = "program.states.default"


def select(
    specification: CompileSpecification,
    seed_state: str | None,
    candidates: Sequence[SavedCandidate],
    on_progress: Callable[[SweepProgress], None],
) -> SweepResult:
    """Evaluate the seed and the candidates under the same conditions, rank them, and report the best on `test`.

    What the optimizer asked of `dev` is not asked again.

    Raises:
        CiteqaError: whatever a person must mend; what was answered is kept.
    """
    sweep = selection_sweep(specification, seed_state, [candidate.path for candidate in candidates])
    place = f"{specification.name}: selection"
    result = run_sweep(sweep, place, SweepOptions(on_progress=on_progress))
    write_result(result, build_space(sweep, place))
    write_report_once(result)
    return result


def selection_sweep(
    specification: CompileSpecification, seed_state: str | None, states: Sequence[Path]
) -> SweepSpecification:
    """The sweep: one factor, the compiled program; the seed is the baseline.

    All selections stand in one place, so that how often they looked at `test` is counted over all of them.
    """
    return SweepSpecification(
        name=specification.name,
        config=specification.config,
        set=specification.set,
        factors={STATE: [seed_state, *map(str, states)]},
        objectives=(MixedObjective(name=MIX, weights=dict(specification.mix.weights)),),
        select_on=specification.dev,
        report_on=specification.test,
        baseline={STATE: seed_state},
        results=f"{specification.results}/selections",
        cache=specification.cache,
    )


def winner_of(result: SweepResult, seed_state: str | None) -> Path | None:
    """The chosen candidate's file; None where the seed is the best."""
    if result.winner is None:
        return None
    state = result.trial(result.winner).parameters[STATE]
    return None if state == seed_state else Path(state)


def is_better(result: SweepResult) -> bool:
    """Whether the winner is better than the seed beyond noise on the questions that chose nothing."""
    if result.final is None or result.final.difference is None:
        return False
    return judge(result.final.difference).kind == "better"

"""What a reader must know before relying on the result: nothing that was left out is hidden."""

from __future__ import annotations

from collections.abc import Iterator

from eval.html_report.exhibits import ranked
from eval.html_report.formatting import count, enumerate_names
from eval.sweep.results import SweepResult


def list_caveats(result: SweepResult) -> Iterator[str]:
    """Budgets, configurations without a rank, unscored questions, a missing or a worn held-out check."""
    if result.stopped_early:
        yield f"Not every configuration was tried: {result.stopped_early.rstrip('.')}."
    yield from _unranked(result)
    yield from _unscored(result)
    if result.final is None and result.winner is not None and len(result.ranking) > 1:
        yield (
            "The winner was not checked on questions that chose nothing. The best of many is always flattered "
            "by chance: expect less than its score here."
        )
    if result.final is not None and result.final.reads > 1:
        yield (
            f"The questions of “{result.final.split}” have been looked at {result.final.reads} times by sweeps of this "
            "name. Each look that leads to a change makes them a little less independent."
        )
    without = [f"#{trial.number}" for trial in ranked(result) if None in trial.objectives.values()]
    if without:
        yield f"An objective applies to no question in {enumerate_names(without)}."


def _unranked(result: SweepResult) -> Iterator[str]:
    for state, said in (("stopped", "stopped early as hopeless"), ("failed", "ended in failure")):
        names = [f"#{trial.number}" for trial in result.trials if trial.state == state]
        if names:
            yield (
                f"{count(len(names), 'configuration')} {said}, and not ranked: {enumerate_names(names)}. "
                "The reasons stand below the leaderboard."
            )


def _unscored(result: SweepResult) -> Iterator[str]:
    trials = [trial for trial in ranked(result) if trial.summary.overall.unscored]
    if not trials:
        return
    total = sum(trial.summary.overall.unscored for trial in trials)
    where = enumerate_names([f"{trial.summary.overall.unscored} in #{trial.number}" for trial in trials])
    yield f"{count(total, 'answer')} could not be scored, and {'is' if total == 1 else 'are'} in no mean: {where}."

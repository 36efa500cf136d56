"""Which configuration is tried next: Optuna decides, and we hand it the grid, the ranges and the results.

Everything is a function of the specification and of the results so far. A sweep that goes on after whatever
ended it begins anew here, is answered from what is kept, and so comes to the same suggestions: the study needs
no storage of its own, and Optuna's in memory serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.questions import Question
from eval.sweep.optuna_space import OptunaSpace
from eval.sweep.results import Objective
from eval.sweep.space import Parameters, Space, label
from eval.sweep.specification import Search

if TYPE_CHECKING:
    import optuna

_REPEATS_ALLOWED = 20
"""So many suggestions in a row that were tried before end a search: the space is exhausted, or nearly."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration to evaluate; `number` counts from 1. `handle` is Optuna's trial, for racing."""

    number: int
    parameters: Parameters
    handle: optuna.trial.Trial


class Racer:
    """Hands the values of a configuration to Optuna as they become known, and asks it whether to stop."""

    def __init__(self, suggestion: Suggestion, order: Sequence[Question]) -> None:
        self._handle = suggestion.handle
        self._order = order
        self._reported = 0

    def should_stop(self, answered: int, values: Mapping[str, float]) -> bool:
        """Whether the configuration is hopeless, after the first `answered` questions of the order."""
        self.report(values, answered)
        return self._handle.should_prune()

    def report(self, values: Mapping[str, float], answered: int) -> None:
        """The values of the first `answered` questions; a step is a question's place in the order."""
        for step in range(self._reported, answered):
            if (value := values.get(self._order[step].id)) is not None:
                self._handle.report(value, step)
        self._reported = max(self._reported, answered)


class Study:
    """Suggests configurations, the baseline first, each once."""

    def __init__(
        self,
        space: Space,
        search: Search,
        objectives: Sequence[Objective],
        baseline: Parameters,
        pruner: optuna.pruners.BasePruner | None = None,
        listed: Sequence[Parameters] | None = None,
    ) -> None:
        """With `listed`, these are suggested after the baseline, and nothing else: they were chosen before."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._search = search
        self._optuna_space = OptunaSpace(space)
        self._study = optuna.create_study(
            directions=["minimize" if objective.minimize else "maximize" for objective in objectives],
            sampler=sampler_of(search),
            pruner=pruner or optuna.pruners.NopPruner(),
        )
        self._baseline = dict(baseline)
        self._listed = listed
        self._is_listed = listed is not None or search.method == "grid"
        self._told: dict[str, list[float] | None] = {}

    def __iter__(self) -> Iterator[Suggestion]:
        """The suggestions; each must be told before the next is asked for."""
        for number, (parameters, handle) in enumerate(self._asked(), start=1):
            yield Suggestion(number, parameters, handle)

    def tell(
        self, suggestion: Suggestion, values: Sequence[float] | None, *, was_stopped: bool = False
    ) -> None:
        """What the configuration scored in each objective; None if it was stopped, in a race, or failed."""
        from optuna.trial import TrialState

        self._told[_key(suggestion.parameters)] = None if values is None else list(values)
        if was_stopped:
            # Optuna's samplers know such a trial for a bad one, and a failed one for none at all.
            self._study.tell(suggestion.handle, state=TrialState.PRUNED)
        else:
            self._tell(suggestion.handle, values)

    def _asked(self) -> Iterator[tuple[Parameters, optuna.trial.Trial]]:
        seen: set[str] = set()
        for parameters in self._fixed():
            if (key := _key(parameters)) not in seen:
                seen.add(key)
                yield parameters, self._begin(parameters)
        if self._is_listed:
            return
        repeats = 0
        while len(seen) < self._search.trials and repeats < _REPEATS_ALLOWED:
            handle = self._study.ask(self._optuna_space.distributions)
            parameters = self._optuna_space.decode(handle.params)
            if (key := _key(parameters)) in seen:
                repeats += 1
                self._tell(handle, self._told[key])
                continue
            repeats = 0
            seen.add(key)
            yield parameters, handle

    def _fixed(self) -> Iterator[Parameters]:
        yield self._baseline
        if self._listed is not None:
            yield from self._listed
        elif self._search.method == "grid":
            yield from self._space.grid()

    def _begin(self, parameters: Parameters) -> optuna.trial.Trial:
        if not self._optuna_space.holds(parameters):
            # A baseline outside of the factors' values: raced against, but nothing to learn suggestions from.
            return self._study.ask()
        self._study.enqueue_trial(self._optuna_space.encode(parameters))
        return self._study.ask(self._optuna_space.distributions)

    def _tell(self, handle: optuna.trial.Trial, values: Sequence[float] | None) -> None:
        from optuna.trial import TrialState

        if values is None:
            self._study.tell(handle, state=TrialState.FAIL)
        else:
            self._study.tell(handle, list(values))


def sampler_of(search: Search) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for a search; for a grid, which needs none, any."""
    from optuna.samplers import RandomSampler, TPESampler

    match search.method:
        case "tpe":
            return TPESampler(seed=search.seed)
        case _:
            return RandomSampler(seed=search.seed)


def _key(parameters: Parameters) -> str:
    return label(dict(parameters))

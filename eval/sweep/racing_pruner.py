"""Racing as Optuna calls it. Apart from `eval.sweep.racing`, since Optuna takes its time to import."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from eval.sweep.racing import evidence_against


class RacingPruner(BasePruner):
    """Made by `eval.sweep.racing.make_pruner`, which says what it promises."""

    def __init__(self, alpha: float, first_look: int, best_possible: float | None) -> None:
        self._alpha = alpha
        self._first_look = first_look
        self._best_possible = best_possible

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is proved worse than the best complete one."""
        seen = trial.intermediate_values
        # By the last question's place: one without a value is answered, too.
        answered = max(seen, default=-1) + 1
        if answered < self._first_look or not any(study.get_trials(False, (TrialState.COMPLETE,))):
            return False
        maximize = study.direction == StudyDirection.MAXIMIZE
        return self._evidence(seen, study.best_trial.intermediate_values, maximize) >= 1 / self._alpha

    def _evidence(self, seen: Mapping[int, float], best: Mapping[int, float], maximize: bool) -> float:
        """Over the questions that both have, or may still have, a value for."""
        last = max(seen)
        shared = [step for step in sorted(best) if step in seen or step > last]
        answered = [step for step in shared if step in seen]
        sign = 1.0 if maximize else -1.0
        ceiling = sign * ((1.0 if maximize else 0.0) if self._best_possible is None else self._best_possible)
        best_values = sign * np.array([best[step] for step in shared])
        values = sign * np.array([seen[step] for step in answered])
        return evidence_against(values - best_values[: len(values)], ceiling - best_values)

"""`citeqa sweep` as a function: a specification in, a ranked result out. The same call again goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from eval.ground_truth import GroundTruth
from eval.paired import PairedDifference
from eval.records import disk_refusals
from eval.run_identity import code_hash
from eval.sweep.budget import BudgetKeeper, BudgetSpentError
from eval.sweep.final_check import check_winner
from eval.sweep.planning import (
    baseline_of,
    check_size,
    count_configurations,
    plan_trials,
    pruner_of,
    shared_settings,
    shown_values,
    sweep_directory,
)
from eval.sweep.questions import read_questions
from eval.sweep.results import FinalCheck, Spending, SweepResult, Trial, total
from eval.sweep.selection import compare_with, factor_effects, rank
from eval.sweep.space import Parameters, build_space
from eval.sweep.specification import SweepSpecification
from eval.sweep.stages import INDEX_SECTIONS, Stages
from eval.sweep.study import Racer, Study, Suggestion
from eval.sweep.trials import Progress, ScoredTrial, TrialFailedError, TrialPlan, run_trial
from retrieval.errors import RunStoppedError, StorageError

FAILED_IN_A_ROW = 3
"""So many configurations that fail one after the other stop the sweep: it is not they, it is the set-up."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """A sweep under way: this is the `configuration`th of `configurations` (None: not known), from 1."""

    configuration: int
    configurations: int | None
    answered: int
    questions: int
    spent: Spending


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How a sweep is run, which changes nothing of its result (but what `tpe` suggests on several Spark tasks).

    `tasks`: of Spark, at once; as many as it has cores where nothing is said.
    """

    retry_errors: bool = False
    allow_large: bool = False
    on_progress: Callable[[SweepProgress], None] = lambda _: None
    engine: Literal["local", "spark"] = "local"
    tasks: int | None = None


def run_sweep(
    specification: SweepSpecification, place: str = "sweep", options: SweepOptions | None = None
) -> SweepResult:
    """Evaluate the configurations, rank them, and report the best one on questions that did not choose it.

    `place` is what errors call the specification.

    Raises:
        CiteqaError: whatever a person must mend; what was answered before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    options = options or SweepOptions()
    space = build_space(specification, place)
    if not options.allow_large:
        check_size(specification, space)
    chosen_on, reported_on = read_questions(specification, space.base)
    directory = sweep_directory(specification, space, chosen_on, reported_on)
    own_indexes = any(name.split(".")[0] in INDEX_SECTIONS for name in space.factors)
    with _held(directory), Stages(Path(specification.cache), own_indexes=own_indexes) as stages:
        plan = plan_trials(
            specification, space, stages, chosen_on, directory, retry_errors=options.retry_errors
        )
        if not own_indexes and not any(name.startswith("retrieval.index") for name in space.factors):
            # At once, and not as the failure of each configuration.
            stages.identity(space.base)
        listed = _evaluate_on_spark(specification, plan, options) if options.engine == "spark" else None
        return _Sweep(specification, plan, reported_on, options, listed).run()


def _evaluate_on_spark(
    specification: SweepSpecification, plan: TrialPlan, options: SweepOptions
) -> Sequence[Parameters]:
    """Have everything answered there; the sweep then finds it kept, and ranks as if it had asked itself."""
    from eval.sweep.spark_engine import evaluate_on_spark

    return evaluate_on_spark(specification, plan, options.tasks)


class _Sweep:
    def __init__(
        self,
        specification: SweepSpecification,
        plan: TrialPlan,
        reported_on: GroundTruth | None,
        options: SweepOptions,
        listed: Sequence[Parameters] | None = None,
    ) -> None:
        self._listed = listed
        self._specification = specification
        self._reported_on = reported_on
        self._options = options
        self._baseline = baseline_of(specification, plan.space)
        self._configurations = count_configurations(specification, plan.space)
        self._budget = BudgetKeeper(specification.budget, plan.directory)
        self._plan = replace(plan, before_asking=self._budget.check)
        self._scored: list[ScoredTrial] = []
        self._stopped_early = ""

    def run(self) -> SweepResult:
        final = None
        try:
            self._search()
            final = self._final_check()
        except BudgetSpentError as spent:
            self._stopped_early = str(spent)
        if not self._scored:
            raise RunStoppedError(f"Stopped before any configuration was finished: {self._stopped_early}.")
        return self._result(final)

    def _search(self) -> None:
        study = Study(
            self._plan.space,
            self._specification.search,
            self._plan.objectives,
            self._baseline,
            pruner_of(self._specification, self._plan),
            self._listed,
        )
        for suggestion in study:
            scored = self._evaluate(suggestion)
            self._scored.append(scored)
            study.tell(suggestion, _told(scored.trial), was_stopped=scored.trial.state == "stopped")
            self._stop_if_failing(FAILED_IN_A_ROW)
        # Fewer than would stop it, and all of them.
        self._stop_if_failing(len(self._scored))

    def _evaluate(self, suggestion: Suggestion) -> ScoredTrial:
        plan = replace(self._plan, on_progress=self._show(suggestion.number, len(self._plan.order)))
        if not plan.looks:
            return run_trial(plan, suggestion.number, suggestion.parameters)
        racer = Racer(suggestion, plan.order)
        scored = run_trial(plan, suggestion.number, suggestion.parameters, racer.should_stop)
        racer.report(scored.values, len(plan.order))
        return scored

    def _show(self, number: int, questions: int) -> Callable[[Progress], None]:
        def show(progress: Progress) -> None:
            self._budget.add(progress.spent)
            self._options.on_progress(
                SweepProgress(number, self._configurations, progress.answered, questions, self._budget.spent)
            )

        return show

    def _stop_if_failing(self, in_a_row: int) -> None:
        last = [scored.trial for scored in self._scored[-in_a_row:]]
        if len(last) == in_a_row and all(trial.state == "failed" for trial in last):
            failed = "the only configuration" if in_a_row == 1 else f"{in_a_row} configurations"
            failed += " failed " if in_a_row == 1 else " failed one after the other, the last "
            raise RunStoppedError(
                f"Stopped: {failed}({last[-1].label}) because: {last[-1].reason} Mend the cause and run the same "
                "command again."
            )

    def _final_check(self) -> FinalCheck | None:
        winner = self._winner()
        if winner is None or self._reported_on is None:
            return None
        plan = replace(
            self._plan, on_progress=self._show(len(self._scored) + 1, len(self._reported_on.questions))
        )
        try:
            return check_winner(
                plan,
                self._reported_on,
                self._specification.report_split or "held out",
                self._trial(winner),
                None if self._baseline_number() is None else self._trial(self._baseline_number()),
            )
        except TrialFailedError as error:
            raise RunStoppedError(
                f"The configurations are ranked, but the best one ({self._trial(winner).label}) could not be "
                f"reported on held-out questions: {error} Mend the cause and run the same command again."
            ) from error

    def _result(self, final: FinalCheck | None) -> SweepResult:
        plan, trials = self._plan, [scored.trial for scored in self._scored]
        ranking, pareto = rank(trials, plan.objectives)
        winner, baseline = self._winner(), self._baseline_number()
        return SweepResult(
            name=self._specification.name,
            path=plan.directory,
            dataset=plan.ground_truth.name,
            split=self._specification.select_on or "all",
            questions=len(plan.order),
            objectives=plan.objectives,
            factors={name: shown_values(values) for name, values in plan.space.factors.items()},
            trials=trials,
            ranking=ranking,
            pareto=pareto,
            winner=winner,
            baseline=baseline,
            against_baseline=self._against(baseline),
            against_winner=self._against(winner),
            effects=factor_effects(trials, list(plan.space.factors), plan.objectives[0]),
            final=final,
            spent=total(trial.spending for trial in trials),
            stopped_early=self._stopped_early,
            settings=shared_settings(plan.space),
            provenance=self._provenance(),
        )

    def _winner(self) -> int | None:
        ranking, _ = rank([scored.trial for scored in self._scored], self._plan.objectives)
        objective = self._plan.objectives[0].name
        return ranking[0] if ranking and self._trial(ranking[0]).objectives[objective] is not None else None

    def _baseline_number(self) -> int | None:
        """The baseline is always asked first; it is none when it could not be evaluated."""
        first = self._scored[0].trial if self._scored else None
        return first.number if first is not None and first.state == "complete" else None

    def _against(self, number: int | None) -> Mapping[int, PairedDifference]:
        if number is None:
            return {}
        ids = [question.id for question in self._plan.ground_truth.questions]
        return compare_with(self._scored[number - 1], self._scored, ids, self._plan.objectives[0])

    def _trial(self, number: int | None) -> Trial:
        return self._scored[(number or 0) - 1].trial

    def _provenance(self) -> dict[str, Any]:
        return {
            "begun": _begun(self._plan.directory),
            "citeqa": version("citeqa"),
            "code": code_hash()[:12],
            "search": self._specification.search.model_dump(),
            "questions": self._plan.digest,
            "held_out": self._reported_on.digest if self._reported_on else None,
        }


def _told(trial: Trial) -> Sequence[float] | None:
    values = list(trial.objectives.values())
    if trial.state != "complete" or None in values:
        return None
    return [value for value in values if value is not None]


def _begun(directory: Path) -> str:
    """The day on which the sweep was begun, whenever it goes on."""
    file = directory / "begun"
    with disk_refusals(file):
        if not file.exists():
            file.write_text(date.today().isoformat(), encoding="utf-8")
        return file.read_text(encoding="utf-8")


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    with disk_refusals(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StorageError(
                f"Another process is working on the sweep at '{directory}'. Wait for it, or name another place "
                "with `results:` in the sweep file."
            ) from None
    try:
        yield
    finally:
        lock.release()

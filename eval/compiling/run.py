"""`citeqa compile` as a function: an optimizer makes candidates, `dev` chooses, `test` is read once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.compiling.candidates import CandidateShelf
from eval.compiling.estimating import estimate
from eval.compiling.installing import install
from eval.compiling.metering import LimitReachedError, Meter, Metered
from eval.compiling.metric import check_prompts_matter, check_varies
from eval.compiling.optimizers import parse_optimizer
from eval.compiling.results import CompileResult, Plan
from eval.compiling.selection import is_better, select, winner_of
from eval.compiling.specification import MIX, CompileSpecification, base_settings
from eval.compiling.splits import Splits, read_splits
from eval.compiling.task import Optimizer
from eval.compiling.workshop import Workshop, open_workshop, require_language_model
from eval.run_identity import run_identity
from eval.sweep.results import Spending, SweepResult
from eval.sweep.run import SweepProgress
from program.assembly import DEFAULT_PROGRAM
from program.content_store import ContentStore, content_key
from program.retrievers import corpus_hash
from program.settings import Settings
from retrieval.errors import ConfigurationError, RunStoppedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How a compilation is run, which changes nothing of its result.

    `force` installs a winner that is not better than the seed beyond noise.
    """

    force: bool = False
    on_call: Callable[[Metered], None] = lambda _: None
    on_progress: Callable[[SweepProgress], None] = lambda _: None


def compile_program(
    specification: CompileSpecification, place: str = "compile", options: CompileOptions | None = None
) -> CompileResult:
    """Optimize the configured program, choose among the candidates on `dev`, and prove the best on `test`.

    Interrupted, the same call goes on: every language-model call is kept as it comes.

    Raises:
        CiteqaError: whatever a person must mend; what was asked before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    options = options or CompileOptions()
    work = _Compilation(specification, place, options)
    with work:
        return work.run()


def plan_compilation(specification: CompileSpecification, place: str = "compile") -> Plan:
    """What compiling would ask and cost, at most. Nothing is asked. Raises as `compile_program`."""
    with _Compilation(specification, place, CompileOptions()) as work:
        return work.plan()


class _Compilation:
    def __init__(self, specification: CompileSpecification, place: str, options: CompileOptions) -> None:
        self._specification = specification
        self._place = place
        self._options = options
        self._settings = base_settings(specification)
        require_language_model(self._settings)
        self._optimizer: Optimizer = parse_optimizer(specification.optimizer, f"{place}: optimizer")
        self._splits = _splits(specification, self._settings)
        self._meter = Meter(specification.limits, options.on_call)
        self._resources = ExitStack()

    def __enter__(self) -> _Compilation:
        self._store = self._resources.enter_context(
            ContentStore(Path(self._specification.cache) / "stages.db")
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def plan(self) -> Plan:
        with self._workshop() as workshop:
            self._check(workshop)
            return estimate(self._specification, self._settings, self._optimizer, self._splits, workshop.task)

    def run(self) -> CompileResult:
        key = self._key()
        directory = Path(self._specification.results) / f"{self._specification.name}-{key[:10]}"
        stopped = ""
        with self._workshop() as workshop:
            self._check(workshop)
            shelf = CandidateShelf(directory, workshop.task.program, self._provenance())
            done = shelf.finished(key)
            if done is None:
                stopped = self._optimize(workshop, shelf, key)
            asked = self._meter.so_far if done is None else _metered(done["asked"])
        seed_state = self._settings.program.states.get(DEFAULT_PROGRAM)
        selection = select(self._specification, seed_state, shelf.candidates, self._options.on_progress)
        check_varies(self._specification.mix, _extremes(selection))
        winner, better = winner_of(selection, seed_state), is_better(selection)
        installed = None
        if winner is not None and (better or self._options.force):
            installed = self._specification.output_file
            install(winner, installed, selection)
        return CompileResult(
            name=self._specification.name,
            path=directory,
            optimizer=self._optimizer.name,
            candidates=shelf.candidates,
            selection=selection,
            winner=winner,
            is_better=better,
            installed=installed,
            asked=asked,
            stopped_early=stopped,
        )

    def _workshop(self) -> Any:
        return open_workshop(
            self._specification, self._settings, self._splits, self._store, self._meter, self._place
        )

    def _check(self, workshop: Workshop) -> None:
        check_prompts_matter(self._specification.mix, workshop.task.program)
        self._optimizer.check(len(workshop.task.train), len(workshop.task.validation))

    def _optimize(self, workshop: Workshop, shelf: CandidateShelf, key: str) -> str:
        """Run the optimizer; why it did not come to its end, or nothing."""
        try:
            self._optimizer.run(workshop.task, shelf.keep)
        except Exception as error:
            # Whatever DSPy makes of a call that was refused, the limit is the reason.
            if self._meter.reached:
                return self._meter.reached
            if isinstance(error, LimitReachedError):
                return str(error)
            if shelf.candidates:
                logger.warning("%s ended with an error: %s", self._optimizer.name, error)
                return f"{self._optimizer.name} ended with an error: {error}"
            raise RunStoppedError(
                f"{self._optimizer.name} failed before it made a candidate: {error} Mend the cause and run the "
                "same command again: what was asked is kept."
            ) from error
        if self._meter.reached:
            return self._meter.reached
        shelf.finish(key, _as_json(self._meter.so_far))
        return ""

    def _key(self) -> str:
        """Of everything that the candidates depend on."""
        return content_key(
            self._specification.model_dump(
                mode="json", exclude={"name", "limits", "output", "results", "cache", "config", "set", "test"}
            ),
            run_identity(self._settings, corpus_hash(self._settings)),
            [self._splits.train.digest, self._splits.dev.digest],
        )

    def _provenance(self) -> dict[str, Any]:
        specification, splits = self._specification, self._splits
        return {
            "name": specification.name,
            "citeqa": version("citeqa"),
            "dspy": version("dspy"),
            "optimizer": {
                "name": self._optimizer.name,
                "settings": dict(self._optimizer.settings),
                "seed": specification.seed,
            },
            "models": {
                "task": self._settings.language_model.model,
                "prompt": (specification.prompt_model or {}).get(
                    "model", self._settings.language_model.model
                ),
                "teacher": (specification.teacher_model or {}).get("model"),
            },
            "dataset": {
                "path": str(splits.train.path),
                "digest": splits.train.digest,
                "splits": {
                    specification.train: len(splits.train.questions),
                    specification.dev: len(splits.dev.questions),
                    specification.test: len(splits.test.questions),
                },
            },
            "metric": dict(specification.mix.weights),
        }


def _splits(specification: CompileSpecification, settings: Settings) -> Splits:
    evaluation = settings.evaluation
    names = (specification.train, specification.dev, specification.test)
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"train, dev and test must be three splits, not {', '.join(names)}: what teaches, chooses and proves must "
            "be different questions."
        )
    return read_splits(
        evaluation.dataset,
        train=specification.train,
        dev=specification.dev,
        test=specification.test,
        columns=evaluation.columns or None,
        store=settings.tracking.uri,
    )


def _extremes(selection: SweepResult) -> list[float]:
    """Ends of the intervals of what was optimized: all the same only where each answer of each program scores so."""
    summaries = [trial.summary.overall for trial in selection.trials if trial.state == "complete"]
    intervals = [summary.intervals[MIX] for summary in summaries if MIX in summary.intervals]
    return [end for interval in intervals for end in (interval.low, interval.high)]


def _as_json(metered: Metered) -> dict[str, Any]:
    return {"spent": asdict(metered.spent), "failed": metered.failed}


def _metered(body: Mapping[str, Any]) -> Metered:
    return Metered(Spending(**body["spent"]), body["failed"])

"""Which of the programs that an optimizer tried are worth choosing from."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import dspy

from eval.compiling.candidates import state_key
from eval.compiling.optimizers.demonstrations import keep_complete_demos
from eval.compiling.task import Candidate, Keep
from program.qa import CitedQA

AT_MOST = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """What a program got: a mean score, and on which examples. `whole`: on all of the split."""

    score: float
    examples: int
    split: str
    whole: bool

    def __str__(self) -> str:
        return f"{self.score:.3f} on {self.examples} {self.split} example{'s' * (self.examples != 1)}"

    @property
    def rank(self) -> tuple[bool, float, int]:
        """A score on a part of the examples says less than any on all of them."""
        return self.whole, self.score, self.examples


@dataclass(frozen=True, slots=True)
class _Tried:
    candidate: Candidate
    scored: Scored


class Shortlist:
    """Collects what an optimizer tried, each prompt once, and hands over the best few. Safe for many threads."""

    def __init__(self, seed: CitedQA) -> None:
        self._seed = seed
        self._seed_key = state_key(as_candidate_program(seed, seed))
        self._tried: dict[str, _Tried] = {}
        self._lock = threading.Lock()

    def add(self, program: dspy.Module, scored: Scored) -> None:
        """A program was tried."""
        held = as_candidate_program(program, self._seed)
        key = state_key(held)
        with self._lock:
            before = self._tried.get(key)
            if key != self._seed_key and (before is None or before.scored.examples < scored.examples):
                self._tried[key] = _Tried(Candidate(held, str(scored), scored.score), scored)

    def hand_over(self, keep: Keep, choice: dspy.Module | None = None) -> None:
        """Give the best to `keep`, better ones later, and `choice`, if the optimizer came to one, last.

        What was only tried on a part of the examples counts where nothing was tried on all. The seed is nothing to
        choose, and is given only as the optimizer's own choice.
        """
        best = self._best()
        last: Candidate | None = None
        if choice is not None:
            program = as_candidate_program(choice, self._seed)
            key = state_key(program)
            known = self._tried.get(key)
            last = known.candidate if known else Candidate(program, self._note_of_choice(key))
            best.pop(key, None)
        places = AT_MOST - (last is not None)
        for candidate in reversed([tried.candidate for tried in best.values()][:places]):
            keep(candidate)
        if last is not None:
            keep(last)

    def _best(self) -> dict[str, _Tried]:
        with self._lock:
            tried = sorted(self._tried.items(), key=lambda item: item[1].scored.rank, reverse=True)
        whole = {key: found for key, found in tried if found.scored.whole}
        return whole or dict(tried)

    def _note_of_choice(self, key: str) -> str:
        return "the seed: nothing that was tried was better" if key == self._seed_key else "not scored yet"


def as_candidate_program(program: dspy.Module, seed: CitedQA) -> CitedQA:
    """A copy of `seed` with the prompts of `program`, and nothing else that DSPy hung on it.

    What `program` lacks (see `preparing`) stays as the seed has it.
    """
    held: CitedQA = seed.deepcopy()
    prompts = dict(program.named_predictors())
    for name, predictor in held.named_predictors():
        predictor.lm = None
        if (source := prompts.get(name)) is not None:
            # A copy of the class: InferRules writes into the one that it finds.
            predictor.signature = source.signature.with_instructions(source.signature.instructions)
            predictor.demos = list(source.demos)
    keep_complete_demos(held)
    return held

"""Which questions choose the best configuration, and which are kept to report it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from eval.ground_truth import GroundTruth, Question, read_ground_truth
from eval.sweep.racing import question_order
from eval.sweep.specification import SweepSpecification
from program.settings import Settings
from retrieval.errors import ConfigurationError, GroundTruthError


def read_questions(
    specification: SweepSpecification, settings: Settings
) -> tuple[GroundTruth, GroundTruth | None]:
    """The questions to choose on, and those to report on; None where the sweep reports on none.

    Raises:
        GroundTruthError: if a split is not there, or a question is in both.
        ConfigurationError: if the share to hold out leaves one of the two without questions.
    """
    chosen_on = _read(settings, specification.select_on)
    if specification.holdout is not None:
        return _hold_out(chosen_on, specification.holdout, specification.search.seed)
    if specification.report_on is None:
        return chosen_on, None
    if specification.report_on == specification.select_on:
        raise ConfigurationError(
            f"report_on: {specification.report_on!r} is what the winner is chosen on, and would flatter it. "
            "Name another split, hold out a share (holdout: 0.3), or report_on: null to go without."
        )
    reported_on = _read(settings, specification.report_on)
    shared = {q.id for q in chosen_on.questions} & {q.id for q in reported_on.questions}
    if shared:
        raise GroundTruthError(
            f"{reported_on.path}: {len(shared)} questions are in {specification.select_on or 'all splits'!r} and in "
            f"{specification.report_on!r}, {min(shared)!r} for one: the winner would be reported on what "
            "chose it. Give each question one split (citeqa dataset split)."
        )
    return chosen_on, reported_on


def order_of_asking(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions in a random order, the same for every configuration: what racing's looks rely on."""
    return [questions[place] for place in question_order(len(questions), seed)]


def _read(settings: Settings, split: str | None) -> GroundTruth:
    evaluation = settings.evaluation
    return read_ground_truth(
        evaluation.dataset,
        split=split,
        limit=evaluation.limit,
        columns=evaluation.columns or None,
        store=settings.tracking.uri,
    )


def _hold_out(ground_truth: GroundTruth, share: float, seed: int) -> tuple[GroundTruth, GroundTruth]:
    """By a hash of each question's id, so that further questions move none to the other side."""
    threshold = share * 2**64
    held = {q.id for q in ground_truth.questions if _hash(q.id, seed) < threshold}
    kept = tuple(q for q in ground_truth.questions if q.id not in held)
    rest = tuple(q for q in ground_truth.questions if q.id in held)
    if not kept or not rest:
        raise ConfigurationError(
            f"holdout = {share} of {len(ground_truth.questions)} questions leaves one side without any. "
            "Give another share, or more questions."
        )
    return replace(ground_truth, questions=kept), replace(ground_truth, questions=rest)


def _hash(id_: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{id_}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")

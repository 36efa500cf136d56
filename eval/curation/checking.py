"""Whether a ground truth makes an honest evaluation: what leaks between splits, and what nobody can find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.curation.leaks import NEAR_DUPLICATE, SAME_GOLD, Leak, leaks_between_splits, shared_gold
from eval.ground_truth import GroundTruth
from eval.missing_gold import MissingGold, find_missing_gold

NO_SPLIT = "(none)"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Attributes:
        splits: split to its questions, `(none)` for those without one.
        unanswerable: likewise, the questions without a relevant document.
        leaks: questions of two splits that are nearly one.
        duplicates: likewise, within one split: they count twice.
        shared_gold: for each two splits, how many gold documents both have. No finding.
        missing_gold: None where the documents are not known.
    """

    name: str
    questions: int
    splits: Mapping[str, int]
    unanswerable: Mapping[str, int]
    leaks: Sequence[Leak]
    duplicates: Sequence[Leak]
    shared_gold: Mapping[tuple[str, str], int]
    missing_gold: Sequence[MissingGold] | None

    @property
    def honest(self) -> bool:
        """Whether nothing was found that bends what is measured: a leak, or gold that nobody can find."""
        return not self.leaks and not self.missing_gold


def check_ground_truth(
    ground_truth: GroundTruth,
    known_doc_uris: Iterable[str] | None,
    normalize: Callable[[str], str],
    *,
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> CheckResult:
    """Check all questions; `known_doc_uris` are the documents that can be found, if that is known."""
    questions = ground_truth.questions
    across, within = leaks_between_splits(questions, threshold, same_gold_threshold)
    missing = None if known_doc_uris is None else find_missing_gold(questions, known_doc_uris, normalize)
    splits = [question.tags.get("split", NO_SPLIT) for question in questions]
    return CheckResult(
        name=str(ground_truth.path),
        questions=len(questions),
        splits=dict(sorted(Counter(splits).items())),
        unanswerable=Counter(
            split for split, question in zip(splits, questions, strict=True) if not question.answerable
        ),
        leaks=across,
        duplicates=within,
        shared_gold=shared_gold(questions),
        missing_gold=missing,
    )

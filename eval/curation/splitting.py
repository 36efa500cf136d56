"""Divide a ground truth into splits that are alike, share no question, and stay put when questions are added."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from eval.curation.leaks import NEAR_DUPLICATE, SAME_GOLD, group_questions
from eval.questions import Question, hashed_id
from retrieval.errors import ConfigurationError

STRATA = ("type", "lang")


@dataclass(frozen=True, slots=True)
class Division:
    """What splitting did.

    Attributes:
        questions: all of them in their order, each with its tag `split`.
        groups: how many groups were kept together, of more than one question.
        largest: questions in the largest group.
        moved: questions that had another split before.
        strata: (stratum, split) to questions, the stratum as `type=…, lang=…`.
    """

    questions: tuple[Question, ...]
    groups: int
    largest: int
    moved: int
    strata: Mapping[tuple[str, str], int]


def divide(
    questions: Sequence[Question],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    strata: Sequence[str] = STRATA,
    gold_together: bool = True,
    threshold: float = NEAR_DUPLICATE,
    same_gold_threshold: float = SAME_GOLD,
) -> Division:
    """Give each question a split, so that each split has its share of every stratum.

    Near duplicates get one split, and with `gold_together` questions with the same gold. The same content and
    seed give the same splits in any order: within a stratum, groups stand in the order of a hash of what they
    ask, and each split takes its part of that line (systematic sampling with a random start). A question that is
    added moves only those of its stratum that stand next to where two parts meet.

    Raises:
        ConfigurationError: if the shares are not positive, or do not add up to 1.
    """
    _check_shares(shares)
    groups = group_questions(
        questions,
        gold_together=gold_together,
        threshold=threshold,
        same_gold_threshold=same_gold_threshold,
    )
    lines: dict[str, list[tuple[str, list[Question]]]] = {}
    for group in groups:
        lines.setdefault(_stratum(group, strata), []).append((_key(group, seed), group))
    split_of: dict[int, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for stratum, line in sorted(lines.items()):
        line.sort(key=lambda keyed: keyed[0])
        for split, group in _cut([group for _, group in line], shares, _fraction(f"{seed}\n{stratum}")):
            split_of |= {id(question): split for question in group}
            counts[stratum, split] += len(group)
    divided = tuple(
        replace(question, tags={**question.tags, "split": split_of[id(question)]}) for question in questions
    )
    before = [question.tags.get("split") for question in questions]
    return Division(
        questions=divided,
        groups=sum(len(group) > 1 for group in groups),
        largest=max(map(len, groups), default=0),
        moved=sum(
            old is not None and old != new.tags["split"] for old, new in zip(before, divided, strict=True)
        ),
        strata=dict(sorted(counts.items())),
    )


def parse_shares(text: str) -> dict[str, float]:
    """`dev=.5,test=.5` as a mapping.

    Raises:
        ConfigurationError: if it is not of that form.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not equals or math.isnan(value) or name in shares:
            raise ConfigurationError(f"shares {text!r}: {part!r} is not understood. Write dev=.5,test=.5.")
        shares[name] = value
    _check_shares(shares)
    return shares


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ConfigurationError(f"shares: {name} = {share:g} must be above 0 and at most 1.")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigurationError(
            f"shares: {', '.join(f'{name}={share:g}' for name, share in shares.items())} add up to "
            f"{sum(shares.values()):g}, not to 1."
        )


def _stratum(group: Sequence[Question], strata: Sequence[str]) -> str:
    """The stratum of most of the group's questions."""
    named = (
        ", ".join(f"{tag}={question.tags[tag]}" for tag in strata if tag in question.tags) or "untagged"
        for question in group
    )
    return min(Counter(named).items(), key=lambda item: (-item[1], item[0]))[0]


def _key(group: Sequence[Question], seed: int) -> str:
    # The least hash of its members: a question that joins the group seldom changes it.
    asked = (hashed_id(question.question, question.history) for question in group)
    return min(hashlib.sha256(f"{seed}\n{content}".encode()).hexdigest() for content in asked)


def _fraction(text: str) -> float:
    return int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:13], 16) / 16**13


def _cut(
    line: Sequence[list[Question]], shares: Mapping[str, float], start: float
) -> list[tuple[str, list[Question]]]:
    """Each group of the line with the split in whose part it begins; `start` shifts all by up to one question."""
    total = sum(map(len, line))
    names, ends = list(shares), list(accumulate(shares.values()))
    taken, cut = 0, []
    for group in line:
        position = (taken + start * len(group)) / total
        cut.append(
            (next((n for n, end in zip(names, ends, strict=True) if position < end), names[-1]), group)
        )
        taken += len(group)
    return cut

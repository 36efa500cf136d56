"""Splits of formats that keep each in a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.questions import Question
from retrieval.errors import GroundTruthError
from retrieval.suggestions import did_you_mean, there_is

DEFAULT_SPLIT = "test"
_FILE_NAME = re.compile(r"\w[\w.-]*")


def choose_among(splits: Sequence[str], split: str | None, place: Path) -> str:
    """The split to read: the one asked for, else the only one there is, else `test`.

    Raises:
        GroundTruthError: if there is no such split at `place`; names those there are.
    """
    if split is None:
        split = splits[0] if len(splits) == 1 else DEFAULT_SPLIT
    if split not in splits:
        raise GroundTruthError(
            f"{place} has no split {split!r}. {did_you_mean(split, splits)}Splits there: {there_is(splits)}."
        )
    return split


def by_split(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """The questions by their tag `split`, `test` for those without one.

    Raises:
        GroundTruthError: if a split is no name for a file.
    """
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.tags.get("split", DEFAULT_SPLIT), []).append(question)
    for split in groups:
        if not _FILE_NAME.fullmatch(split):
            raise GroundTruthError(
                f"split {split!r} cannot name a file. Use letters, digits, '.', '-' and '_'."
            )
    return groups

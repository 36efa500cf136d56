"""Where a compiled program comes from, and how good it was found to be: what a reviewer of its file reads first."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, FiniteFloat


class Score(NamedTuple):
    """A mean over questions with its interval, or a mean difference with its own; in the file, a list of four."""

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: int


Scores = dict[str, Score]
"""By metric."""


class _Part(BaseModel):
    # A person may write a program file by hand and leave out what they do not know, or add what we do not.
    model_config = ConfigDict(frozen=True, extra="allow")


class Optimizer(_Part):
    """What made the program."""

    name: str | None = None
    settings: dict[str, Any] | None = None
    seed: int | None = None


class Models(_Part):
    """The language models that took part, by their strings."""

    task: str | None = None
    prompt: str | None = None
    teacher: str | None = None


class Dataset(_Part):
    """The questions: a hash of them, and how many each split holds."""

    path: str | None = None
    digest: str | None = None
    splits: dict[str, int] | None = None


class SplitScores(_Part):
    """The scores of the seed (the program as it is written) and of this one on the questions of a split.

    `difference` is this one's less the seed's, question by question; `p` says how easily chance makes it.
    """

    seed: Scores | None = None
    this: Scores | None = None
    difference: Scores | None = None
    p: dict[str, FiniteFloat] | None = None


class SavedScores(_Part):
    """By split: it was chosen on `dev`, and `test` was read once."""

    dev: SplitScores | None = None
    test: SplitScores | None = None


class Code(_Part):
    """The code that the program was compiled with (its hash), and the predictors that it had."""

    code: str | None = None
    predictors: list[str] | None = None


class Provenance(_Part):
    """All of it. Every field may be absent; fields of others are kept.

    `metric` is the weight of each metric in the mix that the optimizer saw; `citeqa` is the version that wrote it.
    """

    name: str | None = None
    created: str | None = None
    citeqa: str | None = None
    optimizer: Optimizer | None = None
    models: Models | None = None
    dataset: Dataset | None = None
    metric: dict[str, FiniteFloat] | None = None
    scores: SavedScores | None = None
    program: Code | None = None

    def as_json(self) -> dict[str, Any]:
        """What was said, and nothing of what was not."""
        return self.model_dump(mode="json", exclude_unset=True)

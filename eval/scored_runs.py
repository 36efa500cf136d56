"""A scored run as comparisons see it: one value for each metric and question, and the evidence on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.uris import UriNormalization


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """What one configuration scored on each question.

    Attributes:
        name: what people call it: a run's name, a directory's.
        source: where it was read from, for messages.
        questions: question id to the question's text, in the run's order.
        tags: question id to its tags (`type`, `lang`, `split`); may lack questions without any.
        values: metric name (`recall@5`) to an array as long as `questions`. NaN: the metric does not apply, or
            the question is unscored.
        unscored: question id to the reason why it has no value at all.
        settings: what it was run with, by dotted key; empty where that is not known.
        dataset: the digest of its questions; empty where that is not known.
        row: question id to its line of `scores.jsonl` (`answer`, `retrieved`, `cited_uris`, `gold`, `usage`, …),
            read when it is asked for; empty where there is no such line.
        uris: how its documents' URIs were normalized when it was scored; None where that is not known.
        matched_by: what names a question in another run, too. `question`: its text alone, since the ids were
            made up when it was read.
    """

    name: str
    source: str
    questions: Mapping[str, str]
    values: Mapping[str, NDArray[np.float64]]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    row: Callable[[str], Mapping[str, Any]] = lambda _: {}
    uris: UriNormalization | None = None
    matched_by: Literal["id", "question"] = "id"

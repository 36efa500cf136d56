"""Label gaps: documents that several configurations rank high and that nobody judged, as a list to judge.

Pooling is how TREC builds its judgements (Spärck Jones & van Rijsbergen, 1975). A document that answers a question
and is missing from its gold makes good configurations look bad, and a new retriever worse than the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eval.curation.rankings import Rankings
from eval.questions import Question
from retrieval.errors import ConfigurationError, DataError

DEPTH = 3


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A document that nobody judged for a question: how many runs have it at the top, and its ranks there."""

    question: Question
    doc_uri: str
    runs: int
    best_rank: int
    mean_rank: float


def find_unjudged(
    questions: Sequence[Question],
    runs: Mapping[str, Rankings],
    normalize: Callable[[str], str],
    *,
    depth: int = DEPTH,
    at_least: int = 2,
) -> list[Unjudged]:
    """The documents among the first `depth` of at least `at_least` runs (by name) that the gold does not name.

    Those that most runs agree on come first, then those with the best ranks. One judged not relevant (grade 0)
    is judged. Unanswerable questions are pooled too: that nobody found an answer is worth checking.

    Raises:
        ConfigurationError: if there are fewer than `at_least` runs, or `depth` is below 1.
        DataError: if a run has none of the questions.
    """
    if depth < 1 or not 1 <= at_least <= len(runs):
        raise ConfigurationError(
            f"The first {depth} documents of {len(runs)} runs cannot be pooled where {at_least} runs must agree. "
            f"Name {max(1, at_least)} runs or more, and a depth of 1 or more."
        )
    by_id = {question.id: question for question in questions}
    for name, rankings in runs.items():
        if not by_id.keys() & rankings.keys():
            raise DataError(f"'{name}' has none of these questions. Name a run over the same ground truth.")
    judged = {
        (question.id, normalize(item.doc_uri))
        for question in questions
        for alternatives in question.gold
        for item in alternatives
    }
    spelled: dict[tuple[str, str], str] = {}
    ranks: dict[tuple[str, str], list[int]] = {}
    for rankings in runs.values():
        for id_ in by_id.keys() & rankings.keys():
            for rank, (key, uri) in enumerate(list(rankings[id_].items())[:depth], 1):
                if (id_, key) not in judged:
                    spelled.setdefault((id_, key), uri)
                    ranks.setdefault((id_, key), []).append(rank)
    found = [
        Unjudged(by_id[id_], spelled[id_, key], len(places), min(places), sum(places) / len(places))
        for (id_, key), places in ranks.items()
        if len(places) >= at_least
    ]
    order = {question.id: number for number, question in enumerate(questions)}
    return sorted(found, key=lambda gap: (-gap.runs, gap.mean_rank, order[gap.question.id], gap.doc_uri))

"""Ranking metrics of many questions at once: trec_eval's own, by its binding pytrec_eval.

trec_eval's conventions hold: duplicates are removed first, precision divides by k however short the list,
nDCG has linear gain, an empty list scores 0. What is handed over are ranks, not the retriever's scores:
trec_eval orders by score in 32-bit floats and breaks ties by document id, which would undo the order that
the program really used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter

import pytrec_eval

from eval.metric_names import Metric
from eval.observations import Observation, RetrievedDocument
from eval.questions import (
    KEY_SEPARATOR,
    GoldGroup,
    Question,
    document_groups,
    passage_groups,
    passage_key,
)

_DOC_URI = attrgetter("doc_uri")
_AT_CUTOFF = {
    "recall": "recall",
    "precision": "P",
    "hit": "success",
    "ndcg": "ndcg_cut",
    "map": "map_cut",
}
_WHOLE = {"ndcg": "ndcg", "map": "map", "mrr": "recip_rank"}


def score_rankings(
    answered: Iterable[tuple[Question, Observation]],
    metrics: Sequence[Metric],
    normalize: Callable[[str], str],
) -> dict[Metric, dict[str, float]]:
    """The value of each ranking metric for each question that it applies to, by question id.

    It applies to answerable questions; at passage level to those whose gold names passages throughout.
    """
    answerable = [(question, observation) for question, observation in answered if question.answerable]
    scores: dict[Metric, dict[str, float]] = {}
    for passage_level in (False, True):
        of_level = [metric for metric in metrics if metric.passage_level == passage_level]
        if of_level:
            scores |= _evaluate(answerable, of_level, normalize, passage_level=passage_level)
    return scores


def to_trec_run(keys: Sequence[str], gold: Sequence[GoldGroup]) -> dict[str, float]:
    """A ranking as trec_eval reads one, `{name: score}`, with every group of alternatives as one document.

    The first member that was retrieved stands for its group, and later members are duplicates of it, as is
    a document that comes again. With gold `[[A, B], [C]]`, the ranking B, X, A, B, C is `{"gold0": 3,
    "other1": 2, "gold1": 1}`: one of two is found at rank 1, both at rank 3.
    """
    group_of = {member: number for number, group in enumerate(gold) for member in group.members}
    found = dict.fromkeys(map(group_of.get, keys, keys))
    ranking = list(found)
    # Names of our own: trec_eval ends a name at its first NUL, and takes no lone surrogate.
    names = list(_other_names(len(ranking)))
    for number in range(len(gold)):
        if number in found:
            names[ranking.index(number)] = f"gold{number}"
    return dict(zip(names, range(len(names), 0, -1), strict=True))


@lru_cache(maxsize=64)
def _other_names(count: int) -> tuple[str, ...]:
    return tuple(f"other{rank}" for rank in range(count))


def _document_keys(retrieved: Sequence[RetrievedDocument], normalize: Callable[[str], str]) -> list[str]:
    return list(map(normalize, map(_DOC_URI, retrieved)))


def _passage_keys(retrieved: Sequence[RetrievedDocument], normalize: Callable[[str], str]) -> list[str]:
    # A passage without an id cannot match gold, but it holds a rank: its place makes it distinct.
    return [
        passage_key(normalize(document.doc_uri), document.chunk_id or f"{KEY_SEPARATOR}{place}")
        for place, document in enumerate(retrieved)
    ]


def _evaluate(
    answerable: Iterable[tuple[Question, Observation]],
    metrics: Sequence[Metric],
    normalize: Callable[[str], str],
    *,
    passage_level: bool,
) -> dict[Metric, dict[str, float]]:
    to_gold, to_keys = (passage_groups, _passage_keys) if passage_level else (document_groups, _document_keys)
    judgements: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for question, observation in answerable:
        gold = to_gold(question, normalize)
        if gold is not None:
            judgements[question.id] = {f"gold{number}": group.grade for number, group in enumerate(gold)}
            run[question.id] = to_trec_run(to_keys(observation.retrieved, normalize), gold)
    return _measure(judgements, run, metrics)


def _measure(
    judgements: dict[str, dict[str, int]], run: dict[str, dict[str, float]], metrics: Sequence[Metric]
) -> dict[Metric, dict[str, float]]:
    # Numbers for names here too, for the same reason as in `to_trec_run`.
    ids = {str(number): id_ for number, id_ in enumerate(judgements)}
    names = {metric: _trec_name(metric) for metric in metrics}
    ranked = {number: run[id_] for number, id_ in ids.items()}
    judged = {number: judgements[id_] for number, id_ in ids.items()}
    # trec_eval's own spelling has a dot where its results have an underscore.
    wanted = {f"{name}.{cutoff}" if cutoff else name for name, cutoff in names.values()}
    found = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(ranked) if judged else {}
    scores: dict[Metric, dict[str, float]] = {}
    for metric, (name, cutoff) in names.items():
        told = f"{name}_{cutoff}" if cutoff else name
        # It leaves out a question whose ranking is empty, and the mean would rise.
        values = {id_: found[number][told] if number in found else 0.0 for number, id_ in ids.items()}
        scores[metric] = _cut_reciprocal_ranks(metric, values)
    return scores


def _trec_name(metric: Metric) -> tuple[str, int | None]:
    if metric.cutoff and metric.measure != "mrr":
        return _AT_CUTOFF[metric.measure], metric.cutoff
    return _WHOLE[metric.measure], None


def _cut_reciprocal_ranks(metric: Metric, values: dict[str, float]) -> dict[str, float]:
    # trec_eval's reciprocal rank has no cutoff.
    if metric.measure != "mrr" or not metric.cutoff:
        return values
    lowest = 1 / metric.cutoff
    return {question_id: value if value >= lowest else 0.0 for question_id, value in values.items()}
